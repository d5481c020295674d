"""A progress bar on standard error, silent where nobody watches."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(items: Iterable[T], total: int, title: str) -> Iterator[T]:
    """Yield ``items``, showing how many of ``total`` are done; no bar when stderr is a file."""
    yield from tqdm(items, total=total, desc=title, leave=False, disable=not sys.stderr.isatty())
