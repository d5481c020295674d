"""VAR's transformer as its files hold it (``var_d30.pth``), under our names.

C decoder width, L cells of all scales, h heads.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from vilau.errors import CheckpointError, ConfigError
from vilau.models.vargpt.config import DecoderConfig

HEAD_WIDTH = 64
"""Of all published ones; only normalised attention tells the number of heads."""
DROP_PATH = 0.1
"""Of the last of 24 blocks, in proportion for other numbers: a choice of VAR's training that no tensor tells."""
COMPUTED = re.compile(r"lvl_1L|attn_bias_for_masking|blocks\.\d+\.attn\.zero_k_bias")
"""Buffers that follow from the scales, or are 0."""
SHARED = "shared_ada_lin."

_AROUND = {
    "condition_embedding.weight": "class_emb.weight",
    "start": "pos_start",
    "code_projection.weight": "word_embed.weight",
    "code_projection.bias": "word_embed.bias",
    "level_embedding.weight": "lvl_embed.weight",
    "position_embedding": "pos_1LC",
    "out_modulation.weight": "head_nm.ada_lin.1.weight",
    "out_modulation.bias": "head_nm.ada_lin.1.bias",
    "classifier.weight": "head.weight",
    "classifier.bias": "head.bias",
}
_BLOCK = {
    "modulation.weight": "ada_lin.1.weight",
    "modulation.bias": "ada_lin.1.bias",
    "attention.query.bias": "attn.q_bias",
    "attention.value.bias": "attn.v_bias",
    "attention.out.weight": "attn.proj.weight",
    "attention.out.bias": "attn.proj.bias",
    "mlp.0.weight": "ffn.fc1.weight",
    "mlp.0.bias": "ffn.fc1.bias",
    "mlp.2.weight": "ffn.fc2.weight",
    "mlp.2.bias": "ffn.fc2.bias",
}
"""Our name and the published one."""
_QKV, _SCALE = "attn.mat_qkv.weight", "attn.scale_mul_1H11"


def decoder_config_of(
    published: Mapping[str, Tensor], *, source: str | Path = "the file"
) -> DecoderConfig:
    """Read the sizes of VAR's transformer off its tensors, which come from ``source``.

    The rate of ``drop_path`` is that of VAR's training for this many blocks. Raises ``CheckpointError`` where a
    tensor that tells a size is missing, or the sizes are no decoder's.
    """
    if any(name.startswith(SHARED) for name in published):
        raise CheckpointError(
            f"{source} holds one AdaLN that all blocks share ({SHARED}*), as VAR's model for 512 pixels does, but "
            "the decoder has one for each; give the file of a model for 256 pixels."
        )
    blocks = [int(found[1]) for name in published if (found := re.match(r"blocks\.(\d+)\.", name))]
    num_layers = max(blocks, default=-1) + 1
    rows, width = _held(published, "class_emb.weight", source, rank=2).shape
    hidden, _ = _held(published, "blocks.0.ffn.fc1.weight", source, rank=2).shape
    normalised = f"blocks.0.{_SCALE}" in published
    if normalised:
        num_heads = _held(published, f"blocks.0.{_SCALE}", source, rank=4).shape[1]
    else:
        num_heads = width // HEAD_WIDTH
    if hidden % width:
        raise CheckpointError(
            f"{source} holds blocks.0.ffn.fc1.weight with {hidden} rows, which is no multiple of its width {width}; "
            "give the file of VAR's transformer."
        )
    try:
        return DecoderConfig(
            num_layers=num_layers,
            width=width,
            num_heads=num_heads,
            mlp_ratio=hidden // width,
            num_conditions=rows - 1,
            drop_path=DROP_PATH * num_layers / 24,
            normalised_attention=normalised,
        )
    except ConfigError as error:
        raise CheckpointError(f"{source} holds sizes that no decoder has: {error}") from None


def own_state(
    published: Mapping[str, Tensor], config: DecoderConfig, *, source: str | Path = "the file"
) -> dict[str, Tensor]:
    """Return the tensors of VAR's transformer, which come from ``source``, under the names of ``ScaleDecoder``.

    The fused query, key and value are taken apart; buffers that can be computed are left out. Raises
    ``CheckpointError`` for a tensor that is missing, or that the decoder has no place for.
    """
    names = dict(_AROUND)
    state = {}
    taken = set()
    for number in range(config.num_layers):
        names |= {f"blocks.{number}.{own}": f"blocks.{number}.{of}" for own, of in _BLOCK.items()}
        attention = f"blocks.{number}.attention"
        fused = _held(published, f"blocks.{number}.{_QKV}", source, rank=2)
        if fused.shape != (3 * config.width, config.width):
            raise CheckpointError(
                f"{source} holds blocks.{number}.{_QKV} of the shape {tuple(fused.shape)}, where the query, key and "
                f"value of {config.width} are ({3 * config.width}, {config.width}); copy the file again."
            )
        for part, weight in zip(("query", "key", "value"), fused.chunk(3), strict=True):
            state[f"{attention}.{part}.weight"] = weight
        taken.add(f"blocks.{number}.{_QKV}")
        if config.normalised_attention:
            scale = _held(published, f"blocks.{number}.{_SCALE}", source, rank=4)
            state[f"{attention}.log_scale"] = scale.flatten()
            taken.add(f"blocks.{number}.{_SCALE}")
    state |= {own: _held(published, name, source) for own, name in names.items()}
    taken |= set(names.values())
    astray = [name for name in published if name not in taken and not COMPUTED.fullmatch(name)]
    if astray:
        raise CheckpointError(
            f"{source} holds {len(astray)} tensors that the decoder has no place for, the first is {astray[0]}; give "
            "the file of VAR's transformer."
        )
    return state


def _held(
    published: Mapping[str, Tensor], name: str, source: str | Path, *, rank: int | None = None
) -> Tensor:
    if name not in published:
        raise CheckpointError(
            f"{source} holds no {name}, which VAR's transformer has; give the file of one."
        )
    found = published[name]
    if rank is not None and (found.dim() != rank or not found.numel()):
        raise CheckpointError(
            f"{source} holds {name} of the shape {tuple(found.shape)}, where {rank} sizes of 1 or more belong; copy "
            "the file again."
        )
    return found
