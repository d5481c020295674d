"""Rows of a batch that is spread over the processes of a distributed run.

N rows of this process, M rows asked for, Z width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def many_ranks() -> bool:
    """Tell whether several processes train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_ranks(*tensors: Tensor) -> list[Tensor]:
    """Sum float32 tensors over all processes, in one message."""
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


@dataclass(frozen=True)
class GlobalRows:
    """Where the rows of this process stand in the batch of all processes, which follow one another."""

    total: int
    start: int
    alone: bool

    @classmethod
    def of(cls, count: int, device: torch.device) -> "GlobalRows":
        """Ask all processes how many rows they have; every process must call it."""
        if not many_ranks():
            return cls(count, 0, alone=True)
        numbers = [counts[0] for counts in _counts_of_all([count], device)]
        return cls(sum(numbers), sum(numbers[: dist.get_rank()]), alone=False)

    def times(self, factor: int) -> "GlobalRows":
        """The same where each row has become ``factor`` rows."""
        return GlobalRows(self.total * factor, self.start * factor, self.alone)

    def own(self, rows_NZ: Tensor, wanted_M: Tensor) -> Tensor:
        """Return the wanted rows of the whole batch, ``(M, Z)``, zero where another process holds them."""
        if self.alone:
            return rows_NZ.index_select(0, wanted_M)
        place_M = wanted_M - self.start
        mine_M = (place_M >= 0) & (place_M < len(rows_NZ))
        found_MZ = rows_NZ.new_zeros(len(wanted_M), rows_NZ.shape[1])
        found_MZ[mine_M] = rows_NZ[place_M[mine_M]]
        return found_MZ


@dataclass(frozen=True)
class PartRows(GlobalRows):
    """``GlobalRows`` of accumulated parts: the rows of a part, of all processes, follow those of the part before.

    A process keeps its own rows part after part, so that they stand in several places of the whole.
    """

    spans: tuple[tuple[int, int], ...]
    """Of each part: where this process's rows begin in the whole, and their number."""

    @classmethod
    def of_parts(cls, counts: Sequence[int], device: torch.device) -> "PartRows":
        """Ask all processes how many rows they have of each part; every process must call it."""
        of_all = _counts_of_all(counts, device) if many_ranks() else [list(counts)]
        rank = dist.get_rank() if many_ranks() else 0
        spans, total = [], 0
        for part, count in enumerate(counts):
            numbers = [theirs[part] for theirs in of_all]
            spans.append((total + sum(numbers[:rank]), count))
            total += sum(numbers)
        return cls(total, spans[0][0], not many_ranks(), tuple(spans))

    def times(self, factor: int) -> "PartRows":
        """See ``GlobalRows.times``."""
        spans = tuple((start * factor, count * factor) for start, count in self.spans)
        return PartRows(self.total * factor, self.start * factor, self.alone, spans)

    def own(self, rows_NZ: Tensor, wanted_M: Tensor) -> Tensor:
        """See ``GlobalRows.own``."""
        if self.alone:
            return super().own(rows_NZ, wanted_M)
        parts = rows_NZ.split([count for _, count in self.spans])
        found = [
            GlobalRows(self.total, start, alone=False).own(part_NZ, wanted_M)
            for (start, _), part_NZ in zip(self.spans, parts, strict=True)
        ]
        return torch.stack(found).sum(dim=0)


def _counts_of_all(counts: Sequence[int], device: torch.device) -> list[list[int]]:
    """Return what each process gives for ``counts``; all give as many."""
    own = torch.tensor(counts, dtype=torch.int64, device=device)
    found = [torch.zeros_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(found, own)
    numbers: list[list[int]] = torch.stack(found).tolist()
    return numbers


class RandomRows:
    """``num`` random rows of the batch of all processes, the same on each: rank 0 draws.

    A batch of fewer rows is repeated, with a little noise that tells the repetitions apart. The draws are
    RQ-VAE's: noise for every repeated row where the batch is short, then a random order. All processes
    draw, so that their generators stay together if they were.
    """

    def __init__(self, num: int, rows_NZ: Tensor, where: GlobalRows) -> None:
        self.rows, self.where = rows_NZ, where
        settings: dict[str, Any] = {"device": rows_NZ.device}
        total, width = where.total, rows_NZ.shape[1]
        self.noise: Tensor | None = None
        if total < num:
            repeated = -(-num // total) * total
            self.noise = torch.rand(repeated, width, dtype=rows_NZ.dtype, **settings)
            total = repeated
        self.order = torch.randperm(total, **settings)[:num]
        if not where.alone:
            dist.broadcast(self.order, src=0)

    def take(self, numbers_M: Tensor | slice) -> Tensor:
        """Return these of the drawn rows, ``(M, Z)``: on several ranks the part to be summed over them."""
        order_M = self.order[numbers_M]
        found_MZ = self.where.own(self.rows, order_M % self.where.total)
        if self.noise is not None and (self.where.alone or dist.get_rank() == 0):
            noise_MZ = self.noise.index_select(0, order_M)
            found_MZ += noise_MZ.mul_(0.01 / self.rows.shape[1] ** 0.5)
        return found_MZ
