"""Ten simulated annotators per question, as VQAv2 has them: most say the truth, some something near it."""

from __future__ import annotations

import random

from vilau.world.families import CORNER_COUNTS, DIGITS, Question
from vilau.world.scene import pick
from vilau.world.snapshots import UNANSWERABLE
from vilau.world.things import SIZE_NAMES

ANNOTATORS = 10
TRUE_SHARE = 0.85
"""How likely an annotator says the truth."""
_ORDERED = (SIZE_NAMES, DIGITS, CORNER_COUNTS)
"""Answers in an order: who errs says a neighbour."""
_SHADES = ("dark", "light", "bright")


def annotate(question: Question, rng: random.Random, num: int = ANNOTATORS) -> list[str]:
    """Return what ``num`` annotators say: the truth, or with probability 0.15 the nearest alternative.

    Nearest is the size or count one step away, a colour with a shade before it (VQA's normaliser does not
    know that dark blue is blue), and for all else any other answer of the question's kind. The first always
    says the truth, so nobody's truth is lost.
    """
    said = [
        question.answer if rng.random() < TRUE_SHARE else _near(question, rng)
        for _ in range(num - 1)
    ]
    return [question.answer, *said]


def _near(question: Question, rng: random.Random) -> str:
    answer = question.answer
    for ordered in _ORDERED:
        if question.choices and set(question.choices) <= set(ordered) and answer in ordered:
            place = ordered.index(answer)
            return pick(rng, [ordered[i] for i in (place - 1, place + 1) if 0 <= i < len(ordered)])
    if "color" in question.question.split() and answer != UNANSWERABLE:
        return f"{pick(rng, _SHADES)} {answer}"
    return pick(rng, [choice for choice in question.choices if choice != answer])
