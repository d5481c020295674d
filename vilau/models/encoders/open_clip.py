"""SigLIPs in open_clip's layout, as timm publishes them: both towers in one file, described beside it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from vilau.errors import CheckpointError
from vilau.models.encoders.layouts import siglip_tensors
from vilau.models.encoders.names import OPEN_CLIP_CONFIG, TimmSource
from vilau.models.encoders.timm_vit import read_timm
from vilau.models.encoders.weights import Weights
from vilau.models.sizes import SiglipSizes
from vilau.models.storage import read_json

_SIGLIPS = {"no_causal_mask": True, "pool_type": "last", "proj_bias": True}
"""What open_clip's config says of a text tower like SigLIP's."""
_BLOCKS = "text.transformer.resblocks."


def read_open_clip(file: Path, *, tokenizer: str) -> Weights:
    """Return both towers of one file; ``open_clip_config.json`` beside it says what no tensor shows.

    Raises ``CheckpointError`` for weights or a config that are missing or broken, and for other models.
    """
    config = _model_config(file.parent)
    vision = config.get("vision_cfg") or {}
    name = vision.get("timm_model_name")
    if not name:
        raise CheckpointError(
            f"{file.parent / OPEN_CLIP_CONFIG} names no vision_cfg.timm_model_name, the ViT that encodes images; give "
            "a SigLIP."
        )
    image, rest = read_timm(TimmSource(name, file), vision.get("image_size"))
    text = read_text(rest, file, tokenizer=tokenizer)
    if text is None:
        raise CheckpointError(f"{file} holds no text tower ({_BLOCKS}0…); give a whole checkpoint.")
    return image.with_text(text)


def read_text(tensors: dict[str, Tensor], file: Path, *, tokenizer: str) -> Weights | None:
    """Return the text tower among open_clip's tensors; None where there is none, or no config beside the file.

    Raises ``CheckpointError`` for one that is not like SigLIP's.
    """
    has_text = any(name.startswith("text.") for name in tensors)
    if not has_text or not (file.parent / OPEN_CLIP_CONFIG).is_file():
        return None
    text = _model_config(file.parent).get("text_cfg") or {}
    unlike = [
        f"{key}: {text.get(key)}" for key, value in _SIGLIPS.items() if text.get(key) != value
    ]
    unlike += [f"{key}: {text[key]}" for key in ("hf_model_name", "ls_init_value") if text.get(key)]
    epsilon = (text.get("norm_kwargs") or {}).get("eps")
    unlike += [f"norm_kwargs.eps: {epsilon}"] if epsilon != 1e-6 else []
    if unlike:
        raise CheckpointError(
            f"{file.parent / OPEN_CLIP_CONFIG} has a text_cfg with {', '.join(unlike)}, which is no SigLIP's; give a "
            "SigLIP."
        )
    approximate = (text.get("act_kwargs") or {}).get("approximate") == "tanh"
    own = {n: t for n, t in tensors.items() if n.startswith(("text.", "logit_"))}
    sizes = replace(
        _text_sizes(own, file, heads=text.get("heads", 8)),
        tokenizer=tokenizer,
        activation="gelu_pytorch_tanh" if approximate else "gelu",
    )
    return Weights(sizes, siglip_tensors(own), str(file))


def _text_sizes(tensors: dict[str, Tensor], file: Path, *, heads: int) -> SiglipSizes:
    """Read a text tower's sizes off its tensors; those of an image encoder are no matter here."""
    names = ("token_embedding.weight", "positional_embedding", "text_projection.bias")
    mlp = f"{_BLOCKS}0.mlp.c_fc.weight"
    missing = [name for name in (*(f"text.{n}" for n in names), mlp) if name not in tensors]
    if missing:
        raise CheckpointError(f"{file} lacks the tensor {missing[0]}; copy the file again.")
    (words, width), (length, _), (embed,) = (tuple(tensors[f"text.{n}"].shape) for n in names)
    numbers = {int(n.removeprefix(_BLOCKS).split(".")[0]) for n in tensors if n.startswith(_BLOCKS)}
    return SiglipSizes(
        hidden_size=embed,
        num_heads=1,
        text_hidden_size=width,
        text_layers=len(numbers),
        text_heads=heads,
        text_mlp_size=tensors[mlp].shape[0],
        text_length=length,
        vocab_size=words,
    )


def _model_config(folder: Path) -> dict[str, Any]:
    if not (folder / OPEN_CLIP_CONFIG).is_file():
        raise CheckpointError(
            f"{folder} holds no {OPEN_CLIP_CONFIG}, which says what the weights beside it are; copy it there, or write "
            "timm/<name>:<file> for the image encoder alone."
        )
    config = read_json(folder, OPEN_CLIP_CONFIG)
    return config.get("model_cfg") or config
