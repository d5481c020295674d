"""Reading Chameleon's VQGAN (``vqgan.ckpt``), the image tokenizer of the published Liquid (reference B1)."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vilau.models.liquid.config import TokenizerConfig
from vilau.models.liquid.tokenizer import VQGAN
from vilau.models.taming import CODES, attended_levels, held, own_state, sizes

IMAGE_SIZE = 512
LOSSES = "loss."
"""What it was trained with, which stands in the same file."""


def from_published(
    published: Mapping[str, Tensor],
    source: Path,
    *,
    image_size: int | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> VQGAN:
    """Build the tokenizer from the tensors of its file, whose shapes tell its sizes, for images of ``image_size``.

    Raises ``CheckpointError`` where they do not fit one another, ``ConfigError`` for a size that cannot be halved
    so often.
    """
    found = {name: tensor for name, tensor in published.items() if not name.startswith(LOSSES)}
    config = TokenizerConfig(
        image_size=IMAGE_SIZE if image_size is None else image_size,
        z_channels=len(held(found, "encoder.conv_out.weight", source)),
        **sizes(found, source),
    )
    finest = len(config.multipliers) - 1
    config.attention_grids = tuple(config.grid * 2 ** (finest - n) for n in attended_levels(found))
    state = own_state(found, source)
    state["quantizer.codebook.weight"] = state.pop(CODES)
    state["quantizer.codebook.cluster_size_ema"] = torch.zeros(config.codebook_size)
    tokenizer = VQGAN.unfilled(config)
    return tokenizer.fill_from(state, source, device=device, dtype=dtype)
