"""An entropy term for codes: every vector sure of its code, all codes in use.

N vectors, K codes, Z code width.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vilau.layers.ranks import many_ranks

SCORE_BYTES = 2**28
"""Most memory for the soft choices of one chunk of vectors, which are made again for the gradient."""
CHECKPOINT: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}


def code_entropy(vectors_NZ: Tensor, weight_KZ: Tensor, *, temperature: float = 0.5) -> Tensor:
    """Mean entropy of each vector's soft choice less the entropy of the mean choice: a scalar, in nats.

    Between -log K (sure choices, all codes used alike) and 0 (the same choice for all vectors); the form is
    that of MAGVIT-v2's entropy penalty (Yu et al. 2024). The soft choice is softmax(-|r - e_k|^2 / (s t)) over the
    codes. The unit s is the standard deviation of a vector's squared distances over the codes, averaged over
    the vectors, so that a temperature t means the same for every width and scale, and vectors that have
    collapsed onto one code still feel the others. Mean choice and s are those of all ranks. Gradients go to
    vectors and codes, none to s.
    """
    parts = vectors_NZ.split(max(1, SCORE_BYTES // (4 * len(weight_KZ))))
    with torch.no_grad():
        spread = torch.stack([_spread(_scores(part, weight_KZ)) for part in parts])
        unit, count = spread.sum(), vectors_NZ.new_tensor(len(vectors_NZ))
        if many_ranks():
            dist.all_reduce(unit)
            dist.all_reduce(count)
        count = count.clamp(min=1)
        unit = (unit / count).clamp(min=1e-12)
    entropies, choices = [], []
    for part in parts:
        entropy, choice_K = checkpoint(
            _soft_choices, part, weight_KZ, unit * temperature, **CHECKPOINT
        )
        entropies.append(entropy)
        choices.append(choice_K)
    chosen_K = torch.stack(choices).sum(dim=0)
    if many_ranks():
        chosen_K = _SumOverRanks.apply(chosen_K)
    own = torch.stack(entropies).sum() / max(1, len(vectors_NZ))
    mean_K = (chosen_K / count).clamp(min=1e-30)  # entropy is infinitely steep at 0
    return own - torch.special.entr(mean_K).sum()


def _scores(vectors_NZ: Tensor, weight_KZ: Tensor) -> Tensor:
    """Squared distances less the vectors' squared norms, on which nothing here depends, ``(N, K)``."""
    squares_K = weight_KZ.square().sum(dim=1)
    return torch.addmm(squares_K, vectors_NZ, weight_KZ.t(), alpha=-2.0)


def _spread(scores_NK: Tensor) -> Tensor:
    """Sum of the rows' standard deviations."""
    centred_NK = scores_NK - scores_NK.mean(dim=1, keepdim=True)
    return centred_NK.square().mean(dim=1).sqrt().sum()


def _soft_choices(vectors_NZ: Tensor, weight_KZ: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed entropy of the choices and how often each code is chosen, ``(K,)``."""
    logs_NK = (-_scores(vectors_NZ, weight_KZ) / unit).log_softmax(dim=1)
    choices_NK = logs_NK.exp()
    return -(choices_NK * logs_NK).sum(), choices_NK.sum(dim=0)


class _SumOverRanks(torch.autograd.Function):
    """A sum over ranks whose gradient is summed too: exact where gradients are averaged over ranks."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        total = gradient.clone()
        dist.all_reduce(total)
        return total
