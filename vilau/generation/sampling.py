"""Drawing an index from logits: temperature, top-k, top-p, and random numbers that belong to a row.

N rows, K choices.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vilau.errors import ConfigError, DataError

Choose = Callable[[Tensor, Tensor], Tensor]
"""Draws an index per row of logits ``(N, K)`` at numbers ``(N,)`` in [0, 1)."""


@dataclass(frozen=True)
class Sampling:
    """How an index is drawn from logits; called with a row of logits and a number for each row."""

    temperature: float = 1.0
    """0 takes the likeliest index."""
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature is {self.temperature}; write 0 (greedy) or more.")
        if not 0.0 < self.top_p <= 1.0:
            raise ConfigError(f"top_p is {self.top_p}; write a share above 0, at most 1 (all).")

    def __call__(self, logits_NK: Tensor, uniforms_N: Tensor) -> Tensor:
        """Draw one index per row of ``logits`` at the numbers ``uniforms`` in [0, 1)."""
        if self.temperature == 0:
            return logits_NK.argmax(dim=-1)
        probs_NK = filter_probabilities(
            logits_NK, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p
        )
        return draw(probs_NK, uniforms_N)


def per_depth(
    depth: int,
    *,
    temperature: float | Sequence[float] = 1.0,
    top_k: int | Sequence[int] = 0,
    top_p: float | Sequence[float] = 1.0,
) -> list[Sampling]:
    """Return how each of ``depth`` residual depths is drawn; a setting is one number, or one per depth.

    Raises ``ConfigError`` for another number of values, or one that makes no sense.
    """
    columns = [
        _spread(name, values, depth)
        for name, values in (("temperature", temperature), ("top_k", top_k), ("top_p", top_p))
    ]
    return [Sampling(*settings) for settings in zip(*columns, strict=True)]


def _spread(name: str, values: Any, depth: int) -> list[Any]:
    if isinstance(values, int | float):
        return [values] * depth
    if len(values) != depth:
        raise ConfigError(
            f"{name} holds {len(values)} values for residual depth {depth}; write {depth} values, or one "
            "number for all depths."
        )
    return list(values)


def filter_probabilities(
    logits_NK: Tensor, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> Tensor:
    """Return float32 probabilities ``(N, K)``: temperature, then top-k, then top-p, renormalised.

    ``top_k`` <= 0 or >= K keeps all. Top-p keeps the most likely choices until their sum reaches p; the
    choice that crosses p is kept, and the first always is (VILA-U's and RQ-Transformer's rule).
    """
    logits_NK = logits_NK.float() / temperature
    if 0 < top_k < logits_NK.shape[-1]:
        threshold_N1 = logits_NK.topk(top_k, dim=-1).values[:, -1:]
        logits_NK = logits_NK.masked_fill(logits_NK < threshold_N1, float("-inf"))
    probs_NK = logits_NK.softmax(dim=-1)
    if top_p < 1.0:
        sorted_NK, order_NK = probs_NK.sort(dim=-1, descending=True)
        before_NK = sorted_NK.cumsum(dim=-1) - sorted_NK
        dropped_NK = torch.zeros_like(probs_NK, dtype=torch.bool).scatter(
            -1, order_NK, before_NK >= top_p
        )
        probs_NK = probs_NK.masked_fill(dropped_NK, 0.0)
        probs_NK = probs_NK / probs_NK.sum(dim=-1, keepdim=True)
    return probs_NK


def draw(probs_NK: Tensor, uniforms_N: Tensor) -> Tensor:
    """Draw one index per row by inverting its cumulative distribution at ``uniforms_N`` in [0, 1).

    The draw of a row depends on its own number alone, so a picture does not change with its batch.
    """
    cumulative_NK = probs_NK.double().cumsum(dim=-1)
    points_N1 = uniforms_N.double()[:, None] * cumulative_NK[:, -1:]
    drawn_N = torch.searchsorted(cumulative_NK, points_N1, right=True)[:, 0]
    return drawn_N.clamp(max=probs_NK.shape[-1] - 1)


def row_uniforms(seeds: Sequence[int], count: int, device: torch.device) -> Tensor:
    """Return ``(len(seeds), count)`` numbers in [0, 1): row i from its own generator, ``seeds[i]``."""
    rows = [
        torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for seed in seeds
    ]
    return torch.stack(rows).to(device)


def image_seed(seed: int, index: int) -> int:
    """Mix a run's seed and an image's index into a 63-bit seed of its own."""
    digest = hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def image_seeds(seed: int | Sequence[int], count: int) -> list[int]:
    """Return ``count`` seeds: those given, or one for each image of the run's ``seed``.

    Raises ``DataError`` when there are more or fewer seeds than images.
    """
    if isinstance(seed, int):
        return [image_seed(seed, index) for index in range(count)]
    seeds = list(seed)
    if len(seeds) != count:
        raise DataError(
            f"seed holds {len(seeds)} seeds for {count} results; write one for each, or a single number."
        )
    return seeds
