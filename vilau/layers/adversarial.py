"""The patch discriminator and the losses of adversarial training (Isola et al. 2017; Esser et al. 2021; RQ-VAE).

B images, c channels, h w patches.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from vilau.layers.ranks import many_ranks, sum_over_ranks

KERNEL = 4


class PatchDiscriminator(nn.Module):
    """PatchGAN: one logit for each of many overlapping patches, high where it looks real.

    ``num_layers`` convolutions halve the image, two more look at the patches; all but the first and the last
    are followed by BatchNorm. Widths double from ``channels``, to at most eight times that. BatchNorm always
    takes the statistics of the batch at hand, as it does in training anyway: nothing remembers a pass that only
    measured. ``trainer.sync_batchnorm: true`` makes it the batch of all ranks.
    """

    def __init__(self, *, num_layers: int = 2, channels: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, channels, KERNEL, stride=2, padding=1)]
        width = channels
        for number in range(1, num_layers + 1):
            before, width = width, channels * min(2**number, 8)
            stride = 2 if number < num_layers else 1
            layers += [
                nn.LeakyReLU(0.2),
                nn.Conv2d(before, width, KERNEL, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(width, track_running_stats=False),
            ]
        layers += [nn.LeakyReLU(0.2), nn.Conv2d(width, 1, KERNEL, padding=1)]
        self.layers = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(B, 3, H, W)`` near [-1, 1] to logits ``(B, 1, h, w)``."""
        return self.layers(images)

    @staticmethod
    def num_patches(side: int, *, num_layers: int) -> int:
        """Return how many patches lie along a side of that many pixels; below 1 the image is too small."""
        return side // 2**num_layers - 2

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let what is computed inside send gradients through the discriminator, and none into it."""
        self.requires_grad_(requires_grad=False)
        try:
            yield
        finally:
            self.requires_grad_(requires_grad=True)


def generator_loss(fake_B1hw: Tensor) -> Tensor:
    """Loss of what made the images: - mean D(fake)."""
    return -fake_B1hw.float().mean()


def hinge_loss(real_B1hw: Tensor, fake_B1hw: Tensor) -> Tensor:
    """Loss of the discriminator: (mean relu(1 - D(real)) + mean relu(1 + D(fake))) / 2."""
    real, fake = F.relu(1 - real_B1hw.float()), F.relu(1 + fake_B1hw.float())
    return 0.5 * (real.mean() + fake.mean())


def gradient_penalty(discriminator: nn.Module, real: Tensor) -> Tensor:
    """R1 (Mescheder et al. 2018, eq. 9, for gamma = 1): mean of |gradient of D at a real image|^2 / 2.

    D of an image is the mean of its patches' logits. Runs in float32: it is differentiated twice.
    """
    with torch.autocast(real.device.type, enabled=False), torch.enable_grad():
        pixels = real.detach().float().requires_grad_()
        logits_B = discriminator(pixels).mean(dim=(1, 2, 3))
        (slope,) = torch.autograd.grad(logits_B.sum(), pixels, create_graph=True)
    return 0.5 * slope.square().sum(dim=(1, 2, 3)).mean()


class LeCam(nn.Module):
    """Keep the discriminator near its own averages (Tseng et al. 2021, eq. 3), which helps with little data.

    mean (D(real) - a_fake)^2 + mean (D(fake) - a_real)^2, a the running means of the logits over all ranks;
    they start from the first batch.
    """

    averages: Tensor
    started: Tensor

    def __init__(self, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("averages", torch.zeros(2))
        self.register_buffer("started", torch.tensor(False))

    def forward(self, real_B1hw: Tensor, fake_B1hw: Tensor) -> Tensor:
        """Take in a batch's logits and return the penalty."""
        real, fake = real_B1hw.float(), fake_B1hw.float()
        means = averaged_over_ranks(torch.stack([real.mean(), fake.mean()]).detach())
        if self.started:
            self.averages.lerp_(means, 1 - self.decay)
        else:
            self.averages.copy_(means)
            self.started.fill_(True)
        a_real, a_fake = self.averages.clone()
        return (real - a_fake).square().mean() + (fake - a_real).square().mean()


def adaptive_weight(
    reconstruction: Tensor, generator: Tensor, weight: Tensor, *, limit: float = 1e4
) -> Tensor:
    """Balance of two losses on one weight (Esser et al. 2021, eq. 7): a scalar without gradient.

    |gradient of ``reconstruction``| / (|gradient of ``generator``| + 1e-4), clamped to [0, ``limit``]; ``weight``
    is the last layer's. On several ranks the gradients are those of the whole batch. Both graphs are kept.
    """
    slopes = [
        torch.autograd.grad(loss, weight, retain_graph=True)[0].detach().float()
        for loss in (reconstruction, generator)
    ]
    above, below = averaged_over_ranks(torch.stack(slopes)).flatten(1).norm(dim=1)
    return (above / (below + 1e-4)).clamp(0.0, limit)


def averaged_over_ranks(value: Tensor) -> Tensor:
    """Return the mean of a float32 tensor over all processes."""
    if not many_ranks():
        return value
    return sum_over_ranks(value)[0] / dist.get_world_size()
