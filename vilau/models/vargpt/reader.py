"""How VARGPT reads pictures: an image encoder as it was trained, and a projector (VARGPT, section 3.1; LLaVA-1.5).

n images, Q patches, C encoder width, E language-model width.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, SiglipVisionConfig, SiglipVisionModel
from transformers.activations import ACT2FN

from vilau.errors import CheckpointError, ConfigError
from vilau.layers.pixels import resized
from vilau.models.encoders.load import load_encoders
from vilau.models.hub_cache import cached_folder
from vilau.models.pretrained import config_within, load_pretrained
from vilau.models.storage import CONFIG_FILE, building_on_meta, read_json
from vilau.models.vargpt.config import PUBLISHED_CLIPS, ReaderConfig

CLASSES: dict[str, tuple[Any, Any]] = {
    "clip": (CLIPVisionModel, CLIPVisionConfig),
    "siglip": (SiglipVisionModel, SiglipVisionConfig),
}
NORM_EPS = 1e-5
"""Of all CLIPs' normalisations, as transformers builds them where no config says otherwise."""
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""Of the pixels that CLIP was trained on, in [0, 1]."""


class PictureReader(nn.Module):
    """A frozen image encoder's patches, from one of its inner layers, as inputs of a language model."""

    vision: Any

    def __init__(self, vision: nn.Module, config: ReaderConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.vision = vision.requires_grad_(requires_grad=False)
        self.projector = nn.Sequential(
            nn.Linear(config.hidden_size, width), nn.GELU(), nn.Linear(width, width)
        )

    @property
    def num_positions(self) -> int:
        """Q, the patches of an image."""
        return self.config.num_positions

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return what the encoder finds in float images in [-1, 1] of any size: ``(n, Q, C)``.

        Images of another size than the encoder's are resized (bicubic, antialiased), whatever their proportions.
        """
        pixels = resized(images.float(), self.config.image_size)
        if self.config.kind == "clip":
            mean, deviation = (
                torch.tensor(values, device=pixels.device)[:, None, None]
                for values in (CLIP_MEAN, CLIP_DEVIATION)
            )
            pixels = ((pixels + 1) / 2 - mean) / deviation
        weight = self.vision.embeddings.patch_embedding.weight
        found = self.vision(pixel_values=pixels.to(weight.dtype), output_hidden_states=True)
        layer = found.hidden_states[self.config.layer]
        return layer[:, 1:] if self.config.kind == "clip" else layer

    def forward(self, images: Tensor) -> Tensor:
        """Map float images in [-1, 1], ``(n, 3, H, W)``, to inputs ``(n, Q, E)``."""
        return self.project(self.features(images))

    def project(self, features: Tensor) -> Tensor:
        """Map features ``(n, Q, C)`` to inputs ``(n, Q, E)``."""
        return self.projector(features.to(next(self.projector.parameters()).dtype))


def build_vision(config: ReaderConfig) -> nn.Module:
    """Build an image encoder of a config's sizes, with random weights."""
    model, sizes = CLASSES[config.kind]
    if config.activation not in ACT2FN:
        raise ConfigError(
            f"reader.activation is {config.activation}, which transformers does not know; write quick_gelu (CLIP) or "
            "gelu_pytorch_tanh (SigLIP)."
        )
    return model(
        sizes(
            image_size=config.image_size,
            patch_size=config.patch_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            intermediate_size=config.mlp_size,
            hidden_act=config.activation,
        )
    )


def start_vision(config: ReaderConfig) -> tuple[nn.Module, ReaderConfig]:
    """Load the pretrained encoder that a config names, or build a random one; return it with all its sizes.

    Raises ``CheckpointError`` where the weights are nowhere to be found, broken, or no CLIP's or SigLIP's.
    """
    source = config.pretrained
    if source is None:
        return build_vision(config), config
    if building_on_meta() and source in PUBLISHED_CLIPS and not Path(source).exists():
        config = replace(config, **PUBLISHED_CLIPS[source])
        return build_vision(config), config
    if source in PUBLISHED_CLIPS or _describes_clip(source):
        own = config_within(CLIPVisionConfig, source, ("clip", "clip_vision_model"))
        if own.layer_norm_eps != NORM_EPS:
            raise CheckpointError(
                f"reader.pretrained is {source}, whose layer_norm_eps is {own.layer_norm_eps}, but this model can only "
                f"build {NORM_EPS}; give the weights of another CLIP."
            )
        vision: nn.Module = load_pretrained(CLIPVisionModel, source, attention="sdpa", config=own)
        return vision, _sized(config, "clip", own)
    vision = load_encoders(source)[0].vision_model
    if not isinstance(vision, SiglipVisionModel):
        raise CheckpointError(
            f"reader.pretrained is {source}, which is no CLIP or SigLIP; write one of these."
        )
    return vision, _sized(config, "siglip", vision.config)


def _describes_clip(source: str) -> bool:
    folder = Path(source) if Path(source).is_dir() else cached_folder(source, CONFIG_FILE)
    if folder is None or not (folder / CONFIG_FILE).is_file():
        return False
    return read_json(folder).get("model_type") in ("clip", "clip_vision_model")


def _sized(config: ReaderConfig, kind: Literal["clip", "siglip"], found: Any) -> ReaderConfig:
    return replace(
        config,
        kind=kind,
        image_size=found.image_size,
        patch_size=found.patch_size,
        hidden_size=found.hidden_size,
        num_layers=found.num_hidden_layers,
        num_heads=found.num_attention_heads,
        mlp_size=found.intermediate_size,
        activation=found.hidden_act,
    )


def check_layer(config: ReaderConfig) -> None:
    """Raise ``ConfigError`` for a layer that the encoder does not have."""
    if not -config.num_layers - 1 <= config.layer <= config.num_layers:
        raise ConfigError(
            f"reader.layer is {config.layer}, but the encoder has {config.num_layers} layers; write -2, the last but "
            "one, or another."
        )
