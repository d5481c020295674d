"""Likeness of pairs of images: PSNR, SSIM, and LPIPS where its weights are there."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

from vilau.errors import CheckpointError

LARGEST_PSNR = 100.0
"""Equal images have an infinite PSNR, which no table can average; dB."""

BACKBONES = {
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}


def psnr(images: Tensor, reconstructions: Tensor) -> Tensor:
    """Return the PSNR of pairs of uint8 ``(B, 3, H, W)`` in dB, ``(B,)``, at most 100."""
    errors = (images.float() - reconstructions.float()).square().mean(dim=(1, 2, 3))
    return (10.0 * (255.0**2 / errors).log10()).clamp(max=LARGEST_PSNR)


class PairedSimilarity(Metric):
    """Mean PSNR and mean SSIM over pairs of uint8 images, one value per pair, at most 100 dB."""

    full_state_update = False
    psnr_sum: Tensor
    ssim_sum: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("psnr_sum", "ssim_sum"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, images: Tensor, reconstructions: Tensor) -> None:
        """Add pairs of uint8 ``(B, 3, H, W)``, 11 pixels or more per side (SSIM's window)."""
        ssim = structural_similarity_index_measure(
            reconstructions.float(), images.float(), data_range=255.0, reduction="none"
        )
        assert isinstance(ssim, Tensor)
        self.psnr_sum += psnr(images, reconstructions).double().sum()
        self.ssim_sum += ssim.double().sum()
        self.count += len(images)

    def compute(self) -> dict[str, Tensor]:
        """Return ``psnr`` (dB) and ``ssim`` (at most 1)."""
        count = self.count.clamp(min=1)
        return {
            "psnr": (self.psnr_sum / count).float(),
            "ssim": (self.ssim_sum / count).float(),
        }


def perceptual_distance(
    backbone: Literal["alex", "vgg", "squeeze"] = "alex",
) -> LearnedPerceptualImagePatchSimilarity:
    """Build LPIPS (Zhang et al. 2018); it takes float images ``(B, 3, H, W)`` in [-1, 1].

    Raises:
        CheckpointError: the backbone's ImageNet weights are not in torch's hub cache.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / BACKBONES[backbone]
    if not path.is_file():
        raise CheckpointError(
            f"The {backbone} weights of LPIPS are missing: put torchvision's {path.name} at "
            f"{path}, or set lpips: "
            "null and compare reconstructions by PSNR, SSIM and rFID alone."
        )
    metric = LearnedPerceptualImagePatchSimilarity(net_type=backbone, reduction="mean")
    return metric.requires_grad_(False)
