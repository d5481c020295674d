"""Names of the published VILA-U checkpoints and ours (reference: `vision_tower/` of the release)."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from vilau.errors import CheckpointError

TOWER, HEAD = "rqvaesiglip.", "rqtransformer."
CODEBOOKS = "rqvaesiglip.quantizer.codebooks."

_TOWER_NAMES = (
    (r"^quantizer\.codebooks\.0\.", "quantizer.codebook."),
    (r"^siglip_model\.", "siglip."),
    (r"^logit_", "siglip.logit_"),
    (r"^decoder\.mid\.block_", "decoder.mid_block_"),
    (r"^decoder\.mid\.attn_1\.", "decoder.mid_attention."),
    (r"\.block\.(\d+)\.", r".blocks.\1."),
    (r"\.attn\.(\d+)\.", r".attentions.\1."),
    (r"\.upsample\.conv\.", ".upsample."),
    (r"\.nin_shortcut\.", ".shortcut."),
    (r"(block[s_.\d]*\.)(norm|conv)(\d)\.", r"\1\2_\3."),
    (r"(attention[s.\d]*\.)q\.", r"\1query."),
    (r"(attention[s.\d]*\.)k\.", r"\1key."),
    (r"(attention[s.\d]*\.)v\.", r"\1value."),
    (r"(attention[s.\d]*\.)proj_out\.", r"\1out."),
)
_HEAD_NAMES = (
    (r"^pos_emb_d$", "depth_embedding"),
    (r"^in_mlp_1\.", "code_projection."),
    (r"^in_mlp_2\.", "hidden_projection."),
    (r"^head_transformer\.", ""),
    (r"\.ln(\d)\.", r".norm_\1."),
    (r"\.attn\.proj\.", ".attention.out."),
    (r"\.attn\.", ".attention."),
    (r"^classifier_mlp\.layer_norm\.", "norm."),
    (r"^classifier_mlp\.linear\.", "classifier."),
)


def tower_state(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``VisionTower``'s state dict from the tensors of a published ``vision_tower/``.

    Published files hold the shared codebook once or once per depth, each with a padding row at its end,
    and number the decoder's levels from the finest. Raises ``CheckpointError`` when the codebooks of the
    depths differ, which this model cannot express.
    """
    _check_shared(published)
    levels = [int(m[1]) for m in (re.match(r".*\.up\.(\d+)\.", name) for name in published) if m]
    coarsest = max(levels, default=0)
    state = {}
    for name, tensor in published.items():
        own = name.removeprefix(TOWER)
        if not name.startswith(TOWER) or own.startswith("siglip_model.logit_"):
            continue  # the depth transformer's, or a second name of the logit scale and bias
        if name.startswith(CODEBOOKS) and not name.startswith(f"{CODEBOOKS}0."):
            continue  # a second name of the shared codebook
        own = re.sub(r"\.up\.(\d+)\.", lambda m: f".levels.{coarsest - int(m[1])}.", own)
        state[_renamed(own, _TOWER_NAMES)] = tensor
    book = "quantizer.codebook.weight"
    if book in state:
        state[book] = state[book][:-1]
    return state


def head_state(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``DepthTransformer``'s state dict from the tensors of a published ``vision_tower/``."""
    return {
        _renamed(name.removeprefix(HEAD), _HEAD_NAMES): tensor
        for name, tensor in published.items()
        if name.startswith(HEAD)
    }


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _check_shared(published: Mapping[str, Tensor]) -> None:
    for name, tensor in published.items():
        if name.startswith(CODEBOOKS):
            first = published[re.sub(r"codebooks\.\d+\.", "codebooks.0.", name)]
            if tensor is not first and not torch.equal(tensor, first):
                raise CheckpointError(
                    f"{name} differs from that of depth 0, but all depths of this model share one "
                    "codebook; give a checkpoint trained with shared_codebook."
                )
