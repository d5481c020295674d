"""What a residual quantiser keeps of the accumulated parts of an optimiser step, to learn from all of them at once.

N vectors of a part, Z code width, D residual depth.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from vilau.layers.ranks import GlobalRows, PartRows


class Step(NamedTuple):
    """One residual depth of N vectors."""

    before: Tensor
    """``(N, Z)``: what was left for this depth."""
    codes: Tensor
    """``(N,)``."""
    vectors: Tensor
    """``(N, Z)``: those of the codes, as they were looked up."""
    after: Tensor
    """``(N, Z)``: what is left for the next depth."""


class Parts:
    """Vectors and codes of the parts so far.

    Statistics of each part would be smaller, but a code that restarts takes the place of a random vector of the whole
    step. What was left for each depth is not kept: the codes of the step stand still, so it can be computed again
    to the bit.
    """

    def __init__(self) -> None:
        self.more_follow = False
        self._kept: list[tuple[Tensor, list[Tensor]]] = []

    def __len__(self) -> int:
        return len(self._kept)

    @contextmanager
    def following(self, more_follow: bool) -> Iterator[None]:
        """Say for as long as the context lasts whether parts of the same step follow."""
        self.more_follow = more_follow
        try:
            yield
        finally:
            self.more_follow = False

    def add(self, vectors_NZ: Tensor, codes: list[Tensor]) -> None:
        """Keep a part: its vectors, and for each depth their codes ``(N,)``."""
        self._kept.append((vectors_NZ, codes))

    def forget(self) -> None:
        """Drop what a step that was broken off has left."""
        self._kept = []

    def take(self) -> tuple[Tensor, list[Tensor], GlobalRows]:
        """Return the vectors of all parts and their codes, and where these rows stand in the step; keep none.

        Every process must call it.
        """
        vectors, codes = zip(*self._kept, strict=True)
        where = PartRows.of_parts([len(part) for part in vectors], vectors[0].device)
        self.forget()
        return (
            torch.cat(vectors),
            [torch.cat(of_depth) for of_depth in zip(*codes, strict=True)],
            where,
        )
