"""Whether the codebook is alive: usage, perplexity and what is left of the features, per depth or scale."""

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
    ``val/residual_energy_d1`` the share of the features' energy left after depth 1. Of a tokenizer over scales ``d1``
    is the whole codebook's, and each scale has numbers of its own: ``val/codebook_usage_s1``, ...,
    ``val/residual_energy_s1``, ...
    """

    def __init__(self) -> None:
        super().__init__()
        self.usage: dict[str, UsageCounts] = {}
        self.energy: ResidualEnergy | None = None
        self.scales: tuple[int, ...] = ()
        self.fingerprint = SetFingerprint()

    def begin(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the counts; depth and scales are learnt from the first batch."""
        self.usage, self.energy, self.scales = {}, None, ()
        self.fingerprint.to(pl_module.device).reset()

    def observe(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any
    ) -> bool:
        """Count a batch's codes."""
        if not isinstance(batch, ImageTextBatch) or not isinstance(outputs, TowerOutput):
            return False
        if self.energy is None:
            if not isinstance(pl_module, Reconstructs):
                raise ConfigError(
                    "trainer.callbacks holds CodebookUsage, which needs a visual tokenizer, and "
                    f"{type(pl_module).__name__} has none; take the callback out."
                )
            depth, size = outputs.codes.shape[-1], pl_module.codebook_size
            self.scales = outputs.scales
            self.usage = {"d": UsageCounts(depth=depth, codebook_size=size)}
            if self.scales:
                self.usage["s"] = UsageCounts(depth=len(self.scales), codebook_size=size)
            self.energy = ResidualEnergy(depth=outputs.residual_energy.shape[-1])
            for metric in (*self.usage.values(), self.energy):
                metric.to(pl_module.device)
        self.usage["d"].update(outputs.codes)
        for number, codes in enumerate(
            outputs.codes.split(self.scales, dim=1) if self.scales else ()
        ):
            self.usage["s"].count(number, codes)
        self.energy.update(outputs.residual_energy)
        self.fingerprint.update(batch.images)
        return True

    def finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        """Report."""
        assert self.energy is not None
        digest, count = self.fingerprint.compute()
        reference = f"{split} images {digest}"
        values = {
            (f"codebook_{name}", part): value
            for part, usage in self.usage.items()
            for name, value in usage.compute().items()
        }
        values["residual_energy", "s" if self.scales else "d"] = self.energy.compute()
        for (name, part), per_part in values.items():
            passport = Passport(metric=name, reference=reference, num_samples=count)
            # torchmetrics makes a scalar of a vector of one depth.
            for number, value in enumerate(per_part.reshape(-1), start=1):
                self.report(pl_module, f"{split}/{name}_{part}{number}", value, passport)
