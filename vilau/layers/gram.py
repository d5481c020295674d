"""The codes of all residual depths from one pass over the codebook.

The score of a code e against a residual r is |e|^2 - 2 r.e. Once code k is subtracted from the residual it
is |e|^2 - 2 (r - k).e, that is the old score + 2 k.e: a row of the codebook's Gram matrix, read instead of
computed. The D matrix products of a search become one.

N vectors, K codes, Z code width, D residual depth.
"""

import torch
from torch import Tensor

from vilau.layers.nearest import (
    BLOCK,
    CACHE_BYTES,
    GRAM_BYTES,
    SCORE_BYTES,
    lowest,
    squared_norms,
)

ROUNDING = 2.0**-24
"""Half the distance from 1 to the next float32."""


class GramSearch:
    """Search with the Gram matrix of a codebook, kept for as long as the codebook stays as it is.

    Scores carry the rounding of every depth before, so a decision closer than that rounding is taken
    again from float64 distances: the codes are the nearest, as those of ``nearest.nearest`` are up to its own
    rounding. The matrix takes 4 K^2 bytes (1.07 GB for 16384 codes) and is neither copied nor saved with
    the module that holds it.
    """

    def __init__(self) -> None:
        self.forget()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return GramSearch, ()  # copied and pickled empty

    def forget(self) -> None:
        """Free the matrix: the codebook is about to change."""
        self._table: _Table | None = None
        self._seen: tuple[Tensor, int] | None = None
        self._saved = 0

    def pays(self, weight_KZ: Tensor, *, num_vectors: int, depth: int) -> bool:
        """Tell whether ``codes`` is the faster way for these vectors and this codebook.

        The matrix costs as much as searching K vectors. It is made when the searches that it would have
        saved on this codebook add up to that, so the sum is never more than twice the best possible.
        """
        K = len(weight_KZ)
        if depth == 1 or 4 * K * K > GRAM_BYTES:
            return False
        if not self._knows(weight_KZ):
            self.forget()
            if not (weight_KZ.requires_grad or weight_KZ.is_inference()):
                self._seen = (weight_KZ, weight_KZ._version)
        self._saved += num_vectors * (depth - 1)
        return self._table is not None or self._saved >= K

    def _knows(self, weight_KZ: Tensor) -> bool:
        # A trained weight is not remembered: sharding refills it without counting a version.
        return (
            self._seen is not None
            and self._seen[0] is weight_KZ
            and self._seen[1] == weight_KZ._version
        )

    @torch.no_grad()
    def codes(self, vectors_NZ: Tensor, weight_KZ: Tensor, *, depth: int) -> Tensor:
        """Return the codes of all depths, ``(N, D)``, of float32 vectors and codebook."""
        table = self._table if self._knows(weight_KZ) else None
        if table is None:
            table = _Table(weight_KZ.detach())
            if self._knows(weight_KZ):
                self._table = table
        return table.codes(vectors_NZ.detach(), depth)


class _Table:
    """A codebook with what its search needs; scores are padded to whole blocks with infinity."""

    def __init__(self, weight_KZ: Tensor) -> None:
        K = len(weight_KZ)
        self.padded = -(-K // BLOCK) * BLOCK
        self.weight = weight_KZ
        self.squares = squared_norms(weight_KZ)
        self.norms = self.squares.sqrt()
        self.gram = weight_KZ.new_zeros(K, self.padded)
        torch.mm(weight_KZ, weight_KZ.t(), out=self.gram[:, :K])
        self.gram *= 2

    def codes(self, vectors_NZ: Tensor, depth: int) -> Tensor:
        row_bytes = 4 * self.padded
        most = max(1, SCORE_BYTES // 4 // row_bytes)
        few = max(1, CACHE_BYTES // row_bytes) if vectors_NZ.device.type == "cpu" else most
        found = []
        for part in vectors_NZ.split(most):
            scores = self._scores(part)
            for some, theirs in zip(part.split(few), scores.split(few), strict=True):
                found.append(self._walk(some, theirs, depth))
        return torch.cat(found)

    def _scores(self, vectors_NZ: Tensor) -> Tensor:
        K = len(self.weight)
        scores = vectors_NZ.new_empty(len(vectors_NZ), self.padded)
        scores[:, K:] = torch.inf
        torch.addmm(self.squares, vectors_NZ, self.weight.t(), alpha=-2.0, out=scores[:, :K])
        return scores

    def _walk(self, vectors_NZ: Tensor, scores: Tensor, depth: int) -> Tensor:
        """Walk through the depths; ``scores`` (N, padded K) are used up."""
        residual, added = vectors_NZ, torch.empty_like(scores)
        reach_N = vectors_NZ.norm(dim=1)
        code_N = lowest(scores)
        codes = [code_N]
        for _ in range(1, depth):
            residual = residual - self.weight[code_N]
            reach_N = reach_N + self.norms[code_N]
            scores += torch.index_select(self.gram, 0, code_N, out=added)
            code_N, best_N, margin_N = _two_lowest(scores)
            error_N = self._error(reach_N)
            if bool((margin_N < error_N).any()):
                unsure_M = (margin_N < error_N).nonzero()[:, 0]
                limit_M = (best_N + error_N)[unsure_M]
                settled_M = self._settled(residual[unsure_M], scores[unsure_M], limit_M)
                if settled_M is None:
                    scores, reach_N = self._scores(residual), residual.norm(dim=1)
                    code_N = lowest(scores)
                else:
                    code_N[unsure_M] = settled_M
            codes.append(code_N)
        return torch.stack(codes, dim=1)

    def _error(self, reach_N: Tensor) -> Tensor:
        """By how much two scores may be wrong against each other.

        A dot product of Z terms errs by some sqrt(Z) units of rounding of |a||b| (Higham and Mary 2019,
        with high probability); a score adds up one for the vector and one for each code subtracted.
        The largest error seen on Gaussian data is a fourteenth of this.
        """
        largest = self.norms.max()
        return ROUNDING * self.weight.shape[1] ** 0.5 * largest * (reach_N + largest)

    def _settled(self, residual_MZ: Tensor, scores: Tensor, limit_M: Tensor) -> Tensor | None:
        """Return the nearest of the codes scored below the limit, ``(M,)``; ties: the first.

        None when that are too many to look at one by one: the scores must be made anew.
        """
        row_C, code_C = (scores <= limit_M[:, None]).nonzero().unbind(dim=1)
        M, K = len(residual_MZ), len(self.weight)
        if len(code_C) > 4 * M + BLOCK:
            return None
        apart_CZ = residual_MZ[row_C].double() - self.weight[code_C].double()
        distance_C = apart_CZ.square().sum(dim=1)
        nearest_M = distance_C.new_full((M,), torch.inf).scatter_reduce(
            0, row_C, distance_C, "amin"
        )
        candidate_C = torch.where(distance_C == nearest_M[row_C], code_C, K)
        return code_C.new_full((M,), K).scatter_reduce(0, row_C, candidate_C, "amin")


def _two_lowest(scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return where each row is lowest (ties: the first), its value, and how far the second lowest is."""
    N, padded = scores.shape
    blocks = scores.view(N, padded // BLOCK, BLOCK)
    minima = blocks.amin(dim=2)
    first_N = minima.argmin(dim=1)
    block = blocks[torch.arange(N, device=scores.device), first_N]
    best_N, place_N = block.min(dim=1)
    block.scatter_(1, place_N[:, None], torch.inf)
    minima.scatter_(1, first_N[:, None], block.amin(dim=1)[:, None])
    return first_N * BLOCK + place_N, best_N, minima.amin(dim=1) - best_N
