"""Training of the two small networks that measure the drawn world: the scene judge and the feature
network."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from vilau.errors import DataError
from vilau.layers.detector import SceneDetector
from vilau.layers.scene_record import scene_agreement, scene_record
from vilau.layers.spoiling import degrade
from vilau.types import ImageTextBatch


class SceneDetectorTraining(pl.LightningModule):
    """Train a `SceneDetector` on `ImageTextBatch` with ground-truth scenes.

    Args:
        attributes: for each attribute of a thing its possible values; must be the drawn world's
            own.
        backgrounds: the possible backgrounds.
        image_size: side of the pictures.
        channels: widths of the three stages; the last is the feature width.
        augment: True for the judge, which must read spoilt pictures too; False for the feature
            network of the Frechet distance, which must notice that they are spoilt.
        learning_rate: peak of the one-cycle schedule.
        weight_decay: of AdamW.
        trained_on: kept in ``config.json``, e.g. the drawn world's version.
    """

    def __init__(
        self,
        attributes: dict[str, list[str]],
        backgrounds: list[str],
        image_size: int = 64,
        channels: tuple[int, int, int] = (24, 48, 64),
        augment: bool = True,
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-3,
        trained_on: str = "",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.detector = SceneDetector(
            attributes=attributes,
            backgrounds=backgrounds,
            image_size=image_size,
            channels=channels,
            trained_on=trained_on,
        )
        # Convolutions of this size run 1.6 times faster on the CPU with channels last.
        self.detector.to(memory_format=torch.channels_last)
        self.augment = augment
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay

    def training_step(self, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """Return the detection loss of one batch."""
        pixels = self.detector.prepare(batch.images)
        if self.augment:
            pixels = degrade(pixels)
        targets = self.detector.targets_from_scenes(_scenes_of(batch))
        found = self.detector(pixels.contiguous(memory_format=torch.channels_last))
        loss = self.detector.loss(found, targets)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.images))
        return loss

    def validation_step(self, batch: ImageTextBatch, batch_idx: int) -> None:
        """Log ``val/scene_exact``, ``val/full_exact``, ``val/count`` and one accuracy per
        attribute."""
        names = list(self.detector.attributes)
        found = self.detector.scenes(batch.images)
        agreements = [
            scene_agreement(one, truth, names)
            for one, truth in zip(found, _scenes_of(batch), strict=True)
        ]
        for name in agreements[0]:
            mean = sum(one[name] for one in agreements) / len(agreements)
            self.log(f"val/{name}", mean, batch_size=len(agreements), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW under one cycle over the whole run."""
        optimizer = torch.optim.AdamW(
            self.detector.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=int(self.trainer.estimated_stepping_batches)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def export(self, folder: str) -> None:
        """Write ``config.json`` and ``model.safetensors`` into ``folder`` (rank 0)."""
        if self.global_rank == 0:
            self.detector.save(folder)


def _scenes_of(batch: ImageTextBatch) -> list[dict[str, Any]]:
    if len(batch.scenes) != len(batch.images):
        raise DataError(
            f"A batch of {len(batch.images)} images came with {len(batch.scenes)} ground-truth "
            "scenes; "
            "train a detector on drawn-world data (data.path: world)."
        )
    return [scene_record(scene) for scene in batch.scenes]
