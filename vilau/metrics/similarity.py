"""Likeness of pairs of images: PSNR, SSIM, and LPIPS where its weights are there."""

from typing import Literal

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.functional.image.lpips import _NoTrainLpips
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

from vilau.errors import CheckpointError
from vilau.metrics.passport import weights_hash
from vilau.metrics.weights import find_weights, read_weights

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


class PerceptualDistance(LearnedPerceptualImagePatchSimilarity):
    """LPIPS (Zhang et al. 2018), mean over pairs of float images ``(B, 3, H, W)`` in [-1, 1].

    Its heads come with torchmetrics; the backbone's ImageNet weights must be on this machine.

    Args:
        backbone: ``alex`` (published comparisons), ``vgg`` (losses) or ``squeeze``.
        weights: torchvision's weights file of the backbone; None: the one in torch's hub cache.

    Attributes:
        features_name: the backbone with its weights' hash, for a passport.

    Raises:
        CheckpointError: the weights are not there, broken, or another network's.
    """

    def __init__(
        self, backbone: Literal["alex", "vgg", "squeeze"] = "alex", weights: str | None = None
    ) -> None:
        # The parent's own __init__ lets torchvision fetch and unpickle the backbone.
        Metric.__init__(self)
        path = find_weights(
            BACKBONES[backbone],
            weights,
            what=f"The {backbone} weights of LPIPS",
            origin="torchvision's ImageNet weights",
            instead="set lpips: null and compare reconstructions by PSNR, SSIM and rFID alone",
        )
        self.features_name = f"{backbone} {weights_hash(path)}"
        self.net = _NoTrainLpips(net=backbone, pnet_rand=True)
        found, wanted = read_weights(path), self.net.net.state_dict()
        # slice2.3.weight here is torchvision's features.3.weight; squeeze has slices.2.3.weight.
        prefix = 2 if backbone == "squeeze" else 1
        names = {name: "features." + name.split(".", prefix)[prefix] for name in wanted}
        for name, theirs in names.items():
            if theirs not in found or found[theirs].shape != wanted[name].shape:
                raise CheckpointError(
                    f"{path} is no file of torchvision's {backbone}: it lacks {theirs} of shape "
                    f"{tuple(wanted[name].shape)}; put {BACKBONES[backbone]} there."
                )
        self.net.net.load_state_dict({name: found[theirs] for name, theirs in names.items()})
        self.requires_grad_(False)
        self.reduction: Literal["mean"] = "mean"
        self.normalize = False
        self.add_state("all_scores", default=[], dist_reduce_fx=None)
