"""How the published evaluation scripts read a model's free text: as yes or no, or as an option's letter.

Two families of scripts stand behind the papers' tables. Style ``lmms`` is lmms-eval (0.7), behind VILA-U's and
VARGPT's numbers; style ``llava`` is LLaVA's own scripts, behind Liquid's. They read chatty answers differently, so a
number is only comparable with numbers of the same style. Both strip the generated text before they read it.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Literal

from vilau.errors import ConfigError

AnswerStyle = Literal["lmms", "llava"]
STYLES: tuple[AnswerStyle, ...] = ("lmms", "llava")

MME_PREFIX = 4
"""Among so many first characters MME's tool looks for "yes", then for "no"."""

SCIENCE_QA_LETTERS = "ABCDE"
ANSWER_IS_LETTER = re.compile(rf"The answer is ([{SCIENCE_QA_LETTERS}])")


def check_style(
    style: str, benchmark: str, styles: tuple[AnswerStyle, ...] = STYLES
) -> AnswerStyle:
    """Return the style.

    Raises:
        ConfigError: it is none of the styles in which ``benchmark`` is published.
    """
    for known in styles:
        if style == known:
            return known
    raise ConfigError(
        f"style is '{style}', but {benchmark} is read in style {' or '.join(styles)}; write that."
    )


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return which of the known words was probably meant, else all of them, as an error's last sentence."""
    words = sorted(set(known))
    close = get_close_matches(word, words, n=1, cutoff=0.5)
    if close:
        return f"Did you mean '{close[0]}'?"
    return f"Write one of {', '.join(words)}."


def parse_yes_no(answer: str, style: AnswerStyle) -> str:
    """Read an answer of POPE as ``yes``, ``no`` or ``other``.

    ``lmms``: the lower-case stripped answer must be the bare word, so "Yes." is ``other``. ``llava``: the first
    sentence without commas is ``no`` if one of its words, between single spaces, is ``No``, ``no`` or ``not``, and
    ``yes`` otherwise; never ``other``.

    Raises:
        ConfigError: unknown style.
    """
    if check_style(style, "POPE") == "lmms":
        word = answer.lower().strip()
        return word if word in ("yes", "no") else "other"
    words = answer.strip().split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


def parse_mme(answer: str, style: AnswerStyle) -> str:
    """Read an answer of MME as ``yes``, ``no`` or ``other``.

    ``lmms``: full stops are dropped; the bare word or its first letter alone counts, else whichever of "yes" and "no"
    (in this order) is found in the first four characters: "Eyes" is ``yes``, "not sure" is ``no``, "There is no" is
    ``other``. ``llava`` (MME's own tool): the first four characters alone decide, full stops included.

    Raises:
        ConfigError: unknown style.
    """
    text = answer.strip().lower()
    if check_style(style, "MME") == "lmms":
        text = text.replace(".", "")
        if len(text) == 1:
            return {"y": "yes", "n": "no"}.get(text, "other")
    start = text[:MME_PREFIX]
    return next((word for word in ("yes", "no") if word in start), "other")


def parse_letter(answer: str, style: AnswerStyle) -> str:
    """Read an answer of SEED-Bench as an option's letter.

    ``lmms``: the first character, as a capital. ``llava``: the whole text as it is, so that only the bare capital
    letter can be right.

    Raises:
        ConfigError: unknown style.
    """
    text = answer.strip()
    return text[:1].upper() if check_style(style, "SEED-Bench") == "lmms" else text


def parse_science_qa(answer: str, style: AnswerStyle) -> str:
    """Read an answer of ScienceQA as an option's capital letter; the empty string if it names none.

    ``lmms``: the letter alone in either case, or a capital with a full stop at the start ("B. because"). ``llava``:
    the capital alone, "B. " at the start (a line break counts as ". "), or the first "The answer is B" inside, one
    with a full stop after the letter before one without.

    Raises:
        ConfigError: unknown style.
    """
    text = answer.strip()
    if check_style(style, "ScienceQA") == "lmms":
        starts = len(text) > 1 and text[0].isupper() and text[1] == "."
        return text[0].upper() if starts or len(text) == 1 else ""
    text = text.replace("\n", ". ")
    if len(text) == 1 or text[1:3] == ". ":
        return text[0] if text[0] in SCIENCE_QA_LETTERS else _named_letter(text)
    return _named_letter(text)


def _named_letter(text: str) -> str:
    ended = re.search(ANSWER_IS_LETTER.pattern + r"\.", text)
    found = ended or ANSWER_IS_LETTER.search(text)
    return found.group(1) if found else ""
