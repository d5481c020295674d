"""LPIPS (Zhang et al. 2018) with VGG16 features, as in VQGAN and RQ-VAE."""

import os
from pathlib import Path
from typing import Self

import lpips
import torch
from torch import Tensor, nn

from vilau.errors import CheckpointError

VGG_FILE = "vgg16-397923af.pth"


class PerceptualLoss(nn.Module):
    """LPIPS between images in [-1, 1], frozen. Needs torchvision's VGG16 weights on this machine."""

    def __init__(self) -> None:
        """Raises ``CheckpointError`` naming the missing file and where to put it."""
        super().__init__()
        on_meta = torch.empty(0).device.type == "meta"
        if not on_meta and not vgg_path().is_file():
            raise CheckpointError(
                f"model.perceptual_weight is above 0, but LPIPS needs {vgg_path()}, which is not there; "
                "put torchvision's VGG16 weights there, or write model.perceptual_weight: 0 to train without."
            )
        self.network = lpips.LPIPS(
            net="vgg", verbose=False, pnet_rand=on_meta, pretrained=not on_meta
        )
        self.network.requires_grad_(requires_grad=False)  # lpips leaves its 1x1 heads trainable

    def train(self, mode: bool = True) -> Self:
        """Keep the frozen network in evaluation mode: lpips has dropout before its 1x1 heads."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Mean LPIPS of ``(B, 3, H, W)`` images against targets: a scalar."""
        dtype = self.network.lin0.model[-1].weight.dtype
        return self.network(images.to(dtype), targets.to(dtype)).mean()


def vgg_path() -> Path:
    """Where torchvision looks for VGG16: ``$TORCH_HOME/hub/checkpoints``."""
    home = os.environ.get("TORCH_HOME", os.path.join(os.path.expanduser("~"), ".cache", "torch"))
    return Path(home) / "hub" / "checkpoints" / VGG_FILE
