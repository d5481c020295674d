"""How fast training goes and how much memory it takes."""

import resource
import sys
import time
from typing import Any

import lightning.pytorch as pl
import torch

from vilau.errors import ConfigError
from vilau.types import MultimodalBatch


class Throughput(pl.Callback):
    """Logs ``train/samples_per_s`` (over all ranks), ``train/step_time_s`` and
    ``train/peak_memory_gb`` (of rank 0's device, or of its process on the CPU).

    Rates are means over the optimiser steps since the last report; validation does not count.

    Args:
        every_n_steps: how often to report.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        if every_n_steps < 1:
            raise ConfigError(f"Throughput.every_n_steps is {every_n_steps}; write 1 or more.")
        self.every_n_steps = every_n_steps
        self.samples = 0
        self.seconds = 0.0
        self.first_step = 0
        self.started_s = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start counting at the present step (a resumed run does not start at zero)."""
        self._restart(trainer)
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock."""
        self.started_s = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Stop the clock, and report now and then."""
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        self.seconds += time.perf_counter() - self.started_s
        self.samples += _num_samples(batch)
        steps = trainer.global_step - self.first_step
        if steps < self.every_n_steps:
            return
        values = {
            "train/samples_per_s": self.samples * trainer.world_size / self.seconds,
            "train/step_time_s": self.seconds / steps,
            "train/peak_memory_gb": peak_memory_gb(pl_module.device),
        }
        for name, value in values.items():
            pl_module.log(name, value, rank_zero_only=True)
        self._restart(trainer)

    def _restart(self, trainer: pl.Trainer) -> None:
        self.samples, self.seconds, self.first_step = 0, 0.0, trainer.global_step


def peak_memory_gb(device: torch.device) -> float:
    """Return the peak memory of a CUDA device's tensors, or of this process, in GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts in bytes, Linux in KiB.
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20


def _num_samples(batch: Any) -> int:
    if isinstance(batch, MultimodalBatch):
        return len(batch.documents)
    images = getattr(batch, "images", None)
    return 0 if images is None else len(images)
