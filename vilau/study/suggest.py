"""Words for error messages: what a user probably meant, and what there is to choose from."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return `` Did you mean `x`?`` for the closest choice, or the list of choices where none is close."""
    known = sorted(set(choices))
    # A long word with one slip scores high; short ones (`tiny`, `cpu`) need the lower cutoff.
    close = get_close_matches(word, known, n=1, cutoff=0.6 if len(word) > 4 else 0.5)
    if close:
        return f" Did you mean `{close[0]}`?"
    return f" There is: {listing(known)}." if known else ""


def listing(words: Iterable[str]) -> str:
    """Return the words in back-quotes, separated by commas."""
    return ", ".join(f"`{word}`" for word in words)
