"""An encoder on its way from a file to a model: sizes, and tensors under the names of ``SiglipModel``."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import SiglipModel, SiglipTextModel

from vilau.errors import CheckpointError
from vilau.models.encoders.positions import resized_positions
from vilau.models.siglip import build_siglip, transformers_config
from vilau.models.sizes import SIGLIP, SiglipSizes, with_text
from vilau.models.storage import building_on_meta
from vilau.models.weight_files import Unfilled, check_fit, fill

TEXT_PARTS = ("text_model.", "logit_scale", "logit_bias")
LOGIT_SCALE = 2.3026
POSITIONS = (
    "vision_model.embeddings.position_embedding.weight",  # SigLIP
    "vision_model.embeddings.pos_embed",  # timm
)


def build_encoders(sizes: SiglipSizes, *, logit_bias: float = -10.0) -> SiglipModel:
    """Build randomly initialised encoders: SigLIP's, or another ViT's parts under the same names.

    The other one is typed as SigLIP, too: what is used of either are ``text_model``, ``logit_scale``,
    ``logit_bias``, ``set_attn_implementation`` and ``vision_model``'s ``embeddings``, ``encoder.layers``,
    ``post_layernorm`` and ``head``.
    """
    if sizes.vision == SIGLIP:
        return build_siglip(sizes, logit_bias=logit_bias)
    from vilau.models.encoders.vit import ViTSiglip  # timm takes a second to import, for few models

    return ViTSiglip(sizes, logit_bias=logit_bias)  # type: ignore[return-value]


@dataclass
class Weights:
    """Sizes and tensors; on the meta device the sizes alone count."""

    sizes: SiglipSizes
    tensors: dict[str, Tensor]
    source: str
    """As a message names it."""
    has_text: bool = True

    def with_text(self, other: "Weights") -> "Weights":
        """Return this image encoder beside another's text tower, scale and bias.

        Raises ``CheckpointError`` where the one's features cannot be compared with the other's.
        """
        width = other.sizes.embed_width
        if self.sizes.vision == SIGLIP and width != self.sizes.hidden_size:
            raise CheckpointError(
                f"the text features of {other.source} are {width} wide, but the image features of {self.source} "
                f"{self.sizes.hidden_size}; write a start.text of that width, or start.text: random."
            )
        sizes = with_text(self.sizes, other.sizes)
        own = {k: v for k, v in self.tensors.items() if not k.startswith(TEXT_PARTS)}
        text = {k: v for k, v in other.tensors.items() if k.startswith(TEXT_PARTS)}
        return Weights(sizes, own | text | _projection(sizes), self.source)

    def resized(self, image_size: int) -> "Weights":
        """Return the encoder for images of another size: the same weights, positions interpolated."""
        sizes = replace(self.sizes, image_size=image_size)
        tensors = dict(self.tensors)
        for name in POSITIONS:
            if name in tensors:
                old = tensors[name]
                rows = resized_positions(
                    old.reshape(-1, old.shape[-1]), old_grid=self.sizes.grid, grid=sizes.grid
                )
                tensors[name] = rows.reshape(*old.shape[:-2], *rows.shape)
        return Weights(sizes, tensors, self.source, self.has_text)

    def build(self) -> SiglipModel:
        """Build the encoders and fill them, in float32.

        Raises ``CheckpointError`` for tensors that are missing, too many, or of another shape.
        """
        if building_on_meta():
            return build_encoders(self.sizes)
        with Unfilled():
            model = build_encoders(self.sizes)
        check_fit(model, self.tensors, Path(self.source))
        fill(model, self.tensors, dtype=torch.float32)
        return model


def _projection(sizes: SiglipSizes) -> dict[str, Tensor]:
    """Return the new linear map to the width of the texts, where a ViT needs one."""
    if building_on_meta() or sizes.embed_width == sizes.hidden_size:
        return {}
    new = nn.Linear(sizes.hidden_size, sizes.embed_width)
    name = "vision_model.head.projection."
    return {f"{name}weight": new.weight.detach(), f"{name}bias": new.bias.detach()}


def random_text(sizes: SiglipSizes, *, logit_bias: float) -> Weights:
    """Return a text tower of new weights."""
    tensors: dict[str, Tensor] = {}
    if not building_on_meta():
        config: Any = transformers_config(sizes).text_config
        text = SiglipTextModel(config)
        tensors = {f"text_model.{name}": value for name, value in text.state_dict().items()}
        tensors["logit_scale"] = torch.tensor([LOGIT_SCALE])
        tensors["logit_bias"] = torch.tensor([logit_bias])
    return Weights(sizes, tensors, "a random text tower")
