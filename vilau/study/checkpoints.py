"""Checkpoints to resume from: written whole or not at all, and checked before they are trusted."""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_info

_NAME = re.compile(r"step=(\d+)\.ckpt")
_PARTIAL = ".partial"


class StepCheckpoints(Checkpoint):
    """Save every so many optimizer steps, after the last one, and when asked to stop (SIGTERM).

    Who asks is answered at the end of the step, on all ranks alike: gradients that are still being accumulated
    stand in no checkpoint. Lightning itself would leave after any batch, so its own handler is set aside.

    A checkpoint is written under a temporary name and renamed when complete, so a name that fits
    ``step=<n>.ckpt`` is never half a file. The callback's own state carries what Lightning forgets
    over a restart: the seconds trained so far and the last training metrics.

    Saving happens in ``on_train_batch_end``: a module that changes itself in its own hook of that
    name would be saved one change too early, so per-step state belongs into ``training_step`` or
    the optimizer hooks.

    Args:
        folder: where the checkpoints lie.
        every_n_steps: optimizer steps between two checkpoints, >= 1.
        keep: how many of the newest stay; two, so that a damaged newest one has a predecessor.
    """

    def __init__(self, folder: str, every_n_steps: int, keep: int = 2) -> None:
        self.folder = Path(folder)
        self.every_n_steps = every_n_steps
        self.keep = keep
        self.train_metrics: dict[str, float] = {}
        self._seconds_before = 0.0
        self._started_s = time.monotonic()
        self._saved_step = self._last_step = 0
        self._asked = False
        self._handler: Any = None

    @property
    def seconds(self) -> float:
        """Seconds of training, those before the last restart included."""
        return self._seconds_before + time.monotonic() - self._started_s

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers only: checkpoints are read with ``weights_only=True``."""
        return {"seconds": self.seconds, "train_metrics": self.train_metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the clock and the metrics of the run that is resumed."""
        self._seconds_before = float(state_dict["seconds"])
        self.train_metrics = dict(state_dict["train_metrics"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from the step that is resumed."""
        self._saved_step = self._last_step = trainer.global_step
        self._started_s = time.monotonic()
        self._asked = False
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGTERM, self._ask)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give Lightning's handler back."""
        if self._handler is not None:
            signal.signal(signal.SIGTERM, self._handler)
            self._handler = None

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give Lightning's handler back."""
        self.on_train_end(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Save if a checkpoint is due; several optimizers may raise the step by more than one.

        Raises:
            SIGTERMException: the run was asked to stop, and the checkpoint of this step is written.
        """
        step = trainer.global_step
        if step == self._last_step:
            return  # the step is not taken yet: more batches are gathered for it
        self._last_step = step
        due = step // self.every_n_steps > self._saved_step // self.every_n_steps
        last = step >= trainer.max_steps > 0
        asked = trainer.strategy.reduce_boolean_decision(self._asked, all=False)
        if due or last or asked:
            self.train_metrics = {
                name: float(value)
                for name, value in trainer.callback_metrics.items()
                if name.startswith("train/")
            }
            self.save(trainer)
        if asked and not last:
            raise SIGTERMException

    def _ask(self, *_: Any) -> None:
        self._asked = True

    def save(self, trainer: Trainer) -> None:
        """Write ``step=<n>.ckpt`` (a file, or a folder of a sharded strategy) and drop old ones."""
        self._saved_step = trainer.global_step
        final = self.folder / f"step={trainer.global_step:08d}.ckpt"
        partial = final.with_name(final.name + _PARTIAL)
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            _remove(partial)
        trainer.strategy.barrier("before checkpoint")
        trainer.save_checkpoint(partial)
        trainer.strategy.barrier("after checkpoint")
        if trainer.is_global_zero:
            _remove(final)
            os.replace(partial, final)
            prune(self.folder, self.keep)
        trainer.strategy.barrier("checkpoint in place")


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that can be read, telling of each one that cannot."""
    for path in reversed(_sorted(folder)):
        problem = _problem(path)
        if problem is None:
            return path
        rank_zero_info(f"{path} cannot be read ({problem}); an older one is used instead.")
    return None


def step_of(path: Path) -> int:
    """Return the optimizer step in a checkpoint's name."""
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` checkpoints, and every half-written one."""
    for path in _sorted(folder)[:-keep]:
        _remove(path)
    for path in folder.glob(f"*{_PARTIAL}"):
        _remove(path)


def _sorted(folder: Path) -> list[Path]:
    return sorted(
        (path for path in folder.glob("step=*.ckpt") if _NAME.fullmatch(path.name)), key=step_of
    )


def _problem(path: Path) -> str | None:
    """Return why a checkpoint cannot be used, or None. Reads its index, maps its tensors."""
    if path.is_dir():
        parts = (".metadata", "meta.pt")
        missing = [part for part in parts if not (path / part).exists()]
        return f"it lacks {missing[0]}" if missing else None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        return str(error).splitlines()[0].split(". ")[0]
    except Exception as error:  # noqa: BLE001 - UnpicklingError and whatever else broken bytes cause
        return type(error).__name__
    return None if "state_dict" in found else "it holds no state_dict"


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
