"""Whether the codebook is alive: usage, perplexity and what is left of the features, per depth."""

from typing import Any

import lightning.pytorch as pl

from vilau.callbacks.measuring import MeasuringCallback
from vilau.errors import ConfigError
from vilau.metrics.codebook import CodebookUsage as UsageCounts
from vilau.metrics.codebook import ResidualEnergy
from vilau.metrics.passport import SetFingerprint
from vilau.types import ImageTextBatch, Passport, Reconstructs, TowerOutput


class CodebookUsage(MeasuringCallback):
    """Logs, for each depth d from 1, how its codes are used and what it leaves.

    ``val/codebook_usage_d1`` is the share of codes seen, ``val/codebook_perplexity_d1`` the
    effective number of codes, ``val/codebook_dead_d1`` the number of codes never seen, and
    ``val/residual_energy_d1`` the share of the features' energy left after depth 1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.usage: UsageCounts | None = None
        self.energy: ResidualEnergy | None = None
        self.fingerprint = SetFingerprint()

    def begin(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the counts; the depth is learnt from the first batch."""
        self.usage, self.energy = None, None
        self.fingerprint.to(pl_module.device).reset()

    def observe(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any
    ) -> bool:
        """Count a batch's codes."""
        if not isinstance(batch, ImageTextBatch) or not isinstance(outputs, TowerOutput):
            return False
        if self.usage is None or self.energy is None:
            if not isinstance(pl_module, Reconstructs):
                raise ConfigError(
                    "trainer.callbacks holds CodebookUsage, which needs a visual tokenizer, and "
                    f"{type(pl_module).__name__} has none; take the callback out."
                )
            depth = outputs.codes.shape[-1]
            self.usage = UsageCounts(depth=depth, codebook_size=pl_module.codebook_size)
            self.energy = ResidualEnergy(depth=depth)
            self.usage.to(pl_module.device)
            self.energy.to(pl_module.device)
        self.usage.update(outputs.codes)
        self.energy.update(outputs.residual_energy)
        self.fingerprint.update(batch.images)
        return True

    def finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        """Report."""
        assert self.usage is not None
        assert self.energy is not None
        digest, count = self.fingerprint.compute()
        reference = f"{split} images {digest}"
        values = {f"codebook_{name}": value for name, value in self.usage.compute().items()}
        values["residual_energy"] = self.energy.compute()
        for name, per_depth in values.items():
            passport = Passport(metric=name, reference=reference, num_samples=count)
            # torchmetrics makes a scalar of a vector of one depth.
            for depth, value in enumerate(per_depth.reshape(-1), start=1):
                self.report(pl_module, f"{split}/{name}_d{depth}", value, passport)
