"""The common shape of callbacks that measure: gather over batches, report once, say what was
measured.
"""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from vilau.errors import DataError
from vilau.types import DrawingOutput, Passport, PromptBatch


def drawn_for(benchmark: str, outputs: Any, batch: Any) -> bool:
    """Whether a batch holds prompts of the twin ``benchmark``, and the module's step drew them."""
    ours = isinstance(batch, PromptBatch) and batch.benchmark == benchmark
    return ours and isinstance(outputs, DrawingOutput)


class MeasuringCallback(pl.Callback):
    """Gathers over the batches of a validation or a test and reports at its end.

    Subclasses fill `begin`, `observe` and `finish`; Lightning's sanity check before training is
    passed over. Nothing is reported if no batch was of the kind that the subclass measures. Every
    rank must come to the same calls of `report` in the same order.
    """

    def __init__(self) -> None:
        self.passports: dict[str, Passport] = {}
        """What each metric measured, by metric name."""
        self.seen = False

    # ------------------------------------------------------------------ for subclasses

    def begin(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the last round."""

    def observe(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any
    ) -> bool:
        """Take in one batch and what the module's step made of it; say whether it was of use."""
        return False

    def finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        """Report under ``val/`` or ``test/``, whichever ``split`` says."""

    def report(
        self,
        pl_module: pl.LightningModule,
        name: str,
        value: float | Tensor,
        passport: Passport,
        *,
        prog_bar: bool = False,
    ) -> None:
        """Log a value that is the same on all ranks, and keep its passport."""
        scalar = torch.as_tensor(value, dtype=torch.float32, device=pl_module.device)
        # The mean over equal values is that value; Lightning would warn about an unsynced one.
        pl_module.log(name, scalar, prog_bar=prog_bar, sync_dist=pl_module.trainer.world_size > 1)
        self.passports[name] = passport

    # ------------------------------------------------------------------ Lightning's hooks

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin a round."""
        if not trainer.sanity_checking:
            self.seen = False
            self.begin(trainer, pl_module)

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin a round."""
        self.seen = False
        self.begin(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take in a batch."""
        if not trainer.sanity_checking:
            self.seen |= self.observe(trainer, pl_module, outputs, batch)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take in a batch."""
        self.seen |= self.observe(trainer, pl_module, outputs, batch)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report."""
        if not trainer.sanity_checking:
            self._finish(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report."""
        self._finish(trainer, pl_module, "test")

    def report_as(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        """Report under ``split``, for a callback that measures with this one."""
        self._finish(trainer, pl_module, split)

    def _finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        anyone = trainer.strategy.reduce_boolean_decision(self.seen, all=False)
        everyone = trainer.strategy.reduce_boolean_decision(self.seen, all=True)
        if anyone and not everyone:
            raise DataError(
                f"{type(self).__name__} saw no {split} batch on some of {trainer.world_size} "
                "ranks; "
                "give every rank a batch: use a larger set, smaller batches or fewer devices."
            )
        if anyone:
            self.finish(trainer, pl_module, split)
