"""The search for the nearest code: plain, as published, and of all residual depths in one pass.

N vectors, K codes, Z code width, D residual depth.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

SCORE_BYTES = 2**30
"""Most memory for the scores of one chunk of vectors."""
GRAM_BYTES = 2**31
"""Largest Gram matrix that is kept: float32 codebooks of up to 23 170 codes."""
CACHE_BYTES = 2**22
"""On a CPU the depths of a few vectors are walked while their scores lie in its cache."""
BLOCK = 64
"""Codes whose minimum is taken at once."""


@contextmanager
def full_float32() -> Iterator[None]:
    """Multiply and convolve float32 in float32, whatever precision the process chose for speed.

    TensorFloat-32 and bfloat16 products pick another code for some vectors in a hundred, and codes
    must not depend on the machine.
    """
    libraries: Any = torch.backends
    products = (
        libraries.cuda.matmul, libraries.cudnn.conv, libraries.mkldnn.matmul, libraries.mkldnn.conv
    )  # fmt: skip
    backends = [one for one in products if one.fp32_precision not in ("none", "ieee")]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def squared_norms(weight_KZ: Tensor) -> Tensor:
    """Squared norm of each code, ``(K,)``."""
    # Row by row as the whole would be, without a second matrix of that size.
    return torch.cat([part.square().sum(dim=1) for part in weight_KZ.split(512)])


def lowest(scores_NK: Tensor) -> Tensor:
    """Return where each row is lowest, ``(N,)``; ties: the first.

    The CPU's argmin goes code by code; the minimum of each block of codes is vectorised and leaves one
    block to look through.
    """
    N, K = scores_NK.shape
    if K % BLOCK or K == BLOCK:
        return scores_NK.argmin(dim=1)
    blocks = scores_NK.view(N, K // BLOCK, BLOCK)
    first_N = blocks.amin(dim=2).argmin(dim=1)
    row_N = torch.arange(N, device=scores_NK.device)
    return first_N * BLOCK + blocks[row_N, first_N].argmin(dim=1)


def nearest(vectors_NZ: Tensor, weight_KZ: Tensor) -> Tensor:
    """Return the index of the nearest code by Euclidean distance, ``(N,)``; ties: the first."""
    # |r|^2 is the same for every code, so argmin of |e|^2 - 2 r.e decides.
    squares_K = squared_norms(weight_KZ)
    return torch.cat(
        [
            lowest(torch.addmm(squares_K, part, weight_KZ.t(), alpha=-2.0))
            for part in vectors_NZ.split(_rows(SCORE_BYTES, weight_KZ))
        ]
    )


def nearest_as_published(vectors_NZ: Tensor, weight_KZ: Tensor) -> Tensor:
    """Return argmin of |r|^2 + |e|^2 - 2 r.e, each term rounded to the dtype of the arguments, ``(N,)``.

    In bfloat16 most distances are ties, of which the first code wins: other codes than ``nearest``
    finds, but those of the published tower, which runs in bfloat16.
    """
    squares_1K = weight_KZ.square().sum(dim=1)[None]
    return torch.cat(
        [
            lowest(
                torch.addmm(
                    part.square().sum(dim=1, keepdim=True) + squares_1K,
                    part,
                    weight_KZ.t(),
                    alpha=-2.0,
                )
            )
            for part in vectors_NZ.split(_rows(SCORE_BYTES, weight_KZ))
        ]
    )


def _rows(budget: int, weight_KZ: Tensor) -> int:
    """Vectors whose scores against all codes fit into ``budget`` bytes, at least one."""
    return max(1, budget // (len(weight_KZ) * weight_KZ.element_size()))
