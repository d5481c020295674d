"""Opening finished models: ``vilau.load`` and ``vilau.load_tower``."""

from pathlib import Path

import torch

from vilau.models.interface import UnifiedModel
from vilau.models.vila_u.model import VilaU
from vilau.models.vila_u.tower import VisionTower


def load(
    path: str | Path, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> UnifiedModel:
    """Load a unified model from the ``model`` folder of a pretraining or fine-tuning run.

    Args:
        path: the folder, holding ``config.json`` and ``model.safetensors``.
        device: where to put it; default: the CPU.
        dtype: number format of the weights; default: as stored.

    Raises:
        CheckpointError: the folder is missing, broken, or holds something else.
    """
    return VilaU.load(path).eval().to(device=device, dtype=dtype)


def load_tower(
    path: str | Path, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> VisionTower:
    """Load a vision tower from the ``model`` folder of a tower-training run; see ``load``."""
    return VisionTower.load(path).eval().to(device=device, dtype=dtype)
