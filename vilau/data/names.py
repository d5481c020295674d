"""What a user probably meant by a name that is not known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from vilau.errors import ConfigError


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the sentence that ends an error: the closest known name, or all of them."""
    names = list(known)
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    return f"Did you mean '{close[0]}'?" if close else f"Write one of {', '.join(names)}."


def check_benchmarks(names: Sequence[str], known: Iterable[str]) -> None:
    """Raise ``ConfigError`` for a benchmark that is unknown or named twice, or where none is named."""
    known = list(known)
    if not names:
        raise ConfigError(f"data.benchmarks is empty; write some of {', '.join(known)}.")
    for name in names:
        if name not in known:
            raise ConfigError(f"data.benchmarks holds '{name}'. {nearest(name, known)}")
        if list(names).count(name) > 1:
            raise ConfigError(f"data.benchmarks holds '{name}' twice; write it once.")
