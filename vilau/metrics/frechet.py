"""Frechet distance between two sets of images, in the features of the drawn world or of Inception.

The distance is ``||m1 - m2||^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2))`` over the features' means and
covariances (Heusel et al. 2017). The sums are kept in float64 and added over ranks by torchmetrics.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.utilities import rank_zero_warn

from vilau.errors import DataError
from vilau.layers.detector import SceneDetector
from vilau.metrics.assets import WORLD_FEATURES, load_world_detector
from vilau.metrics.passport import weights_hash
from vilau.metrics.weights import find_weights, read_weights

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_PREPARATION = (
    "whole uint8 images, no crop, to 299 by TensorFlow 1's bilinear resize without antialiasing"
)
"""How an image meets Inception: torch-fidelity's way, on which published numbers rest."""


_REAL_SIDE = ("real_features_sum", "real_features_cov_sum", "real_features_num_samples")
"""What torchmetrics keeps of the real images."""


class WorldFeatures(nn.Module):
    """The shipped feature network in the form torchmetrics asks for: uint8 in, ``(B,
    num_features)`` out."""

    num_features: int

    def __init__(self, detector: SceneDetector) -> None:
        super().__init__()
        self.detector = detector
        self.num_features = detector.num_features

    def forward(self, images: Tensor) -> Tensor:
        """Return the pooled features of uint8 images ``(B, 3, H, W)``."""
        return self.detector.features(images)


class FrechetDistance(FrechetInceptionDistance):
    """Frechet distance over uint8 images; fewer than two on a side is an error.

    A covariance has full rank only from one image more than there are features; below that a
    warning says how many are needed, for the distance then tells more of the number of images than
    of the images.

    Args:
        features: ``world`` for the shipped feature network of the drawn world, ``inception`` for
            the pool features of the Inception that torch-fidelity and the published numbers use.
        weights: for ``world`` a detector folder, for ``inception`` the weights file; None: the
            shipped network, or the file in torch's hub cache.
        layer: width of Inception's layer; published numbers are of 2048.

    Attributes:
        features_name: the feature network with its weights' hash, for a passport.
        preparation: resize, crop and number format on the way into it, for a passport.

    Raises:
        CheckpointError: the weights are not there, or broken.
    """

    def __init__(
        self,
        features: Literal["world", "inception"] = "world",
        weights: str | None = None,
        layer: Literal[64, 192, 768, 2048] = 2048,
    ) -> None:
        self.features, self._arguments = features, (features, weights, layer)
        settings: dict[str, Any] = {"normalize": False}
        if features == "world":
            folder = WORLD_FEATURES if weights is None else Path(weights)
            self.features_name = f"world features {weights_hash(folder)}"
            detector = load_world_detector(folder)
            settings["feature"] = WorldFeatures(detector)
            side = detector.image_size
            self.preparation = f"whole uint8 images, no crop, to {side} by antialiased bilinear resize"  # fmt: skip
        else:
            file = inception_weights(weights)
            # torch-fidelity opens the file with pickle; one that is tensors alone does no harm.
            read_weights(file)
            self.features_name = f"Inception pool {layer} {weights_hash(file)}"
            self.preparation = INCEPTION_PREPARATION
            # antialias=False: the resize of the reference Inception graph, on which published
            # numbers rest.
            settings |= {
                "feature": layer,
                "feature_extractor_weights_path": str(file),
                "antialias": False,
            }
        super().__init__(**settings)

    def beside(self) -> "FrechetDistance":
        """Return a distance of other images to the same real ones, with this one's network.

        It is shown the other images alone, and told of the real ones by ``take_real`` before it computes.
        """
        other = FrechetDistance(*self._arguments)
        other.inception = self.inception
        return other.to(self.device)

    def take_real(self, other: "FrechetDistance") -> None:
        """Take over what ``other`` has seen of the real images on this rank."""
        for name in _REAL_SIDE:
            setattr(self, name, getattr(other, name).clone())

    def update(self, imgs: Tensor, real: bool) -> None:
        """Add uint8 images ``(B, 3, H, W)`` to the real set or to the other."""
        if imgs.dtype != torch.uint8:
            raise TypeError(f"Frechet distance takes uint8 images, not {imgs.dtype}")
        super().update(imgs, real=real)

    def shortage(self, real: int, other: int) -> str:
        """Return for a passport that there are fewer images than a covariance needs; empty if there are not."""
        return rank_shortage(min(real, other), int(self.real_features_cov_sum.shape[-1]))

    def compute(self) -> Tensor:
        """Return the distance.

        Raises:
            DataError: a side has fewer than two images.
        """
        real = int(self.real_features_num_samples)
        other = int(self.fake_features_num_samples)
        if real < 2 or other < 2:
            raise DataError(
                f"A Frechet distance needs two images or more on each side, but has {real} real "
                "and "
                f"{other} to compare; give the evaluation more images or take the FID callback out "
                "of trainer.callbacks."
            )
        if self.shortage(real, other):
            width = int(self.real_features_cov_sum.shape[-1])
            rank_zero_warn(
                f"A Frechet distance in {width} features needs {width + 1} images or more on each side, "
                f"but has {real} real and {other} to compare: their covariance lacks rank, and the distance "
                "cannot stand beside one of more images."
            )
        return super().compute()


def inception_weights(weights: str | None = None) -> Path:
    """Return the file with the Inception weights of torch-fidelity.

    Raises:
        CheckpointError: it is not there.
    """
    return find_weights(
        INCEPTION_FILE,
        weights,
        what="The Inception weights of FID",
        origin="torch-fidelity's release v0.2.0",
        instead="set features: world to measure drawn images with the shipped feature network",
    )


def rank_shortage(num_images: int, num_features: int) -> str:
    """Return for a passport that there are fewer images than a covariance needs; empty if there are not."""
    if num_images > num_features:
        return ""
    return f"; covariance lacks rank: {num_images} images for {num_features} features"
