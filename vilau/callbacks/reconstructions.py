"""One set of reconstructions measured against its originals: FID, pixels, perception, and what a judge still sees."""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from vilau.metrics.frechet import FrechetDistance
from vilau.metrics.judge import SceneExact
from vilau.metrics.passport import back_end
from vilau.metrics.similarity import PairedSimilarity, PerceptualDistance
from vilau.types import Passport

_REAL_SIDE = ("real_features_sum", "real_features_cov_sum", "real_features_num_samples")


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
        self.distance = FrechetDistance(features, weights)
        self.similarity = PairedSimilarity()
        self.scenes = SceneExact()
        self.perceptual = None if lpips is None else PerceptualDistance(lpips, lpips_weights)
        self.lpips = lpips
        if beside is not None:  # one copy of each network, however many depths are measured
            self.distance.inception = beside.distance.inception
            if self.perceptual is not None and beside.perceptual is not None:
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

    def compute(
        self, reference: str, count: int, what: str
    ) -> Iterator[tuple[str, Tensor, Passport]]:
        """Yield name, value and passport of each metric.

        Args:
            reference: name and hash of the originals.
            count: how many they are.
            what: which reconstructions these are.
        """
        if self.beside is not None:
            for name in _REAL_SIDE:
                setattr(self.distance, name, getattr(self.beside.distance, name).clone())

        def passport(metric: str, features: str = "", details: str = "") -> Passport:
            return Passport(metric, features, reference, count, details)

        details = f"uint8 {what} against their own originals; {self.distance.preparation}"
        metric = back_end("FrechetInceptionDistance")
        yield (
            "rfid",
            self.distance.compute(),
            passport(metric, self.distance.features_name, details),
        )
        values = self.similarity.compute()
        yield "psnr", values["psnr"], passport("PSNR (vilau, mean over images)")
        yield "ssim", values["ssim"], passport(back_end("SSIM"))
        if self.perceptual is not None:
            metric = back_end(f"LPIPS {self.lpips}")
            network = self.perceptual.features_name
            yield "lpips", self.perceptual.compute(), passport(metric, network)
        read = self.scenes.compute() if self.scenes.update_called else {}
        judge, agreement = self.scenes.judge_name, "scene agreement"
        if "scene_exact" in read:
            details = "things by shape and colour"
            yield "recon_scene_exact", read["scene_exact"], passport(agreement, judge, details)
        if "shape" in read:
            yield "recon_object_shape", read["shape"], passport(agreement, judge, "shape")
