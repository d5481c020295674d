"""A codebook learnt by exponential moving averages or by gradient, with restarts of unused codes.

N vectors of a batch, K codes, U used codes, M restarted codes, Z code width.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from vilau.layers.nearest import nearest
from vilau.layers.ranks import GlobalRows, RandomRows, sum_over_ranks

START_COUNT = 2.0
"""Averaged count of a code that starts from data: it outlives the updates of depths that do not use it for a
while (69 at decay 0.99), and still follows its own vectors within a few."""


class Codebook(nn.Module, ABC):
    """K vectors of width Z, and how often each is used, averaged over the updates.

    Restart rule (Lee et al. 2022, RQ-VAE): a code whose averaged count falls below 1 takes the place of a
    random vector of the batch. Several processes act as one that saw all their vectors: their sums go into one
    message, and rank 0 draws the random vectors from the batches of all.
    All tensors are float32 and stay so when the model around them is moved to another dtype.
    """

    weight: Tensor
    cluster_size_ema: Tensor

    def __init__(
        self, *, num_codes: int, width: int, decay: float = 0.99, restart_unused_codes: bool = True
    ) -> None:
        super().__init__()
        self.decay = decay
        self.restart_unused_codes = restart_unused_codes
        self._hold(torch.randn(num_codes, width))
        self.register_buffer("cluster_size_ema", torch.zeros(num_codes))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def follow(tensor: Tensor) -> Tensor:
            moved = fn(tensor)  # to another device, but not to another dtype
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(follow, recurse)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in [n for n in state_dict if n.startswith(prefix)]:
            state_dict[name] = state_dict[name].float()  # assigned as it comes, it would stay half
        super()._load_from_state_dict(state_dict, prefix, *args)

    @torch.no_grad()
    def nearest(self, vectors_NZ: Tensor) -> Tensor:
        """Return the index of the nearest code by Euclidean distance, ``(N,)``; ties: the first."""
        return nearest(vectors_NZ, self.weight)

    def update(self, vectors_NZ: Tensor, codes_N: Tensor, where: GlobalRows | None = None) -> None:
        """Learn from vectors and the codes that they were given; see ``update_codebooks``."""
        update_codebooks([self], [vectors_NZ], [codes_N], where)

    @torch.no_grad()
    def fill(self, codes: range, vectors_NZ: Tensor, where: GlobalRows) -> None:
        """Make some codes random vectors of a batch."""
        chosen_MZ = RandomRows(len(codes), vectors_NZ, where).take(slice(None))
        if not where.alone:
            (chosen_MZ,) = sum_over_ranks(chosen_MZ)
        codes_M = torch.arange(codes.start, codes.stop, device=chosen_MZ.device)
        self._place(codes_M, chosen_MZ)
        self.weight[codes_M] = chosen_MZ
        self.cluster_size_ema[codes_M] = START_COUNT

    # ---------------------------------------------------------------- one update

    def update_alone(self, vectors_NZ: Tensor, codes_N: Tensor, where: GlobalRows) -> None:
        """Update in a single process, which touches the rows of the codes that it saw alone."""
        summed_NZ = self._summed(vectors_NZ)
        used_U, place_N = codes_N.unique(return_inverse=True)
        sums_UZ = summed_NZ.new_zeros(len(used_U), summed_NZ.shape[1])
        sums_UZ.index_add_(0, place_N, summed_NZ)
        drawn = self._drawn(vectors_NZ, where)
        self._follow(self._counts(codes_N), sums_UZ, used_U)
        self._finish(drawn.take if drawn else None)

    def message(self, vectors_NZ: Tensor, codes_N: Tensor, where: GlobalRows) -> list[Tensor]:
        """Return what this rank adds to the update of all: counts, sums, vectors for restarts."""
        summed_NZ, num_codes = self._summed(vectors_NZ), len(self.weight)
        sums_KZ = summed_NZ.new_zeros(num_codes, summed_NZ.shape[1])
        sums_KZ.index_add_(0, codes_N, summed_NZ)
        drawn = self._drawn(vectors_NZ, where)
        return [self._counts(codes_N), sums_KZ, *([drawn.take(slice(None))] if drawn else [])]

    def answer(self, message: Sequence[Tensor]) -> None:
        """Update from the messages of all ranks, summed."""
        counts_K, sums_KZ, *restarts = message
        self._follow(counts_K, sums_KZ, None)
        self._finish(restarts[0].__getitem__ if restarts else None)

    def _counts(self, codes_N: Tensor) -> Tensor:
        return torch.bincount(codes_N, minlength=len(self.weight)).to(self.weight.dtype)

    def _drawn(self, vectors_NZ: Tensor, where: GlobalRows) -> RandomRows | None:
        if not self.restart_unused_codes:
            return None
        return RandomRows(len(self.weight), vectors_NZ, where)

    def _follow(self, counts_K: Tensor, sums_UZ: Tensor, used_U: Tensor | None) -> None:
        """Take in the counts of all codes and the sums of the used ones (None: of all)."""
        self.cluster_size_ema.mul_(self.decay).add_(counts_K, alpha=1 - self.decay)

    def _finish(self, restarts: Callable[[Tensor], Tensor] | None) -> None:
        if restarts is not None:
            unused_M = (self.cluster_size_ema < 1).nonzero()[:, 0]
            self._place(unused_M, restarts(unused_M))
            self.cluster_size_ema.clamp_(min=1)

    @abstractmethod
    def _hold(self, weight_KZ: Tensor) -> None:
        """Register the codes."""

    @abstractmethod
    def _summed(self, vectors_NZ: Tensor) -> Tensor:
        """Return what is to be summed for each code: the vectors, or none of their columns."""

    @abstractmethod
    def _place(self, codes_M: Tensor, vectors_MZ: Tensor) -> None:
        """Put vectors in the place of codes."""


class EmaCodebook(Codebook):
    """Codes that follow the mean of the vectors assigned to them (van den Oord et al. 2017, A.1)."""

    embed_ema: Tensor

    def _hold(self, weight_KZ: Tensor) -> None:
        self.register_buffer("weight", weight_KZ)
        self.register_buffer("embed_ema", weight_KZ.clone())

    def _summed(self, vectors_NZ: Tensor) -> Tensor:
        return vectors_NZ

    def _follow(self, counts_K: Tensor, sums_UZ: Tensor, used_U: Tensor | None) -> None:
        super()._follow(counts_K, sums_UZ, used_U)
        self.embed_ema.mul_(self.decay)
        if used_U is None:
            self.embed_ema.add_(sums_UZ, alpha=1 - self.decay)
        else:
            moved_UZ = self.embed_ema.index_select(0, used_U).add_(sums_UZ, alpha=1 - self.decay)
            self.embed_ema.index_copy_(0, used_U, moved_UZ)

    def _place(self, codes_M: Tensor, vectors_MZ: Tensor) -> None:
        self.embed_ema.index_copy_(0, codes_M, vectors_MZ)

    @torch.no_grad()
    def fill(self, codes: range, vectors_NZ: Tensor, where: GlobalRows) -> None:
        """See ``Codebook.fill``."""
        super().fill(codes, vectors_NZ, where)
        self.embed_ema[codes.start : codes.stop] *= START_COUNT

    def _finish(self, restarts: Callable[[Tensor], Tensor] | None) -> None:
        super()._finish(restarts)
        total = self.cluster_size_ema.sum()
        smoothed_K = (
            total * (self.cluster_size_ema + 1e-5) / (total + len(self.weight) * 1e-5)
        )  # Laplace smoothing keeps empty codes finite
        torch.div(self.embed_ema, smoothed_K[:, None], out=self.weight)


class GradientCodebook(Codebook):
    """Codes that are parameters, moved by the optimiser along a codebook loss.

    Restarted codes keep what the optimiser remembers of the code they replace. A weight that is sharded over
    processes cannot be restarted: what is written into the gathered copy is lost.
    """

    def _hold(self, weight_KZ: Tensor) -> None:
        self.weight = nn.Parameter(weight_KZ)

    def _summed(self, vectors_NZ: Tensor) -> Tensor:
        return vectors_NZ[:, :0]

    def _place(self, codes_M: Tensor, vectors_MZ: Tensor) -> None:
        self.weight[codes_M] = vectors_MZ


@torch.no_grad()
def update_codebooks(
    books: Sequence[Codebook],
    vectors: Sequence[Tensor],
    codes: Sequence[Tensor],
    where: GlobalRows | None = None,
) -> None:
    """Let each codebook learn from its own vectors ``(N, Z)`` and codes ``(N,)``, in one message over ranks.

    ``where`` says where the vectors stand in the batch of all ranks; without it the ranks ask one another.
    Nothing moves when no rank has a vector.
    """
    where = where or GlobalRows.of(len(vectors[0]), vectors[0].device)
    if where.total == 0:
        return
    jobs = list(zip(books, vectors, codes, strict=True))
    if where.alone:
        for book, vectors_NZ, codes_N in jobs:
            book.update_alone(vectors_NZ, codes_N, where)
        return
    messages = [book.message(vectors_NZ, codes_N, where) for book, vectors_NZ, codes_N in jobs]
    summed = iter(sum_over_ranks(*(part for message in messages for part in message)))
    for book, message in zip(books, messages, strict=True):
        book.answer([next(summed) for _ in message])
