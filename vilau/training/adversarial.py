"""The adversarial part of tower training: RQ-VAE's discriminator, and steps of two optimisers."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from vilau.errors import ConfigError
from vilau.layers.adversarial import (
    LeCam,
    PatchDiscriminator,
    adaptive_weight,
    generator_loss,
    gradient_penalty,
    hinge_loss,
)
from vilau.training.base import given
from vilau.training.optimizers import OptimizerConfig, build_optimizer


def discriminator_optimizer() -> OptimizerConfig:
    """RQ-VAE's: Adam with betas 0.5 and 0.9 at a constant rate of 4e-5."""
    return OptimizerConfig(
        learning_rate=4e-5, betas=(0.5, 0.9), warmup_share=0.0, schedule="constant"
    )


@dataclass
class DiscriminatorConfig:
    """Discriminator of the adversarial loss; the defaults are RQ-VAE's."""

    num_layers: int = 2
    channels: int = 64
    start_step: int = 0
    """Optimiser steps that the tower makes without it."""
    adaptive: bool = True
    """Multiply the adversarial weight by the ratio of the gradients of pixel and adversarial losses at the
    decoder's last layer."""
    max_adaptive_weight: float = 1e4
    r1_weight: float = 0.0
    """gamma of the R1 penalty (Mescheder et al. 2018); 0: off."""
    lecam_weight: float = 0.0
    """Weight of LeCam's regularisation (Tseng et al. 2021); 0: off."""
    lecam_decay: float = 0.99
    optimizer: OptimizerConfig = field(default_factory=discriminator_optimizer)

    def __post_init__(self) -> None:
        self.optimizer = given(discriminator_optimizer(), self.optimizer)
        for key, least in (
            ("num_layers", 1), ("channels", 1), ("start_step", 0), ("max_adaptive_weight", 0),
            ("r1_weight", 0), ("lecam_weight", 0),
        ):  # fmt: skip
            if getattr(self, key) < least:
                raise ConfigError(
                    f"discriminator.{key} is {getattr(self, key)}; write {least} or more."
                )
        if not 0 <= self.lecam_decay < 1:
            raise ConfigError(
                f"discriminator.lecam_decay is {self.lecam_decay}; write 0 or more, below 1."
            )


class Adversary(nn.Module):
    """A discriminator that learns to tell originals from reconstructions, and what it asks of the tower.

    Trained with the tower and kept in its checkpoints, but no part of what is exported.
    """

    def __init__(self, config: DiscriminatorConfig, *, image_size: int) -> None:
        """Raises ``ConfigError`` for more layers than the image has room for."""
        super().__init__()
        layers = config.num_layers
        if PatchDiscriminator.num_patches(image_size, num_layers=layers) < 1:
            most = max(
                n
                for n in range(layers)
                if PatchDiscriminator.num_patches(image_size, num_layers=n) > 0
            )
            raise ConfigError(
                f"discriminator.num_layers is {layers}, but halving {image_size} pixels so often leaves no "
                f"patch to look at; write {most}."
            )
        self.config = config
        self.discriminator = PatchDiscriminator(num_layers=layers, channels=config.channels)
        self.lecam = LeCam(config.lecam_decay) if config.lecam_weight > 0 else None

    def generator_terms(
        self, images: Tensor, pixel_loss: Tensor, last_weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the tower is to lower, and the adaptive weight of it; no gradient reaches the discriminator.

        ``pixel_loss``: the weighted losses on the same ``images``; ``last_weight``: of the decoder's last layer.
        """
        with self.discriminator.frozen():
            loss = generator_loss(self.discriminator(images))
        if not self.config.adaptive:
            return loss, loss.new_ones(())
        limit = self.config.max_adaptive_weight
        return loss, adaptive_weight(pixel_loss, loss, last_weight, limit=limit)

    def own_terms(self, real: Tensor, fake: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The discriminator's losses, unweighted, and the share of patches that it tells right.

        No gradient reaches the images.
        """
        real_logits = self.discriminator(real.detach())
        fake_logits = self.discriminator(fake.detach())
        terms = {"discriminator": hinge_loss(real_logits, fake_logits)}
        if self.config.r1_weight > 0:
            terms["r1"] = gradient_penalty(self.discriminator, real)
        if self.lecam is not None:
            terms["lecam"] = self.lecam(real_logits, fake_logits)
        right = (real_logits > 0).float().mean() + (fake_logits < 0).float().mean()
        return terms, right / 2

    def own_total(self, terms: dict[str, Tensor]) -> Tensor:
        """Weighted sum of ``own_terms``."""
        weights = {"r1": self.config.r1_weight, "lecam": self.config.lecam_weight}
        return torch.stack([weights.get(name, 1.0) * value for name, value in terms.items()]).sum()

    def nothing(self) -> Tensor:
        """Zero that reaches every weight: data parallelism refuses trained weights that no loss reaches."""
        return torch.stack([0.0 * p.sum() for p in self.discriminator.parameters()]).sum()


def optimizer_pair(
    tower: Iterable[tuple[str, nn.Parameter]],
    adversary: Adversary,
    config: OptimizerConfig,
    *,
    num_steps: int,
) -> list[dict[str, Any]]:
    """Return Lightning's optimizer dictionaries of the tower and of the discriminator."""
    own = max(1, num_steps - adversary.config.start_step)
    pair = (
        build_optimizer(tower, config, num_steps=num_steps),
        build_optimizer(adversary.named_parameters(), adversary.config.optimizer, num_steps=own),
    )
    return [
        {"optimizer": d["optimizer"], "lr_scheduler": d["lr_scheduler"]["scheduler"]} for d in pair
    ]


def step_both(module: LightningModule, loss: Tensor, *, discriminate: bool) -> None:
    """Go back through ``loss`` and, when a batch is complete, let both optimisers make their step.

    One pass back serves both: the tower's losses leave the discriminator alone and the other way round, and both
    are computed before either moves. Clipping and accumulation are the trainer's. A step of the discriminator
    does not count as one of the run's, whose ``max_steps`` and schedules are the tower's.
    """
    trainer = module.trainer
    module.manual_backward(loss / trainer.accumulate_grad_batches)
    if trainer.fit_loop._should_accumulate():
        return
    optimizers: Any = module.optimizers()
    schedules: Any = module.lr_schedulers()
    for optimizer in optimizers:
        module.configure_gradient_clipping(
            optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm
        )
    optimizers[0].step()
    schedules[0].step()
    if discriminate:
        trainer.strategy.optimizer_step(optimizers[1].optimizer, closure=lambda: None)
        schedules[1].step()
    for optimizer in optimizers:
        optimizer.zero_grad()
