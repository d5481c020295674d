"""SigLIP image and text encoders from transformers: sizes, loading, building.

B images, P positions, C width.
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, SiglipConfig, SiglipModel

from vilau.errors import CheckpointError, ConfigError
from vilau.layers.attention import attention_name
from vilau.models.storage import building_on_meta, load_weights, read_config
from vilau.models.tokenizers import asset, load_tokenizer

KIND = "siglip"
WORLD_SIGLIP = "world-siglip"


@dataclass
class SiglipSizes:
    """Sizes of a SigLIP model; the defaults are google/siglip-large-patch16-256."""

    image_size: int = 256
    patch_size: int = 16
    hidden_size: int = 1024
    num_layers: int = 24
    num_heads: int = 16
    mlp_size: int = 4096
    text_layers: int = 24
    text_heads: int = 16
    text_mlp_size: int = 4096
    text_length: int = 64
    vocab_size: int = 32000
    activation: str = "gelu_pytorch_tanh"
    tokenizer: str = "google/siglip-large-patch16-256"
    attention: str = "sdpa"
    """transformers' attention kernel, or ``lean`` (ours, faster for small models on a CPU)."""

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size and self.patch_size != 14:
            low = self.image_size // self.patch_size * self.patch_size
            raise ConfigError(
                f"siglip.image_size is {self.image_size}, which {self.patch_size}-pixel patches do not "
                f"divide; write {max(low, self.patch_size)} or {low + self.patch_size}."
            )
        for key in ("num_heads", "text_heads"):
            if self.hidden_size % getattr(self, key):
                raise ConfigError(
                    f"siglip.{key} is {getattr(self, key)}, which does not divide siglip.hidden_size "
                    f"{self.hidden_size}; write a divisor of {self.hidden_size}."
                )
        if self.num_layers < 2:
            raise ConfigError(
                f"siglip.num_layers is {self.num_layers}, but the tower quantises after the last "
                "block but one; write 2 or more."
            )

    @property
    def grid(self) -> int:
        """Cells along each side of the code grid (a 14-pixel patch drops the border of 384)."""
        return self.image_size // self.patch_size


_SO400M = {
    "image_size": 384, "patch_size": 14, "hidden_size": 1152, "num_layers": 27, "mlp_size": 4304,
    "text_layers": 27, "text_mlp_size": 4304, "tokenizer": "google/siglip-so400m-patch14-384",
}  # fmt: skip
PUBLISHED_SIZES: dict[str, SiglipSizes] = {
    "google/siglip-large-patch16-256": SiglipSizes(),
    "google/siglip-so400m-patch14-384": SiglipSizes(**_SO400M),  # type: ignore[arg-type]
}
"""What is needed to build (on the meta device) without the network."""


def transformers_config(sizes: SiglipSizes) -> SiglipConfig:
    """Return the transformers config of ``sizes``."""
    shared: dict[str, Any] = {"hidden_size": sizes.hidden_size, "hidden_act": sizes.activation}
    vision = shared | {
        "image_size": sizes.image_size,
        "patch_size": sizes.patch_size,
        "num_hidden_layers": sizes.num_layers,
        "num_attention_heads": sizes.num_heads,
        "intermediate_size": sizes.mlp_size,
    }
    text = shared | {
        "vocab_size": sizes.vocab_size,
        "max_position_embeddings": sizes.text_length,
        "num_hidden_layers": sizes.text_layers,
        "num_attention_heads": sizes.text_heads,
        "intermediate_size": sizes.text_mlp_size,
        "projection_size": sizes.hidden_size,
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


def load_siglip(source: str) -> tuple[SiglipModel, SiglipSizes]:
    """Load a SigLIP: ``world-siglip``, a folder of ours, a transformers folder, or a hub name.

    Raises ``CheckpointError`` when the weights are nowhere to be found.
    """
    folder = asset(source) if source == WORLD_SIGLIP else Path(source)
    if (folder / "config.json").is_file() and _is_ours(folder):
        sizes = SiglipSizes(**read_config(folder, KIND)["sizes"])
        model = build_siglip(sizes)
        load_weights(model, folder)
        return model, sizes
    if building_on_meta() and source in PUBLISHED_SIZES:
        sizes = dataclasses.replace(PUBLISHED_SIZES[source])
        return build_siglip(sizes), sizes
    try:
        model = SiglipModel.from_pretrained(source, attn_implementation="sdpa")
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"SigLIP weights {source} are neither a local folder nor in the hub cache nor downloadable "
            f"({str(error).splitlines()[0]}); download them on a machine with a network and give the folder."
        ) from None
    return model, _sizes_of(model.config, source)


def _is_ours(folder: Path) -> bool:
    return json.loads((folder / "config.json").read_text()).get("kind") is not None


def _sizes_of(config: SiglipConfig, source: str) -> SiglipSizes:
    vision, text = config.vision_config, config.text_config
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
        clean = [canonicalise(text) + (tokenizer.eos_token or "") for text in texts]
        encoded = tokenizer(
            clean,
            padding="max_length",
            truncation=True,
            max_length=self.length,
            add_special_tokens=False,
            return_tensors="pt",
        )
        return encoded["input_ids"].to(device)


def canonicalise(text: str) -> str:
    """Lower-case, drop punctuation, collapse whitespace (big_vision's canonical text for SigLIP)."""
    return re.sub(r"\s+", " ", re.sub(r"[^\w\s]", "", text.lower())).strip()
