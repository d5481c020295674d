"""The tensors of a VQGAN as taming-transformers names them (Esser et al. 2021), which published tokenizers keep.

``encoder.down.{level}.block.{n}`` and ``decoder.up.{level}.block.{n}``, both numbered from the finest level.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vilau.errors import CheckpointError

CODES = "quantize.embedding.weight"
NORM_GROUPS = 32
"""No file says so; taming-transformers knows no other number."""
RULES: tuple[tuple[str, str], ...] = (
    (r"^(encoder|decoder)\.mid\.block_", r"\1.mid_block_"),
    (r"^(encoder|decoder)\.mid\.attn_1\.", r"\1.mid_attention."),
    (r"\.block\.(\d+)\.", r".blocks.\1."),
    (r"\.attn\.(\d+)\.", r".attentions.\1."),
    (r"\.(up|down)sample\.conv\.", r".\1sample."),
    (r"\.nin_shortcut\.", ".shortcut."),
    (r"(block[s_.\d]*\.)(norm|conv)(\d)\.", r"\1\2_\3."),
    (r"(attention[s.\d]*\.)q\.", r"\1query."),
    (r"(attention[s.\d]*\.)k\.", r"\1key."),
    (r"(attention[s.\d]*\.)v\.", r"\1value."),
    (r"(attention[s.\d]*\.)proj_out\.", r"\1out."),
)
"""From a published name, whose level is one of ours already, to that of ``ConvEncoder`` and ``ConvDecoder``."""


def renamed(name: str, rules: tuple[tuple[str, str], ...] = RULES) -> str:
    """Return a tensor's name after all rules, in their order."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def own_state(published: Mapping[str, Tensor], source: Path) -> dict[str, Tensor]:
    """Return the tensors under the names of ``ConvEncoder`` and ``ConvDecoder``; others keep theirs.

    Our decoder numbers its levels from the coarsest. Attention whose query, key and value are one tensor, as VAR
    writes it, is taken apart. Raises ``CheckpointError`` where that cannot be, or for whole numbers.
    """
    coarsest = max(
        (int(m[1]) for m in (re.search(r"\.up\.(\d+)\.", n) for n in published) if m), default=0
    )
    state = {}
    for name, tensor in published.items():
        if not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(
                f"{source} holds {name} as {kind}; give a file of unrounded weights."
            )
        own = re.sub(r"\.up\.(\d+)\.", lambda m: f".levels.{coarsest - int(m[1])}.", name)
        own = re.sub(r"\.down\.(\d+)\.", r".levels.\1.", own)
        if ".qkv." not in own:
            state[renamed(own)] = tensor
            continue
        if not tensor.dim() or not len(tensor) or len(tensor) % 3:
            raise CheckpointError(
                f"{source} holds {name} of the shape {tuple(tensor.shape)}, which is no query, key and value; copy "
                "the file again."
            )
        for letter, part in zip("qkv", tensor.chunk(3), strict=True):
            state[renamed(own.replace(".qkv.", f".{letter}."))] = part
    return state


def sizes(published: Mapping[str, Tensor], source: Path) -> dict[str, Any]:
    """Read off the shapes what a tokenizer's config says: channels, levels, blocks and codes.

    Raises ``CheckpointError`` where a tensor that tells it is missing, or tells what cannot be.
    """
    channels = len(held(published, "encoder.conv_in.weight", source))
    widths = [
        len(held(published, f"encoder.down.{level}.block.0.conv1.weight", source))
        for level in _numbers(published, r"encoder\.down\.(\d+)\.")
    ]
    if not widths or any(width % channels or width % NORM_GROUPS for width in widths):
        raise CheckpointError(
            f"{source} has {channels} channels at first and {widths} in its levels; those of a published tokenizer "
            f"are multiples of the first, and of {NORM_GROUPS}."
        )
    codebook_size, embed_dim = held(published, CODES, source, rank=2).shape
    return {
        "channels": channels,
        "multipliers": tuple(width // channels for width in widths),
        "num_res_blocks": len(_numbers(published, r"encoder\.down\.0\.block\.(\d+)\.")),
        "codebook_size": codebook_size,
        "embed_dim": embed_dim,
        "norm_groups": NORM_GROUPS,
    }


def held(published: Mapping[str, Tensor], name: str, source: Path, *, rank: int = 4) -> Tensor:
    """Return a tensor of a published file; raises ``CheckpointError`` where it has none such of that rank."""
    if name not in published:
        raise CheckpointError(
            f"{source} holds no {name}, which every published image tokenizer has; give the file of one."
        )
    found = published[name]
    if found.dim() != rank or not found.numel():
        raise CheckpointError(
            f"{source} holds {name} of the shape {tuple(found.shape)}, where {rank} sizes of 1 or more belong; give "
            "the file of a published image tokenizer."
        )
    return found


def attended_levels(published: Mapping[str, Tensor]) -> list[int]:
    """Return which levels of the encoder have attention, numbered from the finest."""
    return _numbers(published, r"encoder\.down\.(\d+)\.attn\.")


def _numbers(names: Mapping[str, Tensor], pattern: str) -> list[int]:
    return sorted({int(found[1]) for name in names if (found := re.match(pattern, name))})
