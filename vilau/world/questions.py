"""Questions about scenes: balanced samples of them, POPE's object probes, and the blind baseline.

``families.py`` makes the questions of each family; here they are collected and drawn.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from vilau.errors import ConfigError
from vilau.world.families import ANSWERS, FAMILIES, YES_NO, Question, questions_by_family
from vilau.world.scene import LEVELS, Level, pick
from vilau.world.things import COLOR_NAMES, SHAPES, Scene
from vilau.world.words import a

__all__ = [
    "FAMILIES",
    "POPE_MODES",
    "BlindBaseline",
    "PairStatistics",
    "Question",
    "all_answers",
    "blind_answers",
    "pope_questions",
    "questions",
    "sample_questions",
]

POPE_MODES = ("random", "popular", "adversarial")
_ALL_PAIRS = tuple((color, shape) for color in COLOR_NAMES for shape in SHAPES)


def questions(scene: Scene, rng: random.Random, *, level: Level = LEVELS["base"]) -> list[Question]:
    """All questions of the scene that have one undoubted answer, no two alike.

    ``rng`` decides which way a yes/no question is put, so that both answers are equally likely in
    each family. ``level`` names the alphabet from which absent things are asked about.
    """
    families = questions_by_family(scene, rng, level)
    return [question for family in FAMILIES for question in families.get(family, ())]


def sample_questions(
    scene: Scene, rng: random.Random, num: int, *, level: Level = LEVELS["base"]
) -> list[Question]:
    """Draw up to ``num`` different questions: first a family, then an answer, then a question.

    Families and, inside a family, answers are uniform over what the scene allows; without the
    second step most counts would be zero or one.
    """
    pools = {
        family: _by_answer(found)
        for family, found in questions_by_family(scene, rng, level).items()
        if found
    }
    chosen: list[Question] = []
    while pools and len(chosen) < num:
        family = pick(rng, list(pools))
        answers = pools[family]
        answer = pick(rng, list(answers))
        chosen.append(answers[answer].pop(int(rng.random() * len(answers[answer]))))
        if not answers[answer]:
            del answers[answer]
        if not answers:
            del pools[family]
    return chosen


def _by_answer(found: Iterable[Question]) -> dict[str, list[Question]]:
    pools: dict[str, list[Question]] = {}
    for question in found:
        pools.setdefault(question.answer, []).append(question)
    return pools


def all_answers() -> tuple[str, ...]:
    """Every answer that any question can have, sorted."""
    return tuple(sorted({answer for choices in ANSWERS.values() for answer in choices}))


# ------------------------------------------------------------------ POPE


@dataclass
class PairStatistics:
    """How often (colour, shape) pairs appear in scenes, and how often two of them together."""

    frequency: Counter[tuple[str, str]] = field(default_factory=Counter)
    together: Counter[frozenset[tuple[str, str]]] = field(default_factory=Counter)

    @classmethod
    def gather(cls, scenes: Iterable[Scene]) -> PairStatistics:
        """Count over a stream of scenes (the training split's, as in POPE)."""
        statistics = cls()
        for scene in scenes:
            pairs = {(thing.color, thing.shape) for thing in scene.things}
            statistics.frequency.update(pairs)
            statistics.together.update(map(frozenset, itertools.combinations(sorted(pairs), 2)))
        return statistics

    def company(self, pair: tuple[str, str], present: Iterable[tuple[str, str]]) -> int:
        """How often ``pair`` appeared together with the present pairs, summed over them."""
        return sum(self.together[frozenset((pair, other))] for other in present)


def pope_questions(
    scene: Scene,
    rng: random.Random,
    mode: str,
    statistics: PairStatistics,
    per_image: int = 3,
) -> list[Question]:
    """Probe for objects as POPE does: up to ``per_image`` present pairs and as many absent ones.

    Absent pairs are ``random``, the most ``popular``, or, ``adversarial``, those most often seen
    together with what is present. Source: POPE (Li et al. 2023, "Evaluating object hallucination in
    large vision-language models"). Raises ConfigError for another mode.
    """
    if mode not in POPE_MODES:
        raise ConfigError(f"mode is {mode!r}; write one of {', '.join(POPE_MODES)}.")
    present = sorted({(thing.color, thing.shape) for thing in scene.things})
    rng.shuffle(present)
    absent = [pair for pair in _ALL_PAIRS if pair not in present]
    rng.shuffle(absent)  # ties are broken by chance
    if mode == "popular":
        absent.sort(key=lambda pair: -statistics.frequency[pair])
    elif mode == "adversarial":
        absent.sort(
            key=lambda pair: (-statistics.company(pair, present), -statistics.frequency[pair])
        )
    num = min(per_image, len(present))
    asked = [(pair, "yes") for pair in present[:num]] + [(pair, "no") for pair in absent[:num]]
    return [
        Question("exist", f"is there {a(f'{color} {shape}')} in the image ?", answer, YES_NO)
        for (color, shape), answer in asked
    ]


# ------------------------------------------------------------------ the blind baseline


class BlindBaseline:
    """Answers without looking: the most frequent answer of the same question in training.

    Unknown questions get their family's most frequent answer; ties go to the first in the alphabet.
    """

    def __init__(self, training_questions: Iterable[Question]) -> None:
        by_text: defaultdict[str, Counter[str]] = defaultdict(Counter)
        by_family: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for question in training_questions:
            by_text[question.question][question.answer] += 1
            by_family[question.family][question.answer] += 1
        self.by_text = {text: _most_frequent(counts) for text, counts in by_text.items()}
        self.by_family = {family: _most_frequent(counts) for family, counts in by_family.items()}

    def answer(self, question: Question) -> str:
        """The guess; the empty string if neither the text nor the family was seen."""
        return self.answer_text(question.question, question.family)

    def answer_text(self, text: str, family: str = "") -> str:
        """The same for a question given as text and family."""
        return self.by_text.get(text) or self.by_family.get(family, "")


def _most_frequent(counts: Counter[str]) -> str:
    return min(counts, key=lambda answer: (-counts[answer], answer))


def blind_answers(training_questions: Iterable[Question]) -> dict[str, str]:
    """Most frequent training answer of every question text."""
    return BlindBaseline(training_questions).by_text
