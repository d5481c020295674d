"""Rows of a batch that is spread over the processes of a distributed run.

N rows of this process, M rows asked for, Z width.
"""

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
        counts = [
            torch.zeros(1, dtype=torch.int64, device=device) for _ in range(dist.get_world_size())
        ]
        dist.all_gather(counts, torch.tensor([count], device=device))
        numbers = torch.cat(counts).tolist()
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
