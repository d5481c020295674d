"""How the published layout names the SigLIP that a tower is built on: by hub name, or by a folder beside it."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from vilau.errors import CheckpointError
from vilau.models.sizes import PUBLISHED_SIGLIPS, SIGLIP, SiglipSizes

FORMAT = "4.36.2"
"""The release's transformers, whose file formats these are."""


def siglip_name(sizes: SiglipSizes) -> str:
    """Return ``pretrained_model``: the hub name that a SigLIP came by, else ``siglip``."""
    is_name = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", sizes.tokenizer)
    return sizes.tokenizer if is_name and not Path(sizes.tokenizer).exists() else "siglip"


def check_siglip(sizes: SiglipSizes) -> None:
    """Raise ``CheckpointError`` for a tower on another ViT than SigLIP's, which the layout has no names for."""
    if sizes.vision != SIGLIP:
        raise CheckpointError(
            f"this tower encodes images by timm's {sizes.vision}, but the published layout holds SigLIP's ViT "
            "alone; keep the folder that the run wrote."
        )


def is_published_siglip(sizes: SiglipSizes) -> bool:
    """Tell whether the name says everything: a tower on it needs no folder with SigLIP's config."""
    usual = PUBLISHED_SIGLIPS.get(siglip_name(sizes))
    return usual is not None and replace(usual, attention=sizes.attention) == sizes


def siglip_fields(sizes: SiglipSizes) -> dict[str, Any]:
    """Return config.json of a SigLIP of these sizes, as transformers reads it."""
    return {
        "initializer_factor": 1.0,
        "model_type": "siglip",
        "text_config": {
            "hidden_act": sizes.text_activation or sizes.activation,
            "hidden_size": sizes.text_width,
            "intermediate_size": sizes.text_mlp_size,
            "max_position_embeddings": sizes.text_length,
            "model_type": "siglip_text_model",
            "num_attention_heads": sizes.text_heads,
            "num_hidden_layers": sizes.text_layers,
            "projection_size": sizes.embed_width,
            "vocab_size": sizes.vocab_size,
        },
        "transformers_version": FORMAT,
        "vision_config": {
            "hidden_act": sizes.activation,
            "hidden_size": sizes.hidden_size,
            "image_size": sizes.image_size,
            "intermediate_size": sizes.mlp_size,
            "model_type": "siglip_vision_model",
            "num_attention_heads": sizes.num_heads,
            "num_hidden_layers": sizes.num_layers,
            "patch_size": sizes.patch_size,
        },
    }
