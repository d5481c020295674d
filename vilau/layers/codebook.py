"""A codebook learnt by exponential moving averages, with restarts of unused codes (RQ-VAE's rule).

N vectors of a batch, K codes, Z code width.
"""

from collections.abc import Callable
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor, nn


class EmaCodebook(nn.Module):
    """K vectors of width Z that follow the mean of the vectors assigned to them.

    Source: van den Oord et al. 2017 (appendix A.1) for the averages, Lee et al. 2022 (RQ-VAE) for
    the restart rule: a code whose averaged count falls below 1 takes the place of a random vector.
    All buffers are float32 and stay so when the model around them is moved to another dtype.
    """

    weight: Tensor
    cluster_size_ema: Tensor
    embed_ema: Tensor

    def __init__(
        self, *, num_codes: int, width: int, decay: float = 0.99, restart_unused_codes: bool = True
    ) -> None:
        super().__init__()
        self.decay = decay
        self.restart_unused_codes = restart_unused_codes
        weight = torch.randn(num_codes, width)
        self.register_buffer("weight", weight)
        self.register_buffer("cluster_size_ema", torch.zeros(num_codes))
        self.register_buffer("embed_ema", weight.clone())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = dict(self.named_buffers())
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            moved = getattr(self, name)
            if moved.dtype != buffer.dtype:  # follow to another device, not to another dtype
                setattr(self, name, buffer.to(moved.device))
        return self

    def nearest(self, vectors_NZ: Tensor) -> Tensor:
        """Return the index of the nearest code by Euclidean distance, ``(N,)``; ties: the first."""
        # |r|^2 is the same for every code, so argmin of |e|^2 - 2 r.e decides.
        squares_K = self.weight.square().sum(dim=1)
        scores_NK = torch.addmm(squares_K, vectors_NZ, self.weight.t(), alpha=-2.0)
        return scores_NK.argmin(dim=1)

    @torch.no_grad()
    def update(self, vectors_NZ: Tensor, codes_N: Tensor) -> None:
        """Move the codes towards the vectors assigned to them; sums are taken over all ranks."""
        counts_K = torch.bincount(codes_N, minlength=len(self.weight)).to(self.weight.dtype)
        sums_KZ = torch.zeros_like(self.weight).index_add_(0, codes_N, vectors_NZ)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(counts_K)
            dist.all_reduce(sums_KZ)
        self.cluster_size_ema.mul_(self.decay).add_(counts_K, alpha=1 - self.decay)
        self.embed_ema.mul_(self.decay).add_(sums_KZ, alpha=1 - self.decay)
        if self.restart_unused_codes:
            self._restart(vectors_NZ)
        total = self.cluster_size_ema.sum()
        smoothed_K = (
            total * (self.cluster_size_ema + 1e-5) / (total + len(self.weight) * 1e-5)
        )  # Laplace smoothing keeps empty codes finite
        self.weight.copy_(self.embed_ema / smoothed_K[:, None])

    def _restart(self, vectors_NZ: Tensor) -> None:
        num_codes, width = self.weight.shape
        if len(vectors_NZ) < num_codes:
            repeats = -(-num_codes // len(vectors_NZ))
            vectors_NZ = vectors_NZ.repeat(repeats, 1)
            vectors_NZ = vectors_NZ + torch.rand_like(vectors_NZ) * (0.01 / width**0.5)
        order = torch.randperm(len(vectors_NZ), device=vectors_NZ.device)[:num_codes]
        candidates_KZ = vectors_NZ[order].contiguous()
        if dist.is_available() and dist.is_initialized():
            dist.broadcast(candidates_KZ, src=0)
        unused_K1 = (self.cluster_size_ema < 1)[:, None]
        self.embed_ema.copy_(torch.where(unused_K1, candidates_KZ, self.embed_ema))
        self.cluster_size_ema.clamp_(min=1)
