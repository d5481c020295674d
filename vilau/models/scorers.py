"""Networks of others that say how well a picture and a text agree: what drawings are scored with.

Each embeds uint8 images and texts as unit vectors of one space (``vilau.types.EmbedsPairs``).
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoImageProcessor, CLIPModel

from vilau.errors import CheckpointError
from vilau.layers.pixels import to_float
from vilau.models.encoders.load import load_encoders
from vilau.models.hub_cache import cached_folder
from vilau.models.pretrained import load_pretrained
from vilau.models.siglip import TextInputs
from vilau.models.sizes import WORLD_SIGLIP
from vilau.models.storage import CONFIG_FILE, building_on_meta
from vilau.models.tokenizers import load_tokenizer
from vilau.models.weight_files import WEIGHTS_FILE

PROCESSOR_FILE = "preprocessor_config.json"


class ClipScorer(nn.Module):
    """A CLIP (Radford et al. 2021) from transformers, with the folder's own preparation of images and texts.

    Texts longer than CLIP reads lose their last words, not their end token.

    Args:
        source: a folder as transformers writes it, or a hub name in the local cache; nothing is fetched.
            Published scores name theirs: ``openai/clip-vit-large-patch14``, ``openai/clip-vit-base-patch16``, ...

    Raises:
        CheckpointError: weights, tokenizer or image preparation are not there, or broken.
    """

    kind = "clip"

    def __init__(self, source: str = "openai/clip-vit-large-patch14") -> None:
        super().__init__()
        self.name, place = "CLIP", _place(source)
        self.model = load_pretrained(CLIPModel, place, attention="sdpa")
        self.model.requires_grad_(requires_grad=False).eval()
        text: Any = self.model.config.text_config
        self._length = int(text.max_position_embeddings)
        self._words: Any = None
        self._prepare: Any = None
        if not building_on_meta():
            self._words = load_tokenizer(place)
            self._prepare = _image_preparation(place)
        self.preparation = (
            f"images as {PROCESSOR_FILE} says, texts of at most {self._length} tokens"
        )

    @torch.no_grad()
    def image_features(self, images: Tensor) -> Tensor:
        """Take uint8 ``(B, 3, H, W)``, return normalised features ``(B, C)``, float32."""
        pixels = self._prepare(images=list(images.cpu()), return_tensors="pt")["pixel_values"]
        seen = self.model.vision_model(pixel_values=pixels.to(images.device)).pooler_output
        return F.normalize(self.model.visual_projection(seen).float(), dim=-1)

    @torch.no_grad()
    def text_features(self, texts: list[str]) -> Tensor:
        """Return normalised features ``(len(texts), C)``, float32."""
        words = self._words(
            texts, padding=True, truncation=True, max_length=self._length, return_tensors="pt"
        ).to(self.model.device)
        read = self.model.text_model(words["input_ids"], words["attention_mask"]).pooler_output
        return F.normalize(self.model.text_projection(read).float(), dim=-1)


class SiglipScorer(nn.Module):
    """A SigLIP: the drawn world's own, which ships with vilau, or any that a tower can start from.

    Args:
        source: ``world-siglip``, a folder, or a hub name.

    Raises:
        CheckpointError: it is nowhere to be found, or broken.
    """

    kind = "siglip"

    def __init__(self, source: str = WORLD_SIGLIP) -> None:
        super().__init__()
        self.name = WORLD_SIGLIP if source == WORLD_SIGLIP else "SigLIP"
        self.model, sizes = load_encoders(source)
        self.model.requires_grad_(requires_grad=False).eval()
        self.side, self._text_inputs = sizes.image_size, TextInputs(sizes)
        self.preparation = (
            f"whole images, no crop, to {self.side} by antialiased bilinear resize, texts of at most "
            f"{sizes.text_length} tokens"
        )

    @torch.no_grad()
    def image_features(self, images: Tensor) -> Tensor:
        """Take uint8 ``(B, 3, H, W)``, return normalised features ``(B, C)``, float32."""
        pixels = to_float(images)
        if images.shape[-2:] != (self.side, self.side):
            size = (self.side, self.side)
            pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True)
        vision = self.model.vision_model
        hidden = vision.embeddings(pixels)
        for block in vision.encoder.layers:
            hidden = block(hidden, attention_mask=None)
        return F.normalize(vision.head(vision.post_layernorm(hidden)).float(), dim=-1)

    @torch.no_grad()
    def text_features(self, texts: list[str]) -> Tensor:
        """Return normalised features ``(len(texts), C)``, float32."""
        ids = self._text_inputs(texts, self.model.logit_scale.device)
        return F.normalize(self.model.text_model(input_ids=ids).pooler_output.float(), dim=-1)


def _place(source: str) -> str:
    """Return the folder of a CLIP, given or in the hub cache."""
    folder = Path(source) if Path(source).is_dir() else cached_folder(source, CONFIG_FILE)
    if folder is None:
        raise CheckpointError(
            f"The CLIP of the CLIP score is missing: {source} is neither a folder nor in the hub cache; put its "
            f"{CONFIG_FILE}, {WEIGHTS_FILE}, {PROCESSOR_FILE} and tokenizer files into a folder and write that as "
            "ClipScorer.source, or measure drawn scenes with what ships with vilau: the callback GenerationJudge, "
            f"or the scorer SiglipScorer with source: {WORLD_SIGLIP}."
        )
    return str(folder)


def _image_preparation(place: str) -> Any:
    try:
        return AutoImageProcessor.from_pretrained(place, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{place} does not say how its CLIP wants images ({reason}); put CLIP's {PROCESSOR_FILE} there."
        ) from None
