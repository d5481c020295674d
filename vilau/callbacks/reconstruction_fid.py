"""How well a tower reconstructs: rFID, PSNR, SSIM, and what a judge still sees in the pictures."""

from typing import Any, Literal

import lightning.pytorch as pl

from vilau.callbacks.measuring import MeasuringCallback
from vilau.metrics.frechet import FrechetDistance
from vilau.metrics.judge import SceneExact
from vilau.metrics.passport import SetFingerprint, back_end
from vilau.metrics.similarity import PairedSimilarity, PerceptualDistance
from vilau.types import ImageTextBatch, Passport, TowerOutput


class ReconstructionFID(MeasuringCallback):
    """Logs ``val/rfid``, ``val/psnr``, ``val/ssim`` and, for drawn scenes, what the judge reads.

    The judge's numbers are ``val/recon_scene_exact`` (the share of reconstructions in which it
    finds exactly the true things, by shape and colour) and ``val/recon_object_shape`` (the share of
    things whose shape it still reads).

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
        self.lpips = lpips
        self.lpips_weights = lpips_weights
        self.perceptual: PerceptualDistance | None = None
        self.features = features
        self.weights = weights
        self.distance: FrechetDistance | None = None
        self.similarity = PairedSimilarity()
        self.scenes = SceneExact()
        self.fingerprint = SetFingerprint()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Load the networks before the run, not at its first validation: a file may be missing."""
        self.distance = self.distance or FrechetDistance(self.features, self.weights)
        if self.lpips is not None:
            self.perceptual = self.perceptual or PerceptualDistance(self.lpips, self.lpips_weights)

    def begin(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the last images."""
        for metric in (
            self.distance,
            self.perceptual,
            self.similarity,
            self.scenes,
            self.fingerprint,
        ):
            if metric is not None:
                metric.to(pl_module.device).reset()

    def observe(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any
    ) -> bool:
        """Compare a batch's images with their reconstructions."""
        if not isinstance(batch, ImageTextBatch) or not isinstance(outputs, TowerOutput):
            return False
        assert self.distance is not None
        self.distance.update(batch.images, real=True)
        self.distance.update(outputs.reconstructions, real=False)
        self.similarity.update(batch.images, outputs.reconstructions)
        self.fingerprint.update(batch.images)
        if self.perceptual is not None:
            pairs = (batch.images, outputs.reconstructions)
            self.perceptual.update(*(images.float() / 127.5 - 1.0 for images in pairs))
        if batch.scenes:
            self.scenes.update(outputs.reconstructions, batch.scenes)
        return True

    def finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        """Report."""
        digest, count = self.fingerprint.compute()
        assert self.distance is not None
        reference = f"{split} images {digest}"
        values = self.similarity.compute()
        back_ends = {"psnr": "PSNR (vilau, mean over images)", "ssim": back_end("SSIM")}
        if self.perceptual is not None:
            values["lpips"] = self.perceptual.compute()
            back_ends["lpips"] = back_end(f"LPIPS {self.lpips}")
        rfid = Passport(
            metric=back_end("FrechetInceptionDistance"),
            features=self.distance.features_name,
            reference=reference,
            num_samples=count,
            details="uint8 reconstructions from all depths against their own originals; "
            f"{self.distance.preparation}",
        )
        self.report(pl_module, f"{split}/rfid", self.distance.compute(), rfid, prog_bar=True)
        for name, metric in back_ends.items():
            network = self.perceptual if name == "lpips" else None
            passport = Passport(
                metric=metric,
                features="" if network is None else network.features_name,
                reference=reference,
                num_samples=count,
            )
            self.report(pl_module, f"{split}/{name}", values[name], passport)
        read = self.scenes.compute() if self.scenes.update_called else {}
        for name, metric in (("scene_exact", "scene_exact"), ("object_shape", "shape")):
            if metric in read:
                passport = Passport(
                    metric="scene agreement",
                    features=self.scenes.judge_name,
                    reference=reference,
                    num_samples=count,
                    details="things by shape and colour" if metric == "scene_exact" else metric,
                )
                self.report(pl_module, f"{split}/recon_{name}", read[metric], passport)
