"""How open_clip and timm name what SigLIP is made of, and their tensors under transformers' names."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

TRUNK = "visual.trunk."
"""What open_clip puts before the names of the timm ViT inside."""

_IMAGE, _TEXT = "vision_model.", "text_model."
_BLOCK, _TEXT_BLOCK = f"{_IMAGE}encoder.layers.", f"{_TEXT}encoder.layers."
_NAMES = (
    (rf"^{re.escape(TRUNK)}patch_embed\.proj\.", f"{_IMAGE}embeddings.patch_embedding."),
    (rf"^{re.escape(TRUNK)}pos_embed$", f"{_IMAGE}embeddings.position_embedding.weight"),
    (rf"^{re.escape(TRUNK)}blocks\.(\d+)\.norm([12])\.", rf"{_BLOCK}\1.layer_norm\2."),
    (rf"^{re.escape(TRUNK)}blocks\.(\d+)\.attn\.proj\.", rf"{_BLOCK}\1.self_attn.out_proj."),
    (rf"^{re.escape(TRUNK)}blocks\.(\d+)\.mlp\.", rf"{_BLOCK}\1.mlp."),
    (rf"^{re.escape(TRUNK)}norm\.", f"{_IMAGE}post_layernorm."),
    (rf"^{re.escape(TRUNK)}attn_pool\.latent$", f"{_IMAGE}head.probe"),
    (rf"^{re.escape(TRUNK)}attn_pool\.proj\.", f"{_IMAGE}head.attention.out_proj."),
    (rf"^{re.escape(TRUNK)}attn_pool\.norm\.", f"{_IMAGE}head.layernorm."),
    (rf"^{re.escape(TRUNK)}attn_pool\.mlp\.", f"{_IMAGE}head.mlp."),
    (r"^text\.token_embedding\.", f"{_TEXT}embeddings.token_embedding."),
    (r"^text\.positional_embedding$", f"{_TEXT}embeddings.position_embedding.weight"),
    (r"^text\.transformer\.resblocks\.(\d+)\.ln_([12])\.", rf"{_TEXT_BLOCK}\1.layer_norm\2."),
    (r"^text\.transformer\.resblocks\.(\d+)\.attn\.out_proj\.", rf"{_TEXT_BLOCK}\1.self_attn.out_proj."),
    (r"^text\.transformer\.resblocks\.(\d+)\.mlp\.c_fc\.", rf"{_TEXT_BLOCK}\1.mlp.fc1."),
    (r"^text\.transformer\.resblocks\.(\d+)\.mlp\.c_proj\.", rf"{_TEXT_BLOCK}\1.mlp.fc2."),
    (r"^text\.ln_final\.", f"{_TEXT}final_layer_norm."),
    (r"^text\.text_projection\.", f"{_TEXT}head."),
)  # fmt: skip
_FUSED = (
    (rf"^{re.escape(TRUNK)}blocks\.(\d+)\.attn\.qkv\.", _BLOCK),
    (r"^text\.transformer\.resblocks\.(\d+)\.attn\.in_proj_", _TEXT_BLOCK),
)
"""Queries, keys and values in one tensor, which transformers keeps in three."""
_POOL = f"{_IMAGE}head.attention.in_proj_"


def siglip_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return open_clip's tensors under the names and in the shapes of transformers' ``SiglipModel``.

    A timm ViT's are those that begin with ``TRUNK``. A name that SigLIP has no place for stays as it is.
    """
    found = {}
    for name, tensor in tensors.items():
        for new, part in _placed(name, tensor):
            found[new] = part
    for end in ("weight", "bias"):
        query, rest = (f"{TRUNK}attn_pool.{part}.{end}" for part in ("q", "kv"))
        if query in found and rest in found:  # which transformers keeps in one tensor
            found[f"{_POOL}{end}"] = torch.cat([found.pop(query), found.pop(rest)])
    return found


def _placed(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    for pattern, block in _FUSED:
        if found := re.match(pattern, name):
            end = name[found.end() :]
            names = [f"{block}{found[1]}.self_attn.{part}_proj.{end}" for part in "qkv"]
            return list(zip(names, tensor.chunk(3), strict=True))
    if name in ("logit_scale", "logit_bias"):
        return [(name, tensor.reshape(1))]
    for pattern, replacement in _NAMES:
        new, count = re.subn(pattern, replacement, name)
        if count:
            is_positions = new == f"{_IMAGE}embeddings.position_embedding.weight"
            return [(new, tensor.squeeze(0) if is_positions else tensor)]
    return [(name, tensor)]


_VIT_NAMES = (
    (r"^(patch_embed\.|cls_token$|reg_token$|pos_embed$|norm_pre\.)", rf"{_IMAGE}embeddings.\1"),
    (r"^blocks\.(\d+)\.", rf"{_BLOCK}\1.block."),
    (r"^norm\.", f"{_IMAGE}post_layernorm."),
    (r"^(attn_pool|fc_norm)\.", rf"{_IMAGE}head.\1."),
)


def vit_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a timm ViT's tensors under the names of ``ViTSiglip``."""
    found = {}
    for name, tensor in tensors.items():
        for pattern, replacement in _VIT_NAMES:
            new, count = re.subn(pattern, replacement, name)
            if count:
                found[new] = tensor
                break
    return found
