"""What a run would measure with the averages of its weights, beside what it measures with the weights."""

from dataclasses import replace
from typing import Any

import lightning.pytorch as pl

from vilau.callbacks.measuring import MeasuringCallback
from vilau.errors import ConfigError
from vilau.types import Averages, Passport

AVERAGED = "averaged weights"


class AveragedWeights(pl.Callback):
    """Repeats validations with averaged weights: ``val/ema/rfid`` beside ``val/rfid``, and so on.

    Every batch goes through the model a second time with the averages in the weights' place; the losses of
    the step are logged as ``val/ema/<name>_loss``. Tests and ``validate`` alone measure the weights as they are.

    Args:
        callbacks: what to measure with, each a callback that measures (``ReconstructionFID``, ``ZeroShot``, ...),
            other instances than those that measure the weights themselves.
    """

    def __init__(self, callbacks: list[MeasuringCallback] | None = None) -> None:
        self.callbacks = list(callbacks or [])

    @property
    def passports(self) -> dict[str, Passport]:
        """What each metric measured, by metric name."""
        return {
            name: replace(passport, details=", ".join(filter(None, [passport.details, AVERAGED])))
            for callback in self.callbacks
            for name, passport in callback.passports.items()
        }

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse a model without averages, and let the callbacks prepare."""
        if not isinstance(pl_module, Averages) or not pl_module.keeps_average:
            raise ConfigError(
                "trainer.callbacks holds AveragedWeights, but the model keeps no average; write model.average: "
                "{decay: 0.9999}, or take the callback out."
            )
        for callback in self.callbacks:
            callback.setup(trainer, pl_module, stage)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin a round."""
        for callback in self.callbacks:
            callback.on_validation_epoch_start(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure a batch again."""
        if trainer.sanity_checking:
            return
        assert isinstance(pl_module, Averages)
        with pl_module.averaged_weights():
            with trainer.strategy.precision_plugin.val_step_context():
                outputs, losses = pl_module.measure(batch)
            for callback in self.callbacks:
                callback.on_validation_batch_end(
                    trainer, pl_module, outputs, batch, batch_idx, dataloader_idx
                )
        pl_module.log_dict(
            {f"val/ema/{name}_loss": value for name, value in losses.items()},
            batch_size=len(batch.images),
            add_dataloader_idx=False,
            sync_dist=True,
        )

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report."""
        if not trainer.sanity_checking:
            for callback in self.callbacks:
                callback.report_as(trainer, pl_module, "val/ema")
