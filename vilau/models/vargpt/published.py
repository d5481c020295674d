"""Reading VAR's multi-scale VQ-VAE (``vae_ch160v4096z32.pth``), VARGPT's image tokenizer (reference A1)."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vilau.errors import CheckpointError, ConfigError
from vilau.models.taming import CODES, own_state, sizes
from vilau.models.vargpt.config import SCALES, TokenizerConfig
from vilau.models.vargpt.tokenizer import MultiScaleVQVAE

IMAGE_SIZE = 256
REFINEMENT = "quantize.quant_resi.qresi_ls."
HITS = "quantize.ema_vocab_hit_SV"
"""How often each code was used in training: nothing that coding needs."""


def is_multi_scale(published: Mapping[str, Tensor]) -> bool:
    """Tell whether tensors are those of a tokenizer over scales."""
    return any(name.startswith(REFINEMENT) for name in published)


def from_published(
    published: Mapping[str, Tensor],
    source: Path,
    *,
    image_size: int | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> MultiScaleVQVAE:
    """Build the tokenizer from the tensors of its file, which serves images of 256, 512 and 1024 pixels alike.

    Raises ``CheckpointError`` where they do not fit one another, ``ConfigError`` for another ``image_size``.
    """
    size = IMAGE_SIZE if image_size is None else image_size
    if size not in SCALES:
        raise ConfigError(
            f"image_size is {size}; write {', '.join(map(str, SCALES))}, whose scales are published."
        )
    refinements = sorted(
        {
            name.removeprefix(REFINEMENT).split(".")[0]
            for name in published
            if name.startswith(REFINEMENT)
        }
    )
    facts = sizes(published, source)
    stride = 2 ** (len(facts["multipliers"]) - 1)
    if size // stride != SCALES[size][-1]:
        raise CheckpointError(
            f"{source} makes {size // stride} x {size // stride} cells of {size} pixels, where the published scales "
            f"end in {SCALES[size][-1]}; give the file of a tokenizer that halves images four times."
        )
    config = TokenizerConfig(
        image_size=size,
        scales=SCALES[size],
        num_refinements=len(refinements),
        **facts,
    )
    state = {
        name.replace(REFINEMENT, "quantizer.refinements."): tensor
        for name, tensor in own_state(published, source).items()
        if name != HITS
    }
    state["quantizer.codebook.weight"] = state.pop(CODES)
    state["quantizer.codebook.cluster_size_ema"] = torch.zeros(config.codebook_size)
    tokenizer = MultiScaleVQVAE.unfilled(config)
    return tokenizer.fill_from(state, source, device=device, dtype=dtype)
