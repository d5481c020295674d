"""RMS norm, rotary attention and gated MLP in few passes, each with its backward written out.

For small models on a CPU, where what lies between the matrix products takes as long as they do: every function reads
its input once or twice, computes in float32 (float64 for float64), writes its result in the dtype of the products,
and keeps for the backward pass what is cheaper to keep than to compute again. The formulas are LLaMA's. No function
is differentiable twice: training never asks for it, and asking is an error.

B batch, T tokens, E width, H query heads, K key heads, d head width.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

BLOCK = 96
"""Queries of causal attention computed together (benchmarks/results/language_step_*)."""


def product_dtype(like: Tensor) -> torch.dtype:
    """The dtype that matrix products of ``like`` take: autocast's where it is on, else its own."""
    kind = like.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return like.dtype


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _in_given_dtypes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep autocast out: these functions say what is computed in which dtype, forward and backward."""

    @wraps(function)
    def run(ctx: FunctionCtx, first: Tensor, *rest: Any) -> Any:
        kind = first.device.type
        known = torch.amp.is_autocast_available(kind)
        with torch.autocast(kind, enabled=False) if known else nullcontext():
            return function(ctx, first, *rest)

    return run


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    @_in_given_dtypes
    def forward(ctx: Any, x: Tensor, scale: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        wide = x.to(_wide(x.dtype))
        squared = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_()
        rate = squared.div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, scale, rate)
        return (wide * rate).mul_(scale).to(dtype)

    @staticmethod
    @_in_given_dtypes
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, scale, rate = ctx.saved_tensors
        width = x.shape[-1]
        grad = grad.to(rate.dtype)
        normed = x * rate
        by_entry = (grad * normed).reshape(-1, width)
        by_row = (by_entry @ scale.to(rate.dtype)).view_as(rate)
        grad_x = grad.mul(scale).mul_(rate).addcmul_(normed, by_row.mul_(rate), value=-1 / width)
        return grad_x.to(x.dtype), by_entry.sum(dim=0).to(scale.dtype), None, None


def rms_norm(x: Tensor, scale: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """Return ``scale * x / sqrt(mean(x ** 2) + eps)`` over the last dimension, in ``dtype``."""
    return _RmsNorm.apply(x, scale, eps, dtype)


class _GatedSilu(torch.autograd.Function):
    @staticmethod
    @_in_given_dtypes
    def forward(ctx: Any, gate_and_up: Tensor) -> Tensor:
        gate, up = gate_and_up.chunk(2, dim=-1)
        opened = F.silu(gate)
        ctx.save_for_backward(gate_and_up, opened)
        return opened * up

    @staticmethod
    @_in_given_dtypes
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        gate_and_up, opened = ctx.saved_tensors
        gate, up = gate_and_up.chunk(2, dim=-1)
        grads = torch.empty_like(gate_and_up)
        grad_gate, grad_up = grads.chunk(2, dim=-1)
        torch.mul(grad, opened, out=grad_up)
        torch.mul(grad, up, out=grad_gate)
        torch.ops.aten.silu_backward.grad_input(grad_gate, gate, grad_input=grad_gate)
        return grads


def gated_silu(gate_and_up: Tensor) -> Tensor:
    """``(..., 2 M)`` to ``(..., M)``: SiLU of the first half times the second."""
    return _GatedSilu.apply(gate_and_up)


class _Attention(torch.autograd.Function):
    """See ``fused_attention``. Queries, keys and values lie heads first, contiguous, as batched products want."""

    @staticmethod
    @_in_given_dtypes
    def forward(  # noqa: PLR0913 - autograd functions take no keywords
        ctx: Any,
        qkv: Tensor,
        turn: Tensor | None,
        mask: Tensor | None,
        heads: int,
        kv_heads: int,
        first: int,
    ) -> Tensor:
        B, T, _ = qkv.shape
        parts = qkv.view(B, T, heads + 2 * kv_heads, -1)
        turned, value = parts.split([heads + kv_heads, kv_heads], dim=2)
        if turn is not None:
            turned = _turn(_copied(turned, _wide(qkv.dtype)), turn)
        query, key = turned.split([heads, kv_heads], dim=2)
        q, k, v = (_heads_first(part, heads, qkv.dtype) for part in (query, key, value))
        blocks = _blocks(T, first, causal=mask is not None)
        found, kept = torch.empty_like(q), []
        found[:, : blocks[0][0].start] = 0
        for here, seen in blocks:
            scores = _scores(q[:, here], k[:, seen])
            if mask is not None:
                # Added in place, spread over the heads as it is: a copy for each head takes as long as the products.
                scores.unflatten(0, (-1, heads)).add_(mask[:, None, here, seen])
            # In float32: torch's bfloat16 softmax takes up to twice as long where rows are no multiple of 32.
            weights = torch.softmax(scores, dim=-1, dtype=_wide(qkv.dtype)).to(qkv.dtype)
            torch.bmm(weights, v[:, seen], out=found[:, here])
            kept.append(weights)
        ctx.save_for_backward(q, k, v, turn, *kept)
        ctx.heads, ctx.kv_heads, ctx.blocks = heads, kv_heads, blocks
        return found.view(B, heads, T, -1).transpose(1, 2).flatten(2)

    @staticmethod
    @_in_given_dtypes
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, turn, *kept = ctx.saved_tensors
        B, T, _ = grad.shape
        heads, kv_heads = ctx.heads, ctx.kv_heads
        grad = _heads_first(grad.view(B, T, heads, -1), heads, grad.dtype)
        grad_q = torch.empty_like(q)
        grad_q[:, : ctx.blocks[0][0].start] = 0
        # Sums over blocks, so not in bfloat16.
        grad_k, grad_v = (torch.zeros_like(part, dtype=_wide(part.dtype)) for part in (k, v))
        for (here, seen), weights in zip(ctx.blocks, kept, strict=True):
            given = grad[:, here]
            grad_v[:, seen] += torch.bmm(weights.transpose(1, 2), given)
            grad_weights = torch.bmm(given, v[:, seen].transpose(1, 2))
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            grad_k[:, seen] += torch.bmm(grad_scores.transpose(1, 2), q[:, here])
            torch.bmm(grad_scores, k[:, seen], out=grad_q[:, here])
        grads = grad.new_empty(B, T, heads + 2 * kv_heads, grad.shape[-1])
        turned, value = grads.split([heads + kv_heads, kv_heads], dim=2)
        wide = turned.new_empty(turned.shape, dtype=_wide(turned.dtype))
        wide[:, :, :heads] = _tokens_first(grad_q, heads, heads)
        wide[:, :, heads:] = _tokens_first(grad_k, heads, kv_heads)
        wide *= q.shape[-1] ** -0.5
        turned.copy_(wide if turn is None else _turn(wide, turn.conj()))
        value.copy_(_tokens_first(grad_v, heads, kv_heads))
        return grads.flatten(2), None, None, None, None, None


def _blocks(T: int, first: int, *, causal: bool) -> list[tuple[slice, slice]]:
    """Queries that are computed together, and the keys they may see: what comes after a block stays out of it.

    Half of all products, and what lies between them fits the cache. Blocks that end before the query ``first`` are left
    out, and none is moved: sums of the others are those of all blocks, to the last bit.
    """
    if not causal:
        return [(slice(0, T), slice(0, T))]
    spans = [(start, min(start + BLOCK, T)) for start in range(first - first % BLOCK, T, BLOCK)]
    return [(slice(start, end), slice(0, end)) for start, end in spans]


def _scores(q: Tensor, k: Tensor) -> Tensor:
    scores = q.new_empty(len(q), q.shape[1], k.shape[1])
    # What was in it is not read where beta is 0; the product is scaled before it is rounded.
    return scores.baddbmm_(q, k.transpose(1, 2), beta=0, alpha=q.shape[-1] ** -0.5)


def _turn(x: Tensor, turn: Tensor) -> Tensor:
    """Multiply neighbours of a contiguous ``(B, T, h, d)``, read as complex numbers, in place."""
    torch.view_as_complex(x.unflatten(-1, (-1, 2))).mul_(turn)
    return x


def _copied(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a contiguous copy (``Tensor.to`` copies only what has another dtype)."""
    return torch.empty(x.shape, dtype=dtype, device=x.device).copy_(x)


