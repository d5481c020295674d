"""Randomness that depends on the step alone, so that a resumed run equals an uninterrupted one."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class StepSeed(Callback):
    """Seed torch, numpy and random at the start of every batch from (seed, step, rank).

    No random state has to be saved or restored: whatever a step draws follows from its number.
    Validation and test batches are seeded in the same way, under their own names, so a
    measurement does not depend on what ran before it.

    Args:
        seed: the run's seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed a training batch; the parts of one accumulated step get different seeds."""
        part = batch_idx % trainer.accumulate_grad_batches
        seed_all(step_seed(self.seed, "train", trainer.global_step, part, trainer.global_rank))

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Seed a validation batch from the step measured and the batch's place."""
        self._seed_evaluation("validation", trainer, batch_idx, dataloader_idx)

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Seed a test batch from its place."""
        self._seed_evaluation("test", trainer, batch_idx, dataloader_idx)

    def on_predict_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Seed a prediction batch from its place."""
        self._seed_evaluation("predict", trainer, batch_idx, dataloader_idx)

    def _seed_evaluation(
        self, name: str, trainer: Trainer, batch_idx: int, dataloader_idx: int
    ) -> None:
        place = (trainer.global_step, dataloader_idx, batch_idx, trainer.global_rank)
        seed_all(step_seed(self.seed, name, *place))


def step_seed(seed: int, name: str, *numbers: int) -> int:
    """Return a 63-bit seed: the same on every machine, unrelated for neighbouring numbers."""
    text = ",".join([name, str(seed), *map(str, numbers)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def seed_all(seed: int) -> None:
    """Seed torch (every device), numpy and random."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
