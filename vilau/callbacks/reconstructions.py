"""One set of reconstructions measured against its originals: FID, pixels, perception, and what a judge still sees."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from vilau.metrics.frechet import FrechetDistance
from vilau.metrics.judge import SceneExact
from vilau.metrics.passport import back_end
from vilau.metrics.similarity import PairedSimilarity, PerceptualDistance
from vilau.types import Passport


class Reconstructions:
    """The metrics of one set of reconstructions.

    Args:
        features: ``world`` (the shipped feature network) or ``inception``.
        weights: the feature network's folder or file, if not the usual one.
        lpips: the backbone of LPIPS, or None: without.
        lpips_weights: torchvision's file of that backbone, if not in torch's hub cache.
        beside: other reconstructions of the same originals, measured in the same call: their networks serve
            here too, and the originals' features are theirs.

    Raises:
        CheckpointError: weights are not there, or broken.
    """

    def __init__(
        self,
        features: Literal["world", "inception"],
        weights: str | None,
        lpips: Literal["alex", "vgg"] | None,
        lpips_weights: str | None,
        *,
        beside: "Reconstructions | None" = None,
    ) -> None:
        self.beside = beside
        self.distance: FrechetDistance = (
            FrechetDistance(features, weights) if beside is None else beside.distance.beside()
        )
        self.similarity = PairedSimilarity()
        self.scenes = SceneExact()
        self.perceptual = None if lpips is None else PerceptualDistance(lpips, lpips_weights)
        self.lpips = lpips
        if beside is not None and self.perceptual is not None and beside.perceptual is not None:
            # One copy, however many depths are measured.
            self.perceptual.net = beside.perceptual.net

    def to(self, device: torch.device) -> None:
        """Move to ``device`` and forget all images."""
        for metric in (self.distance, self.similarity, self.scenes, self.perceptual):
            if metric is not None:
                metric.to(device).reset()

    def update(self, originals: Tensor, reconstructions: Tensor, scenes: Sequence[str]) -> None:
        """Add uint8 pairs ``(B, 3, H, W)``, and the scenes that drawn originals show."""
        if self.beside is None:
            self.distance.update(originals, real=True)
        self.distance.update(reconstructions, real=False)
        self.similarity.update(originals, reconstructions)
        if self.perceptual is not None:
            pairs = (originals, reconstructions)
            self.perceptual.update(*(images.float() / 127.5 - 1.0 for images in pairs))
        if scenes:
            self.scenes.update(reconstructions, scenes)

    def compute(self) -> dict[str, Tensor]:
        """Return ``rfid``, ``psnr``, ``ssim``, ``lpips`` and the judge's numbers, as far as they are measured."""
        if self.beside is not None:
            self.distance.take_real(self.beside.distance)
        values = {"rfid": self.distance.compute(), **self.similarity.compute()}
        if self.perceptual is not None:
            values["lpips"] = self.perceptual.compute()
        read = self.scenes.compute() if self.scenes.update_called else {}
        names = {"recon_scene_exact": "scene_exact", "recon_object_shape": "shape"}
        return values | {name: read[theirs] for name, theirs in names.items() if theirs in read}

    def passport(self, name: str, reference: str, count: int, what: str) -> Passport:
        """Say what a number of ``compute`` is.

        Args:
            name: its name there.
            reference: name and hash of the originals.
            count: how many they are.
            what: which reconstructions these are.
        """
        metric, features, details = "scene agreement", self.scenes.judge_name, "shape"
        if name == "rfid":
            metric = back_end("FrechetInceptionDistance")
            features = self.distance.features_name
            details = f"uint8 {what} against their own originals; {self.distance.preparation}"
            details += self.distance.shortage(count, count)
        elif name == "psnr":
            metric, features, details = "PSNR (vilau, mean over images)", "", ""
        elif name == "ssim":
            metric, features, details = back_end("SSIM"), "", ""
        elif name == "lpips":
            assert self.perceptual is not None
            metric, features = back_end(f"LPIPS {self.lpips}"), self.perceptual.features_name
            details = ""
        elif name == "recon_scene_exact":
            details = "things by shape and colour"
        return Passport(metric, features, reference, count, details)
