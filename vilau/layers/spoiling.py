"""Ways in which generated pictures are spoilt: blur, lost resolution, noise, wrong contrast.

All take and return float pictures ``(B, 3, H, W)`` in [-1, 1].
"""

import torch
from torch import Tensor
from torch.nn import functional as F

BLUR = ((0.0, 1.0, 0.0), (1.0, 4.0, 1.0), (0.0, 1.0, 0.0))


def blur(pixels: Tensor) -> Tensor:
    """Blur ``(B, 3, H, W)`` once with the kernel (0 1 0; 1 4 1; 0 1 0) / 8."""
    kernel = (pixels.new_tensor(BLUR) / 8).expand(3, 1, 3, 3)
    return F.conv2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), kernel, groups=3)


def halve_and_restore(pixels: Tensor) -> Tensor:
    """Scale ``(B, 3, H, W)`` down by two and up again."""
    small = F.interpolate(pixels, scale_factor=0.5, mode="area")
    return F.interpolate(small, scale_factor=2.0, mode="bilinear")


def add_noise(pixels: Tensor, sigma: float, *, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise of ``sigma`` grey levels (of 255) to ``(B, 3, H, W)`` in [-1, 1]."""
    noise = torch.randn(pixels.shape, generator=generator).to(pixels)
    return (pixels + noise * sigma / 127.5).clamp(-1.0, 1.0)


def degrade(pixels: Tensor) -> Tensor:
    """Spoil each picture a little in the ways generated pictures are spoilt.

    Every picture is, independently, blurred up to three times (half of them), halved and restored
    (a fifth), covered with noise of up to 15 of 255 grey levels (half) and changed in contrast and
    brightness (a third).

    Args:
        pixels: float ``(B, 3, H, W)`` in [-1, 1]; randomness comes from torch's global generator.
    """
    number, device = pixels.shape[0], pixels.device

    def draw(low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.rand(number, 1, 1, 1, device=device) * (high - low) + low

    times, blurred = (draw() * 6).floor() - 2, pixels
    for round_ in range(1, 4):
        blurred = blur(blurred)
        pixels = torch.where(times >= round_, blurred, pixels)
    pixels = torch.where(draw() < 0.2, halve_and_restore(pixels), pixels)
    noise = torch.randn_like(pixels) * draw(0.0, 0.12)
    pixels = torch.where(draw() < 0.5, pixels + noise, pixels)
    shifted = pixels * draw(0.85, 1.1) + draw(-0.08, 0.08)
    pixels = torch.where(draw() < 1 / 3, shifted, pixels)
    return pixels.clamp(-1.0, 1.0)
