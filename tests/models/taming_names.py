"""Names of a convolutional tokenizer's tensors as taming-transformers writes them, derived from the module itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vilau.layers.convolution import ResidualBlock, SpatialAttention

PARTS = {
    ResidualBlock: {"norm_1": "norm1", "conv_1": "conv1", "norm_2": "norm2", "conv_2": "conv2",
                    "shortcut": "nin_shortcut"},
    SpatialAttention: {"norm": "norm", "query": "q", "key": "k", "value": "v", "out": "proj_out"},
}  # fmt: skip


def count(part: nn.Module) -> int:
    """Parameters of a part."""
    return sum(p.numel() for p in part.parameters())


def published_names(tokenizer: nn.Module, *, fused: bool = False) -> dict[str, Tensor]:
    """All tensors but the quantiser's; with ``fused`` query, key and value are one, as VAR writes them."""
    found: dict[str, Tensor] = {}
    for side, direction in (("encoder", "down"), ("decoder", "up")):
        part = getattr(tokenizer, side)
        for name in ("conv_in", "norm_out", "conv_out"):
            found |= _named(f"{side}.{name}", getattr(part, name))
        for ours, theirs in (
            ("block_1", "block_1"),
            ("attention", "attn_1"),
            ("block_2", "block_2"),
        ):
            found |= _block(f"{side}.mid.{theirs}", getattr(part, f"mid_{ours}"), fused)
        levels = list(part.levels) if side == "encoder" else list(part.levels)[::-1]
        for number, level in enumerate(levels):
            found |= _level(f"{side}.{direction}.{number}", level, direction, fused)
    for name in ("quant_conv", "post_quant_conv"):
        found |= _named(name, getattr(tokenizer, name))
    return found


def _named(name: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{name}.{key}": tensor for key, tensor in module.state_dict().items()}


def _level(name: str, level: nn.Module, direction: str, fused: bool) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for kind, modules in (("block", level.blocks), ("attn", level.attentions)):
        for number, module in enumerate(modules):
            found |= _block(f"{name}.{kind}.{number}", module, fused)
    resampled = getattr(level, f"{direction}sample")
    return (
        found if resampled is None else found | _named(f"{name}.{direction}sample.conv", resampled)
    )


def _block(name: str, module: nn.Module, fused: bool) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for ours, theirs in PARTS[type(module)].items():
        found |= _named(f"{name}.{theirs}", getattr(module, ours))
    if fused and isinstance(module, SpatialAttention):
        for kind in ("weight", "bias"):
            parts = [found.pop(f"{name}.{letter}.{kind}") for letter in "qkv"]
            found[f"{name}.qkv.{kind}"] = torch.cat(parts)
    return found