def _heads_first(x: Tensor, heads: int, dtype: torch.dtype) -> Tensor:
    """``(B, T, h, d)`` to a contiguous ``(B * heads, T, d)``; grouped heads are repeated."""
    x = x.transpose(1, 2)
    if x.shape[1] != heads:
        x = x.repeat_interleave(heads // x.shape[1], dim=1)
    return _copied(x, dtype).flatten(0, 1)


def _tokens_first(x: Tensor, heads: int, kept: int) -> Tensor:
    """``(B * heads, T, d)`` to ``(B, T, kept, d)``; the heads of a group are summed."""
    x = x.unflatten(0, (-1, heads))
    if kept != heads:
        x = x.unflatten(1, (kept, -1)).sum(dim=2)
    return x.transpose(1, 2)


def fused_attention(  # noqa: PLR0913
    qkv: Tensor,
    *,
    heads: int,
    kv_heads: int,
    mask: Tensor | None,
    turn: Tensor | None = None,
    first: int = 0,
) -> Tensor:
    """Softmax attention of queries, keys and values that one product made: ``(B, T, (H + 2 K) d)`` to ``(B, T, H d)``.

    Args:
        qkv: queries, keys, values of all heads, one after another; contiguous.
        heads: H.
        kv_heads: K, which divides H: each key head serves H / K query heads.
        mask: ``(B or 1, T, T)`` in the dtype of ``qkv``, added to the scaled scores; it closes to a query at least all
            that comes after it. None: every query sees everything.
        turn: rotary positions, complex ``(B or 1, T, 1, d / 2)``: query and key entries 2i and 2i + 1 are turned
            as one complex number (transformers keeps entries i and i + d / 2: see ``neighbours``).
        first: the first query, 0 to T - 1, that anyone reads the result of; with a mask, what stands before it in the
            result means nothing.
    """
    return _Attention.apply(qkv, turn, mask, heads, kv_heads, first)


def neighbours(weight: Tensor, head_width: int) -> Tensor:
    """Reorder the rows of a query or key weight so that what rotary positions turn together lies side by side.

    Scores stay what they are: they are sums over a head's entries, in whatever order.
    """
    pairs = weight.unflatten(0, (-1, 2, head_width // 2)).transpose(1, 2)
    return pairs.flatten(0, 2)
