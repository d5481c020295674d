"""Names that SigLIPs go by outside transformers, and the sizes they tell: free of torch, for planning too."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from vilau.models.sizes import PUBLISHED_SIGLIPS, SiglipSizes

RANDOM = "random"
"""A text tower of new weights."""
OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_FAMILIES = {
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "so400m": (1152, 27, 16, 4304),
    "giantopt": (1536, 40, 16, 6144),
}
"""Width, blocks, heads and MLP of the image encoders."""
_OPEN_CLIP = {"B": "base", "L": "large", "SO400M": "so400m", "gopt": "giantopt"}
_WORDS = {"": 32000, "-i18n": 250000, "2": 256000}


@dataclass(frozen=True)
class TimmSource:
    """``timm/<name>``, or ``timm/<name>:<file>`` for weights that lie elsewhere than in a cache."""

    name: str
    """With or without the tag of its weights: ``vit_base_patch16_siglip_224.webli``."""
    file: Path | None = None


def timm_source(source: str) -> TimmSource | None:
    """Return what ``timm/<name>`` or ``timm/<name>:<file>`` says; None for any other source."""
    found = re.fullmatch(r"timm/([a-z]\w*(?:\.\w+)?)(?::(.+))?", source)
    if found is None or Path(source).exists():
        return None
    return TimmSource(found[1], Path(found[2]) if found[2] else None)


def known_sizes(source: str) -> SiglipSizes | None:
    """Return the sizes that a hub name or a timm name of a SigLIP stands for; None for other names.

    A timm name is that of an image encoder: its text tower's sizes are the image encoder's.
    """
    if Path(source).exists():
        return None
    if source in PUBLISHED_SIGLIPS:
        return replace(PUBLISHED_SIGLIPS[source])
    if found := re.fullmatch(
        r"timm/vit_(base|large|so400m|giantopt)_patch(\d+)_siglip_(\d+)(\.\w+)?(:.+)?", source
    ):
        return _family(found[1], int(found[2]), int(found[3]))
    if found := re.fullmatch(
        r"timm/ViT-(B|L|SO400M|gopt)-(\d+)-SigLIP(2|-i18n|)(?:-(\d+))?", source
    ):
        sizes = _family(_OPEN_CLIP[found[1]], int(found[2]), int(found[4] or 224))
        sizes = replace(sizes, vocab_size=_WORDS[found[3]], tokenizer=source)
        return _giant_text(sizes) if found[1] == "gopt" else sizes
    return None


def _family(name: str, patch: int, image_size: int) -> SiglipSizes:
    width, blocks, heads, mlp = _FAMILIES[name]
    return SiglipSizes(
        image_size=image_size,
        patch_size=patch,
        hidden_size=width,
        num_layers=blocks,
        num_heads=heads,
        mlp_size=mlp,
        text_layers=blocks,
        text_heads=heads,
        text_mlp_size=mlp,
    )


def _giant_text(sizes: SiglipSizes) -> SiglipSizes:
    """The giant's text tower is that of so400m."""
    width, blocks, heads, mlp = _FAMILIES["so400m"]
    return replace(
        sizes, text_hidden_size=width, text_layers=blocks, text_heads=heads, text_mlp_size=mlp
    )
