"""The letter of an option in free text, found as lmms-eval's static MMBench matcher finds it."""

from collections.abc import Sequence

TOKEN_LETTERS = "ABCDE"
MARKS_AROUND = (
    ("", "."),
    ("", ","),
    ("", ":"),
    ("", ")"),
    ("", ")."),
    ("(", ")"),
    ("(", ")."),
    (":", ""),
    (":", ","),
    (":", "."),
    (":", ")"),
    (":", ")."),
)
"""What may stand around a letter, in the order in which it is looked for."""
WORDS_FOR_ARTICLE = 3
"""In an answer of more words an "A" alone may be the article."""

_NOUNS = {"answer": ("", "correct ", "best "), "option": ("correct ", "best "), "choice": ("", "correct ")}  # fmt: skip
ANNOUNCEMENTS = (
    *(f"{kind}{noun} is" for noun, kinds in _NOUNS.items() for kind in kinds),
    *(f"the {kind}{noun} is" for noun, kinds in _NOUNS.items() for kind in kinds),
    *(f"i {verb}" for verb in ("choose", "select", "pick")),
    *(f"my {noun} is" for noun in ("answer", "choice")),
    *("옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)
"""What announces an answer; the letter that follows counts."""

# How sure each way of naming a letter is; the surest wins, among equals the last in the text.
AT_START, AT_END, ANNOUNCED = 10, 9, 7
WRITTEN_AS = {"({})": 6, "{}.": 5, "{}:": 4, "{})": 3, "{} ": 2}
INSIDE_A_WORD = 0


def letter_token(text: str) -> str:
    """Return the one letter of A to E that is a word of the text, bare or with `MARKS_AROUND`; else ``""``."""
    words = set(text.split())
    bare = [letter for letter in TOKEN_LETTERS if letter in words]
    article = bare == ["A"] and len(text.split()) > WORDS_FOR_ARTICLE
    if len(bare) == 1 and not article:
        return bare[0]
    for before, after in MARKS_AROUND:
        named = [letter for letter in TOKEN_LETTERS if f"{before}{letter}{after}" in words]
        if len(named) == 1:
            return named[0]
    return ""


def find_letter(answer: str, letters: Sequence[str]) -> str:
    """Return the letter among ``letters`` that an answer names most surely; ``""`` if it holds none.

    Letters count as capitals only, and even inside words where nothing better is found.
    """
    text = answer.strip()
    for mark in ",.!?;:'\"":
        text = text.strip(mark)
    text = f" {text} "
    found = [one for letter in letters for one in _ways(text, letter)]
    if not found:
        found = [
            (INSIDE_A_WORD, text.rfind(letter), letter) for letter in letters if letter in text
        ]
    return max(found, key=lambda one: one[:2])[2] if found else ""


def _ways(text: str, letter: str) -> list[tuple[int, int, str]]:
    """Return (how sure, where, letter) for each way in which the text names a letter."""
    ways = []
    for form, sureness in WRITTEN_AS.items():
        place = text.rfind(form.format(letter))
        if place >= 0:
            ways.append((sureness, place, letter))
    lower = text.lower()
    for words in ANNOUNCEMENTS:
        said = lower.find(words)
        place = text.find(letter, said + len(words)) if said >= 0 else -1
        if place >= 0:
            ways.append((ANNOUNCED, place, letter))
    bare = text.strip()
    if bare.startswith(letter) and not bare[1:2].isalpha():
        ways.append((AT_START, 0, letter))
    if bare.endswith(letter) and not bare[-2:-1].isalpha():
        ways.append((AT_END, len(text) - 1, letter))
    return ways
