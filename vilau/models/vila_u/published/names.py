"""Names and shapes of the published VILA-U tensors and ours, in both directions.

Three groups: the tower and the depth transformer (both in the release's ``vision_tower/``) and the projector
(``mm_projector/``). The language model's names are those of transformers on both sides.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from vilau.errors import CheckpointError
from vilau.models.taming import RULES, renamed

TOWER, HEAD = "rqvaesiglip.", "rqtransformer."
CODEBOOKS = "rqvaesiglip.quantizer.codebooks."
PROJECTOR = "layers."

BOOK = re.compile(rf"{re.escape(CODEBOOKS)}\d+\.weight")
"""The codebook of one depth."""
_Rules = tuple[tuple[str, str], ...]
_TO_TOWER: _Rules = (
    (r"^siglip_model\.", "siglip."),
    (r"^logit_", "siglip.logit_"),
    *RULES,
)
_FROM_TOWER: _Rules = (
    (r"^quantizer\.codebook\.", "quantizer.codebooks.0."),
    (r"^siglip\.logit_", "logit_"),
    (r"^siglip\.", "siglip_model."),
    (r"^decoder\.mid_block_", "decoder.mid.block_"),
    (r"^decoder\.mid_attention\.", "decoder.mid.attn_1."),
    (r"^(decoder\..*)\.blocks\.(\d+)\.", r"\1.block.\2."),
    (r"^(decoder\..*)\.attentions\.(\d+)\.", r"\1.attn.\2."),
    (r"^(decoder\..*)\.upsample\.", r"\1.upsample.conv."),
    (r"^(decoder\..*)\.shortcut\.", r"\1.nin_shortcut."),
    (r"^(decoder\..*block[_.\d]*\.)(norm|conv)_(\d)\.", r"\1\2\3."),
    (r"^(decoder\..*attn[_.\d]*\.)query\.", r"\1q."),
    (r"^(decoder\..*attn[_.\d]*\.)key\.", r"\1k."),
    (r"^(decoder\..*attn[_.\d]*\.)value\.", r"\1v."),
    (r"^(decoder\..*attn[_.\d]*\.)out\.", r"\1proj_out."),
)
_TO_HEAD: _Rules = (
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
_FROM_HEAD: _Rules = (
    (r"^depth_embedding$", "pos_emb_d"),
    (r"^code_projection\.", "in_mlp_1."),
    (r"^hidden_projection\.", "in_mlp_2."),
    (r"^blocks\.", "head_transformer.blocks."),
    (r"\.norm_(\d)\.", r".ln\1."),
    (r"\.attention\.out\.", ".attn.proj."),
    (r"\.attention\.", ".attn."),
    (r"^norm\.", "classifier_mlp.layer_norm."),
    (r"^classifier\.", "classifier_mlp.linear."),
)


def tower_state(published: Mapping[str, Tensor], *, shared: bool = True) -> dict[str, Tensor]:
    """Return ``VisionTower``'s state dict from the tensors of a published ``vision_tower/``.

    Published files hold a ``shared`` codebook once or once per depth, each with a padding row at its end, the
    logit scale and bias under one name or two, and number the decoder's levels from the finest. Raises
    ``CheckpointError`` when second copies of a tensor differ from the first.
    """
    published = without_aliases(published, shared=shared)
    levels = [int(m[1]) for m in (re.match(r".*\.up\.(\d+)\.", name) for name in published) if m]
    coarsest = max(levels, default=0)
    state = {}
    for name, tensor in published.items():
        if not name.startswith(TOWER):
            continue  # the depth transformer's
        own = name.removeprefix(TOWER)
        own = re.sub(r"\.up\.(\d+)\.", lambda m: f".levels.{coarsest - int(m[1])}.", own)
        if BOOK.fullmatch(name):
            tensor = tensor[:-1]
        if shared:
            own = own.replace("quantizer.codebooks.0.", "quantizer.codebook.")
        state[renamed(own, _TO_TOWER)] = tensor
    return state


def published_tower(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the published tensors of ``VisionTower``'s state dict: the inverse of ``tower_state``.

    Shared tensors appear once, as in the files that the published code writes itself; the padding row of a
    codebook, which no code points at, is zero. Whether codes started from data is left out: they have started.
    """
    levels = [int(m[1]) for m in (re.match(r"decoder\.levels\.(\d+)\.", name) for name in own) if m]
    coarsest = max(levels, default=0)
    state = {}
    for name, tensor in own.items():
        if name == "quantizer.initialised":
            continue
        published = re.sub(r"\.levels\.(\d+)\.", lambda m: f".up.{coarsest - int(m[1])}.", name)
        state[TOWER + renamed(published, _FROM_TOWER)] = tensor
    for name in [name for name in state if BOOK.fullmatch(name)]:
        codes = state[name]
        state[name] = torch.cat([codes, torch.zeros_like(codes[:1])])
        # Codes learnt by gradient have no averages; the layout asks for some.
        state.setdefault(name.replace(".weight", ".embed_ema"), codes)
    return state


def head_state(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``DepthTransformer``'s state dict from the tensors of a published ``vision_tower/``."""
    return {
        renamed(name.removeprefix(HEAD), _TO_HEAD): tensor
        for name, tensor in published.items()
        if name.startswith(HEAD)
    }


def published_head(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the published tensors of ``DepthTransformer``'s state dict."""
    return {HEAD + renamed(name, _FROM_HEAD): tensor for name, tensor in own.items()}


def projector_state(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the projector's state dict from the tensors of a published ``mm_projector/``."""
    return {name.removeprefix(PROJECTOR): tensor for name, tensor in published.items()}


def published_projector(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the published tensors of the projector's state dict."""
    return {PROJECTOR + name: tensor for name, tensor in own.items()}


def without_aliases(published: Mapping[str, Tensor], *, shared: bool = True) -> dict[str, Tensor]:
    """Drop the second copies of shared tensors of a published ``vision_tower/``.

    A checkpoint holds a ``shared`` codebook at depth 0 alone or at every depth, and the logit scale and bias outside
    ``siglip_model`` or (also) inside it. Raises ``CheckpointError`` when a copy differs from the first.
    """
    state = {}
    for name, tensor in published.items():
        first = _first_name(name, shared=shared)
        if first == name or first not in published:
            state[first] = tensor
        elif tensor.shape != published[first].shape or not torch.equal(tensor, published[first]):
            raise CheckpointError(_difference(name, first))
    return state


def _first_name(name: str, *, shared: bool) -> str:
    """Return the name that a shared tensor is kept under."""
    if name.startswith(f"{TOWER}siglip_model.logit_"):
        return name.replace("siglip_model.", "", 1)
    return re.sub(rf"^{re.escape(CODEBOOKS)}\d+\.", f"{CODEBOOKS}0.", name) if shared else name


def _difference(name: str, first: str) -> str:
    if name.startswith(CODEBOOKS):
        return (
            f"{name} differs from that of depth 0, but all depths of this model share one codebook; write "
            "shared_codebook: false in its config.json if each depth has its own."
        )
    return f"{name} differs from {first}, but they are one tensor in this model; restore the file."
