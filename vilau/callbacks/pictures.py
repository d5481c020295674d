"""Where pictures for people go: TensorBoard and PNG files of a run."""

from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torch import Tensor


def show(trainer: pl.Trainer, name: str, picture: Tensor) -> None:
    """Log a uint8 picture ``(3, H, W)`` to TensorBoard as ``name`` and save it as PNG (rank 0).

    The file is ``<default_root_dir>/images/<name with dashes>-step<step>.png``.
    """
    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, picture, trainer.global_step)
    folder = Path(trainer.default_root_dir) / "images"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name.replace('/', '-')}-step{trainer.global_step:07d}.png"
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(file)
