"""Progress bars on standard error, silent where nobody watches."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(items: Iterable[T], total: int, title: str) -> Iterator[T]:
    """Yield ``items``, showing how many of ``total`` are done; no bar when stderr is a file."""
    yield from tqdm(items, total=total, desc=title, leave=False, disable=not sys.stderr.isatty())


class Bar:
    """A bar that is told what is done; use as a context manager.

    Args:
        title: what is going on.
        total: how much there is to do.
        done: how much of it an earlier run did.
    """

    def __init__(self, title: str, *, total: int, done: int = 0) -> None:
        hidden = not sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=done, desc=title, leave=False, disable=hidden)

    def add(self, count: int) -> None:
        """Show that ``count`` more are done."""
        self._bar.update(count)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
