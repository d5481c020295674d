"""The two pixel ranges of the kit: uint8 0..255 on the host, float [-1, 1] inside models."""

import torch
import torch.nn.functional as F
from torch import Tensor


def to_float(images: Tensor) -> Tensor:
    """Map uint8 0..255 to float32 [-1, 1], the range of SigLIP: (x/255 - 0.5) / 0.5."""
    return images.float() / 127.5 - 1.0


def to_uint8(images: Tensor) -> Tensor:
    """Map float [-1, 1] to uint8 by clamping and *rounding*.

    Truncation, which some FID code applies, shifts 63 of the 256 grey levels.
    """
    return ((images.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)


def resized(images: Tensor, size: int) -> Tensor:
    """Resize float images in [-1, 1] to ``(n, 3, size, size)``, bicubic and antialiased; those of that size stay."""
    if images.shape[-2:] == (size, size):
        return images
    small = F.interpolate(images.float(), size=(size, size), mode="bicubic", antialias=True)
    return small.clamp(-1, 1).to(images.dtype)
