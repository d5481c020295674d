"""Frechet distance between two sets of images, in the features of the drawn world or of Inception.

The distance is ``||m1 - m2||^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2))`` over the features' means and
covariances (Heusel et al. 2017). The sums are kept in float64 and added over ranks by torchmetrics.
"""

import os
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from vilau.errors import CheckpointError, DataError
from vilau.layers.detector import SceneDetector
from vilau.metrics.assets import WORLD_FEATURES, load_world_detector
from vilau.metrics.passport import weights_hash

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"


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

    Args:
        features: ``world`` for the shipped feature network of the drawn world, ``inception`` for
            the pool features of the Inception that torch-fidelity and the published numbers use.
        weights: for ``world`` a detector folder, for ``inception`` the weights file; None: the
            shipped network, or the file in torch's hub cache.

    Raises:
        CheckpointError: the weights are not there.
    """

    def __init__(
        self, features: Literal["world", "inception"] = "world", weights: str | None = None
    ) -> None:
        self.features = features
        settings: dict[str, Any] = {"normalize": False}
        if features == "world":
            folder = WORLD_FEATURES if weights is None else Path(weights)
            self.features_name = f"world features {weights_hash(folder)}"
            settings["feature"] = WorldFeatures(load_world_detector(folder))
        else:
            file = inception_weights(weights)
            self.features_name = f"Inception pool 2048 {weights_hash(file)}"
            # antialias=False: the resize of the reference Inception graph, on which published
            # numbers rest.
            settings |= {
                "feature": 2048,
                "feature_extractor_weights_path": str(file),
                "antialias": False,
            }
        super().__init__(**settings)

    def update(self, imgs: Tensor, real: bool) -> None:
        """Add uint8 images ``(B, 3, H, W)`` to the real set or to the other."""
        if imgs.dtype != torch.uint8:
            raise TypeError(f"Frechet distance takes uint8 images, not {imgs.dtype}")
        super().update(imgs, real=real)

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
        return super().compute()


def inception_weights(weights: str | None = None) -> Path:
    """Return the file with the Inception weights of torch-fidelity.

    Raises:
        CheckpointError: it is not there.
    """
    hub = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
    path = hub if weights is None else Path(os.path.expanduser(weights))
    if not path.is_file():
        raise CheckpointError(
            f"The Inception weights of FID are missing: put {INCEPTION_FILE} (torch-fidelity's "
            f"release v0.2.0) at {path}, or set features: world to measure drawn images with the "
            "shipped feature network."
        )
    return path
