"""Live progress of one run in a small file, for whoever watches from outside."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class ProgressFile(Callback):
    """Write ``status.json``: phase, step, max_steps, loss, steps_per_second; at most once a second.

    Args:
        path: the file, replaced whole each time.
        every_s: shortest time between two writes, in seconds.
    """

    def __init__(self, path: str, every_s: float = 1.0) -> None:
        self.path = Path(path)
        self.every_s = every_s
        self._written_s = 0.0
        self._loss: float | None = None
        self._speed = _Speed()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock at the step that is resumed."""
        self._speed = _Speed(trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Note the step; the loss is fetched from the device only when it is written."""
        if not self._due(trainer, last=trainer.global_step >= trainer.max_steps > 0):
            return
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor):
            self._loss = float(loss)
        self._write("train", trainer.global_step, trainer.max_steps)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say that a measurement runs."""
        self._speed.pause()
        if trainer.is_global_zero and not trainer.sanity_checking:
            self._write("validate", trainer.global_step, trainer.max_steps)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the clock run on."""
        self._speed.go_on()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of a test run."""
        self._speed = _Speed()

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Note the batch, counted over all test loaders."""
        sizes = trainer.num_test_batches
        if self._due(trainer, last=False):
            done = sum(int(size) for size in sizes[:dataloader_idx]) + batch_idx + 1
            total = sum(sizes)
            self._write("test", done, int(total) if total != float("inf") else 0)

    def _due(self, trainer: Trainer, *, last: bool) -> bool:
        late = time.monotonic() - self._written_s >= self.every_s
        return trainer.is_global_zero and (late or last)

    def _write(self, phase: str, step: int, max_steps: int) -> None:
        self._written_s = time.monotonic()
        status = {
            "phase": phase,
            "step": step,
            "max_steps": max_steps,
            "loss": self._loss,
            "steps_per_second": self._speed.at(step),
        }
        temporary = self.path.with_name(f".{self.path.name}.partial")
        temporary.write_text(json.dumps(status))
        os.replace(temporary, self.path)


class _Speed:
    """Steps per second since the start, measurements in between left out."""

    def __init__(self, first_step: int = 0) -> None:
        self._first_step = first_step
        self._started_s = time.monotonic()
        self._paused_s: float | None = None

    def pause(self) -> None:
        self._paused_s = time.monotonic()

    def go_on(self) -> None:
        if self._paused_s is not None:
            self._started_s += time.monotonic() - self._paused_s
        self._paused_s = None

    def at(self, step: int) -> float:
        now_s = time.monotonic() if self._paused_s is None else self._paused_s
        return max(0, step - self._first_step) / max(now_s - self._started_s, 1e-6)
