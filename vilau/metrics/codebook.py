"""How much of the codebook each residual depth uses."""

import torch
from torch import Tensor
from torchmetrics import Metric

from vilau.errors import DataError


class CodebookUsage(Metric):
    """Counts of codes per depth.

    Args:
        depth: D, the residual depths.
        codebook_size: K, the codes of a depth.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, *, depth: int, codebook_size: int) -> None:
        super().__init__()
        self.depth = depth
        self.codebook_size = codebook_size
        zeros = torch.zeros(depth, codebook_size, dtype=torch.int64)
        self.add_state("counts", zeros, dist_reduce_fx="sum")

    def update(self, codes: Tensor) -> None:
        """Add codes, int64 ``(..., D)`` in 0..K-1.

        Raises:
            DataError: the codes are of another depth or another codebook.
        """
        if codes.shape[-1] != self.depth:
            raise DataError(
                f"The codes have {codes.shape[-1]} depths, where {self.depth} are counted; give codes of "
                "one tower."
            )
        rows = codes.reshape(-1, self.depth)
        for depth in range(self.depth):
            self.count(depth, rows[:, depth])

    def count(self, depth: int, codes: Tensor) -> None:
        """Add codes of any shape to one depth, from 0; raises ``DataError`` for those of another codebook."""
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.codebook_size:
            raise DataError(
                f"The codes reach from {int(codes.min())} to {int(codes.max())}, but a codebook of "
                f"{self.codebook_size} has codes 0 to {self.codebook_size - 1}; give codes of one tower."
            )
        self.counts[depth] += torch.bincount(codes.flatten(), minlength=self.codebook_size)

    def compute(self) -> dict[str, Tensor]:
        """Return per depth ``usage`` (share of codes seen), ``perplexity`` (1..K) and ``dead``
        (codes never seen)."""
        counts = self.counts.double()
        shares = counts / counts.sum(dim=-1, keepdim=True).clamp(min=1)
        entropy = -torch.special.xlogy(shares, shares).sum(dim=-1)
        seen = (counts > 0).sum(dim=-1)
        return {
            "usage": (seen / self.codebook_size).float(),
            "perplexity": entropy.exp().float(),
            "dead": self.codebook_size - seen,
        }


class ResidualEnergy(Metric):
    """Mean share of the features' energy that is left after each depth.

    Args:
        depth: D, the residual depths.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, *, depth: int) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(depth, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, residual_energy: Tensor) -> None:
        """Add ``(B, D)`` relative energies."""
        self.total += residual_energy.double().sum(dim=0)
        self.count += len(residual_energy)

    def compute(self) -> Tensor:
        """Return the mean per depth, ``(D,)``."""
        return (self.total / self.count.clamp(min=1)).float()
