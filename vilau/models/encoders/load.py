"""Opening encoders by what a config calls them: SigLIPs of ours, transformers', open_clip's, timm's; any timm ViT."""

from pathlib import Path

import torch
from transformers import SiglipModel

from vilau.errors import CheckpointError, ConfigError
from vilau.models.encoders.names import (
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_FILES,
    RANDOM,
    TimmSource,
    known_sizes,
    timm_source,
)
from vilau.models.encoders.positions import check_divides
from vilau.models.encoders.weights import Weights, build_encoders, random_text
from vilau.models.hub_cache import cached_folder
from vilau.models.siglip import KIND, pretrained_siglip
from vilau.models.sizes import PUBLISHED_SIGLIPS, WORLD_SIGLIP, SiglipSizes, text_for
from vilau.models.storage import (
    CONFIG_FILE,
    building_on_meta,
    fitting_config,
    load_weights,
    read_config,
    read_json,
)
from vilau.models.tokenizers import asset

Encoders = tuple[SiglipModel, SiglipSizes]


def load_encoders(
    source: str,
    *,
    text: str | None = None,
    text_sizes: SiglipSizes | None = None,
    image_size: int | None = None,
    logit_bias: float = -10.0,
) -> Encoders:
    """Load an image and a text encoder.

    Args:
        source: ``world-siglip``; a folder of ours, of transformers' or of open_clip's layout; a file of
            open_clip's with its config beside it; a hub name; ``timm/<name>`` for the image encoder of that name
            from a local cache, or ``timm/<name>:<file>``.
        text: where the text tower comes from, if not from ``source``: another source, or ``random``.
        text_sizes: those of a random text tower; None: as wide and deep as the image encoder.
        image_size: pixels per side, if not what ``source`` was made for: its positions are interpolated.
        logit_bias: where the bias starts beside a random text tower.

    Returns:
        The encoders and their sizes. What is no SigLIP has the parts of one (see ``build_encoders``).

    Raises:
        CheckpointError: weights that are nowhere to be found, broken or another model's.
        ConfigError: an image encoder without a text tower, or an image size that patches do not divide.
    """
    weights = _read(source)
    if weights is None:
        model, sizes = _load_siglip(source)
        if text is None and image_size in (None, sizes.image_size):
            return model, sizes
        weights = Weights(sizes, _values(model), source)
    if text == RANDOM:
        wanted = text_for(weights.sizes, text_sizes)
        weights = weights.with_text(random_text(wanted, logit_bias=logit_bias))
    elif text is not None:
        weights = weights.with_text(_text(text))
    if not weights.has_text:
        raise ConfigError(
            f"model.pretrained {source} encodes images alone; write start.text: the SigLIP whose text tower is to "
            "be aligned with it, or start.text: random."
        )
    if image_size not in (None, weights.sizes.image_size):
        check_divides(image_size, weights.sizes)
        weights = weights.resized(image_size)
    return weights.build(), weights.sizes


def resized_encoders(model: SiglipModel, sizes: SiglipSizes, image_size: int) -> Encoders:
    """Return the same encoders for images of another size; see ``load_encoders``."""
    if image_size == sizes.image_size:
        return model, sizes
    check_divides(image_size, sizes)
    weights = Weights(sizes, _values(model), "the checkpoint").resized(image_size)
    return weights.build(), weights.sizes


def _values(model: SiglipModel) -> dict[str, torch.Tensor]:
    return {} if building_on_meta() else model.state_dict()


def _text(source: str) -> Weights:
    """Return the encoders that a text tower is taken from."""
    weights = _read(source)
    if weights is None:
        model, sizes = _load_siglip(source)
        weights = Weights(sizes, _values(model), source)
    if not weights.has_text:
        raise ConfigError(
            f"start.text {source} encodes images alone; write a SigLIP with a text tower, or start.text: random."
        )
    return weights


# ---------------------------------------------------------------------- SigLIPs of ours and of transformers'


def _load_siglip(source: str) -> Encoders:
    folder = asset(source) if source == WORLD_SIGLIP else Path(source)
    if not (folder / CONFIG_FILE).is_file() or "model_type" in read_json(folder):
        return pretrained_siglip(source)
    with fitting_config(folder):
        sizes = SiglipSizes(**read_config(folder, KIND)["sizes"])
    model = build_encoders(sizes)
    load_weights(model, folder)
    return model, sizes


# ---------------------------------------------------------------------- all others


def _read(source: str) -> Weights | None:
    """Return what is no SigLIP of ours or of transformers'; None for these."""
    if source == WORLD_SIGLIP or source in PUBLISHED_SIGLIPS:
        return None
    named = timm_source(source)
    if named is not None:
        return _read_timm(named)
    path = Path(source)
    known = None if path.exists() else known_sizes(source)
    if known is not None and building_on_meta():
        return Weights(known, {}, source)
    file = path if path.is_file() else _open_clip_file(source)
    if file is not None:
        # timm takes a second to import, for few models
        from vilau.models.encoders.open_clip import read_open_clip

        return read_open_clip(file, tokenizer=str(path.parent) if path.is_file() else source)
    if known is not None:
        raise CheckpointError(
            f"the SigLIP {source} is not in the hub cache; download {OPEN_CLIP_FILES[0]}, {OPEN_CLIP_CONFIG} and "
            "its tokenizer's files on a machine with a network, put them into one folder and give that folder."
        )
    return None


def _open_clip_file(source: str) -> Path | None:
    """Return the weights in open_clip's layout of a folder or of a hub name in the cache."""
    folder = Path(source) if Path(source).is_dir() else cached_folder(source, *OPEN_CLIP_FILES)
    places = [] if folder is None else [folder / name for name in OPEN_CLIP_FILES]
    return next((place for place in places if place.is_file()), None)


def _read_timm(source: TimmSource) -> Weights:
    # timm takes a second to import, for few models
    from vilau.models.encoders.open_clip import read_text
    from vilau.models.encoders.timm_vit import read_timm

    image, rest = read_timm(source)
    file = Path(image.source)
    text = read_text(rest, file, tokenizer=str(file.parent))
    return image if text is None else image.with_text(text)
