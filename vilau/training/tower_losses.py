"""The losses of tower training, each a named term with its own weight."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vilau.layers.perceptual import PerceptualLoss
from vilau.layers.pixels import to_float
from vilau.layers.ranks import many_ranks
from vilau.models.vila_u.tower import TowerForward, VisionTower
from vilau.training.adversarial import Adversary
from vilau.training.alignment import AlignmentConfig, contrastive_loss
from vilau.training.base import TrainingModule
from vilau.types import ImageTextBatch

PIXEL_LOSSES = ("l2", "l1", "perceptual")


class TowerLosses(TrainingModule):
    """The loss terms of a ``tower`` and their weighted sums; ``TowerTraining`` says what they are."""

    tower: VisionTower
    weights: dict[str, float]
    alignment: AlignmentConfig
    perceptual: PerceptualLoss | None
    adversary: Adversary | None

    def loss_terms(self, seen: TowerForward, batch: ImageTextBatch) -> dict[str, Tensor]:
        """Return the unweighted losses of one pass, but for those of the adversary."""
        target = to_float(batch.images)
        error = seen.images.float() - target
        losses = {
            "l2": error.square().mean(),
            "l1": error.abs().mean(),
            "commitment": seen.quantized.commitment_loss,
        }
        if self.perceptual is not None:
            losses["perceptual"] = self.perceptual(seen.images, target)
        if seen.quantized.codebook_loss is not None:
            losses["codebook"] = seen.quantized.codebook_loss
        if seen.quantized.entropy_loss is not None:
            losses["entropy"] = seen.quantized.entropy_loss
        if self.weights["contrastive_weight"] > 0:
            # Ranks may have unlike numbers of validation batches, so none waits for another there.
            over_ranks = self.training and self.alignment.negatives != "rank" and many_ranks()
            losses["contrastive"] = contrastive_loss(
                self.tower,
                seen.quantized.features,
                batch,
                kind=self.alignment.loss,
                over_ranks=over_ranks,
            )
        return losses

    def reconstruction_total(self, losses: dict[str, Tensor]) -> Tensor:
        """Weighted sum of all terms but the contrastive one."""
        names = [name for name in losses if name != "contrastive"]
        return self.weights["reconstruction_weight"] * self._weighted(losses, names)

    def _weighted(self, losses: dict[str, Tensor], names: Sequence[str]) -> Tensor:
        return torch.stack([self.weights[f"{name}_weight"] * losses[name] for name in names]).sum()

    def contrastive_total(self, losses: dict[str, Tensor]) -> Tensor | float:
        """The weighted contrastive term, or 0 when it is off."""
        if "contrastive" not in losses:
            return 0.0
        return self.weights["contrastive_weight"] * losses["contrastive"]

    @property
    def adversary_acts(self) -> bool:
        """Whether there is a discriminator and its start step is reached."""
        return self.adversary is not None and self.global_step >= self.adversary.config.start_step

    def adversarial_total(
        self, seen: TowerForward, losses: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted adversarial term, and what it is made of: ``adversarial`` and ``adaptive_weight``."""
        assert self.adversary is not None
        pixels = self._weighted(losses, [name for name in PIXEL_LOSSES if name in losses])
        last = self.tower.decoder.last_layer.weight
        loss, adaptive = self.adversary.generator_terms(seen.images, pixels, last)
        weight = self.weights["reconstruction_weight"] * self.weights["adversarial_weight"]
        return weight * adaptive * loss, {"adversarial": loss, "adaptive_weight": adaptive}
