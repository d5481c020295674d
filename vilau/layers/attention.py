"""Attention for our own blocks and an explicit-softmax attention for transformers models on a CPU.

B batch, h heads, T queries, S keys, d head width.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import causal_mask_function, eager_mask

LEAN = "lean"


def lean_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Explicit softmax attention in the tensors' own dtype: ``(B, h, T, d)`` to ``(B, T, h, d)``.

    On a CPU the flash kernels' bfloat16 backward and an explicit float32 softmax copy cost several
    times the products themselves; torch's bfloat16 softmax already accumulates in float32.
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    weights = torch.matmul(query * scaling, key.transpose(-1, -2))
    if attention_mask is not None:
        # float32's lowest number is -inf in bfloat16, and a row of nothing but -inf (a padded query)
        # becomes NaN, which spreads over the whole sequence in the next layer.
        lowest = torch.finfo(weights.dtype).min
        weights = weights + attention_mask.clamp(min=lowest).to(weights.dtype)
    weights = F.softmax(weights, dim=-1)
    if dropout:
        weights = F.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), None


def lean_mask(
    batch_size: int,
    *,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Tensor | None = None,
    **kwargs: Any,
) -> Tensor:
    """Return transformers' additive mask, once for all rows where they are masked alike: ``(B or 1, 1, T, S)``."""
    alike = attention_mask is None and mask_function is causal_mask_function
    return eager_mask(
        1 if alike else batch_size,
        mask_function=mask_function,
        attention_mask=attention_mask,
        **kwargs,
    )


def attention_name(name: str) -> str:
    """Return the name transformers knows ``name`` by, telling it about ``lean`` on first use."""
    if name == LEAN:
        AttentionInterface.register(LEAN, lean_attention)
        AttentionMaskInterface.register(LEAN, lean_mask)
    return name


class KeyValueCache:
    """Keys and values of the positions seen so far, for one attention layer."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append ``(B, h, T, d)`` keys and values and return all of them."""
        if self.keys is None or self.values is None:
            self.keys, self.values = key, value
        else:
            self.keys = torch.cat([self.keys, key], dim=2)
            self.values = torch.cat([self.values, value], dim=2)
        return self.keys, self.values


class CausalSelfAttention(nn.Module):
    """Multi-head self-attention over short sequences (the residual depths of one position)."""

    def __init__(self, *, width: int, num_heads: int) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"width {width} is not a multiple of {num_heads} heads")
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x_BTE: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """Map ``(B, T, E)`` to ``(B, T, E)``; with a cache ``x`` holds only the new position."""
        B, T, E = x_BTE.shape
        q, k, v = (
            part(x_BTE).view(B, T, self.num_heads, -1).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        if cache is not None:
            k, v = cache.extend(k, v)
        weights = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
        if T > 1:
            later = torch.ones(T, k.shape[2], dtype=torch.bool, device=q.device).triu(
                k.shape[2] - T + 1
            )
            weights = weights.masked_fill(later, float("-inf"))
        y = torch.matmul(F.softmax(weights, dim=-1), v)
        return self.out(y.transpose(1, 2).reshape(B, T, E))
