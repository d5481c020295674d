"""How well a tower reconstructs: rFID, PSNR, SSIM, and what a judge still sees in the pictures."""

from typing import Any, Literal

import lightning.pytorch as pl

from vilau.callbacks.measuring import MeasuringCallback
from vilau.callbacks.reconstructions import Reconstructions
from vilau.metrics.passport import SetFingerprint
from vilau.types import ImageTextBatch, TowerOutput

ALL_DEPTHS = "reconstructions from all depths"


class ReconstructionFID(MeasuringCallback):
    """Logs ``val/rfid``, ``val/psnr``, ``val/ssim`` and, for drawn scenes, what the judge reads.

    The judge's numbers are ``val/recon_scene_exact`` (the share of reconstructions in which it
    finds exactly the true things, by shape and colour) and ``val/recon_object_shape`` (the share of
    things whose shape it still reads). Where the module decodes its first depths alone
    (``TowerOutput.truncated``), all of this is also logged for each: ``val/rfid_d1``, ...

    Args:
        features: ``world`` (the shipped feature network) or ``inception``.
        weights: the feature network's folder or file, if not the usual one.
        lpips: the backbone (``alex`` or ``vgg``) to also log ``val/lpips`` with; null: without.
        lpips_weights: torchvision's file of that backbone, if not in torch's hub cache.
    """

    def __init__(
        self,
        features: Literal["world", "inception"] = "world",
        weights: str | None = None,
        lpips: Literal["alex", "vgg"] | None = None,
        lpips_weights: str | None = None,
    ) -> None:
        super().__init__()
        self._settings = (features, weights, lpips, lpips_weights)
        self.whole: Reconstructions | None = None
        self.truncated: list[Reconstructions] = []
        self.by_depth = False
        self.fingerprint = SetFingerprint()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Load the networks before the run, not at its first validation: a file may be missing."""
        self.whole = self.whole or Reconstructions(*self._settings)

    def begin(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the last images; how many depths are measured is learnt from the first batch."""
        assert self.whole is not None
        self.whole.to(pl_module.device)
        self.truncated, self.by_depth = [], False
        self.fingerprint.to(pl_module.device).reset()

    def observe(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any
    ) -> bool:
        """Compare a batch's images with their reconstructions."""
        if not isinstance(batch, ImageTextBatch) or not isinstance(outputs, TowerOutput):
            return False
        assert self.whole is not None
        self.whole.update(batch.images, outputs.reconstructions, batch.scenes)
        self.fingerprint.update(batch.images)
        if outputs.truncated is not None:
            self.by_depth = True
            fewer = outputs.truncated[:-1]  # the last is the whole
            while len(self.truncated) < len(fewer):
                self.truncated.append(Reconstructions(*self._settings, beside=self.whole))
                self.truncated[-1].to(pl_module.device)
            for part, images in zip(self.truncated, fewer, strict=True):
                part.update(batch.images, images, batch.scenes)
        return True

    def finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        """Report."""
        digest, count = self.fingerprint.compute()
        assert self.whole is not None
        reference, depths = f"{split} images {digest}", len(self.truncated) + 1
        for d, part in enumerate([*self.truncated, self.whole], start=1):
            for name, value in part.compute().items():
                if d == depths:
                    passport = part.passport(name, reference, count, ALL_DEPTHS)
                    shown = name == "rfid"
                    self.report(pl_module, f"{split}/{name}", value, passport, prog_bar=shown)
                if self.by_depth:
                    what = f"reconstructions from the first {d} depths"
                    passport = part.passport(name, reference, count, what)
                    self.report(pl_module, f"{split}/{name}_d{d}", value, passport)
