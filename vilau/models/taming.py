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


def own_state(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under the names of ``ConvEncoder`` and ``ConvDecoder``; others keep theirs.

    Our decoder numbers its levels from the coarsest. Attention whose query, key and value are one tensor, as VAR
    writes it, is taken apart.
    """
    coarsest = max(
        (int(m[1]) for m in (re.search(r"\.up\.(\d+)\.", n) for n in published) if m), default=0
    )
    state = {}
    for name, tensor in published.items():
        own = re.sub(r"\.up\.(\d+)\.", lambda m: f".levels.{coarsest - int(m[1])}.", name)
        own = re.sub(r"\.down\.(\d+)\.", r".levels.\1.", own)
        if ".qkv." in own:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                state[renamed(own.replace(".qkv.", f".{letter}."))] = part
        else:
            state[renamed(own)] = tensor
    return state


def sizes(published: Mapping[str, Tensor], source: Path) -> dict[str, Any]:
    """Read off the shapes what a tokenizer's config says: channels, levels, blocks and codes.

    Raises ``CheckpointError`` where a tensor that tells it is missing.
    """
    channels = len(held(published, "encoder.conv_in.weight", source))
    firsts = [
        held(published, f"encoder.down.{level}.block.0.conv1.weight", source)
        for level in _numbers(published, r"encoder\.down\.(\d+)\.")
    ]
    codebook_size, embed_dim = held(published, CODES, source).shape
    return {
        "channels": channels,
        "multipliers": tuple(len(weight) // channels for weight in firsts),
        "num_res_blocks": len(_numbers(published, r"encoder\.down\.0\.block\.(\d+)\.")),
        "codebook_size": codebook_size,
        "embed_dim": embed_dim,
    }


def held(published: Mapping[str, Tensor], name: str, source: Path) -> Tensor:
    """Return a tensor of a published file; raises ``CheckpointError`` where it has none such."""
    if name not in published:
        raise CheckpointError(
            f"{source} holds no {name}, which every published image tokenizer has; give the file of one."
        )
    return published[name]


def attended_levels(published: Mapping[str, Tensor]) -> list[int]:
    """Return which levels of the encoder have attention, numbered from the finest."""
    return _numbers(published, r"encoder\.down\.(\d+)\.attn\.")


def _numbers(names: Mapping[str, Tensor], pattern: str) -> list[int]:
    return sorted({int(found[1]) for name in names if (found := re.match(pattern, name))})
