"""SigLIP image and text encoders of transformers: sizes, loading, building.

B images, P positions, C width.
"""

import dataclasses
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, SiglipConfig, SiglipModel

from vilau.errors import CheckpointError, ConfigError
from vilau.layers.attention import attention_name
from vilau.models.hub_cache import cached_folder
from vilau.models.pretrained import built_config, load_pretrained
from vilau.models.sizes import PUBLISHED_SIGLIPS, SiglipSizes
from vilau.models.storage import CONFIG_FILE, building_on_meta, read_json
from vilau.models.tokenizers import load_tokenizer

KIND = "siglip"
PUNCTUATION = str.maketrans("", "", string.punctuation)


def transformers_config(sizes: SiglipSizes) -> SiglipConfig:
    """Return the transformers config of ``sizes``."""
    vision: dict[str, Any] = {
        "hidden_size": sizes.hidden_size,
        "hidden_act": sizes.activation,
        "image_size": sizes.image_size,
        "patch_size": sizes.patch_size,
        "num_hidden_layers": sizes.num_layers,
        "num_attention_heads": sizes.num_heads,
        "intermediate_size": sizes.mlp_size,
    }
    text: dict[str, Any] = {
        "hidden_size": sizes.text_width,
        "hidden_act": sizes.text_activation or sizes.activation,
        "vocab_size": sizes.vocab_size,
        "max_position_embeddings": sizes.text_length,
        "num_hidden_layers": sizes.text_layers,
        "num_attention_heads": sizes.text_heads,
        "intermediate_size": sizes.text_mlp_size,
        "projection_size": sizes.embed_width,
        # Read at the last position, whatever stands there; the defaults lie outside small vocabularies.
        "bos_token_id": None,
        "eos_token_id": None,
    }
    return SiglipConfig(vision_config=vision, text_config=text)


def build_siglip(
    sizes: SiglipSizes, *, logit_scale: float = 2.3026, logit_bias: float = -10.0
) -> SiglipModel:
    """Build a randomly initialised SigLIP; logit scale log 10 and bias -10 as in the SigLIP paper."""
    config = transformers_config(sizes)
    config._attn_implementation = attention_name(sizes.attention)
    model = SiglipModel(config)
    with torch.no_grad():
        model.logit_scale.fill_(logit_scale)
        model.logit_bias.fill_(logit_bias)
    return model


def pretrained_siglip(source: str) -> tuple[SiglipModel, SiglipSizes]:
    """Load a SigLIP of transformers': a folder, or a hub name.

    Raises ``CheckpointError`` when the weights are nowhere to be found, broken or of another model.
    """
    local = Path(source).exists()
    if building_on_meta() and source in PUBLISHED_SIGLIPS and not local:
        sizes = dataclasses.replace(PUBLISHED_SIGLIPS[source])
        return build_siglip(sizes), sizes
    model = load_pretrained(SiglipModel, source, attention="sdpa")
    if not local and not building_on_meta():
        load_tokenizer(source, download=True)  # a finished model asks the network for nothing
    return model, _sizes_of(model.config, source)


def named_sizes(source: str) -> SiglipSizes | None:
    """Return the sizes of a SigLIP by folder or hub name, from this machine alone; None when not here.

    Raises ``CheckpointError`` for a SigLIP whose sizes ours cannot express.
    """
    folder = Path(source) if Path(source).is_dir() else cached_folder(source, CONFIG_FILE)
    if folder is None or not (folder / CONFIG_FILE).is_file():
        return None
    fields = read_json(folder)
    if fields.get("model_type") != "siglip":
        return None
    # Unused, and the defaults lie outside small vocabularies, which transformers warns of.
    text = {**(fields.get("text_config") or {}), "bos_token_id": None, "eos_token_id": None}
    parts = {"text_config": text, "vision_config": fields.get("vision_config") or {}}
    return _sizes_of(built_config(SiglipConfig, parts, folder / CONFIG_FILE), source)


def _sizes_of(config: SiglipConfig, source: str) -> SiglipSizes:
    vision: Any = config.vision_config
    text: Any = config.text_config
    for what, found, ours in (
        ("text_config.projection_size", text.projection_size, vision.hidden_size),
        ("text_config.layer_norm_eps", text.layer_norm_eps, 1e-6),
        ("vision_config.layer_norm_eps", vision.layer_norm_eps, 1e-6),
    ):
        if found != ours:
            raise CheckpointError(
                f"the SigLIP {source} has {what} {found}, but this model can only build {ours}; give "
                "another SigLIP."
            )
    return SiglipSizes(
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        hidden_size=vision.hidden_size,
        num_layers=vision.num_hidden_layers,
        num_heads=vision.num_attention_heads,
        mlp_size=vision.intermediate_size,
        text_layers=text.num_hidden_layers,
        text_heads=text.num_attention_heads,
        text_mlp_size=text.intermediate_size,
        text_length=text.max_position_embeddings,
        vocab_size=text.vocab_size,
        activation=vision.hidden_act,
        tokenizer=source,
        text_hidden_size=text.hidden_size,
        text_activation=text.hidden_act,
    )


def check_image_size(images: Tensor, sizes: SiglipSizes) -> None:
    """Raise ``ConfigError`` unless images ``(B, 3, H, W)`` are as large as the encoder was made for."""
    height, width = images.shape[-2:]
    if (height, width) != (sizes.image_size, sizes.image_size):
        raise ConfigError(
            f"data.image_size gives images of {height} x {width} pixels, but this model reads "
            f"{sizes.image_size} x {sizes.image_size}; write data.image_size: {sizes.image_size}."
        )


class TextInputs:
    """Turns captions into SigLIP's fixed-length token ids.

    SigLIP's own preparation: lower case, punctuation removed, whitespace collapsed, end token, padded to
    the full length; the pooled text feature is read at the last position.
    """

    def __init__(self, sizes: SiglipSizes) -> None:
        self.source = sizes.tokenizer
        self.length = sizes.text_length
        self._tokenizer: PreTrainedTokenizerBase | None = (
            None  # read on first use: rarely needed on meta
        )

    def __call__(self, texts: Sequence[str], device: torch.device) -> Tensor:
        """Return int64 ids ``(len(texts), text_length)``."""
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self.source)
        tokenizer = self._tokenizer
        clean = [canonicalise(text) for text in texts]
        # One place is kept for the end token: a text that is cut short must not lose it.
        rows = tokenizer(
            clean, truncation=True, max_length=self.length - 1, add_special_tokens=False
        )["input_ids"]
        ids = torch.full((len(rows), self.length), tokenizer.pad_token_id)
        for row, words in enumerate(rows):
            ids[row, : len(words) + 1] = torch.tensor([*words, tokenizer.eos_token_id])
        return ids.to(device)


def canonicalise(text: str) -> str:
    """Lower-case, drop ASCII punctuation, collapse whitespace, as SigLIP's own tokenizer does."""
    return " ".join(text.lower().translate(PUNCTUATION).split())
