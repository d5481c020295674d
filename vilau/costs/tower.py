"""What a sample costs in tower training: the tower, LPIPS, the discriminator, averages of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vilau.costs import counts
from vilau.costs.config import Config, argument, arguments, class_of
from vilau.costs.counts import NOTHING, TowerCount
from vilau.costs.discriminator import KEPT_PASSES, adversary
from vilau.costs.parts import tower_parts
from vilau.costs.work import Work
from vilau.models.sizes import SiglipSizes
from vilau.models.vila_u.config import QuantizerConfig


@dataclass(frozen=True)
class _Settings:
    """What of a tower stage decides which parts learn."""

    aligned: bool
    text: bool
    vision: bool
    softmax: bool

    @classmethod
    def of(cls, config: Config) -> _Settings:
        """Read them."""
        aligned = argument(config, "model", "contrastive_weight") > 0
        return cls(
            aligned=aligned,
            text=aligned and not argument(config, "model", "freeze_text"),
            vision=not argument(config, "model", "freeze_vision"),
            softmax=_given(config, "alignment").get("loss") == "softmax",
        )

    def trained(self, part: TowerCount) -> int:
        """Parameters of the tower that learn."""
        siglip = part.siglip
        frozen = 0 if self.text else siglip.text.parameters
        frozen += 0 if self.vision else siglip.encoder.parameters
        if not self.aligned:
            frozen += siglip.pooling.parameters + siglip.scales.parameters
        elif self.softmax:
            frozen += 1  # the bias, which softmax does not see
        return part.parameters - frozen


def tower_work(config: Config) -> Work:
    """Return the work of ``TowerTraining`` and its ablations."""
    sizes, quantizer, decoder = tower_parts(config)
    part, settings = counts.tower(sizes, quantizer, decoder), _Settings.of(config)
    siglip, nothing = part.siglip, NOTHING
    pooling, text = (siglip.pooling, siglip.text) if settings.aligned else (nothing, nothing)
    lpips = argument(config, "model", "perceptual_weight") > 0
    perceptual = counts.perceptual(sizes.image_size) if lpips else nothing
    rival, rival_flops = adversary(config, sizes.image_size, perceptual)
    learns = part.pixels + pooling + (siglip.encoder if settings.vision else nothing)
    train_flops: float = 3 * (learns + perceptual).flops + text.flops * (3 if settings.text else 1)
    train_flops += part.learning_search.flops + (0 if settings.vision else siglip.encoder.flops)
    train_flops += rival_flops + _entropy_flops(quantizer, sizes)
    if class_of(config, "model").endswith("ContrastiveAblation") and settings.aligned:
        # Every so often one more pass forward and backward per loss.
        train_flops *= 1 + 2 / argument(config, "model", "measure_every_n_steps")
    trained = settings.trained(part)
    averaged = arguments(config, "model").get("average") is not None
    return Work(
        parameters=part.parameters + perceptual.parameters + rival.parameters,
        trained=trained + rival.parameters,
        tokens=sizes.grid**2,
        train_flops=train_flops,
        forward_flops=siglip.encoder.flops + part.search.flops + part.pixels.flops,
        kept=learns.kept
        + perceptual.kept
        + (text.kept if settings.text else 0)
        + KEPT_PASSES * rival.kept,
        buffers=part.buffers + (trained + 1 if averaged else 0),  # averages, and how many steps
        product=part.parameters + part.buffers,
    )


def _entropy_flops(quantizer: QuantizerConfig, sizes: SiglipSizes) -> int:
    """Operations of the entropy term: at each depth the scores of all codes thrice (their spread, the choices, these
    again on the way back), and the way back to features and, where they learn by gradient, to codes."""
    if not quantizer.entropy:
        return 0
    scores = 2 * sizes.grid**2 * quantizer.codebook_size * sizes.hidden_size
    return quantizer.depth * scores * (5 if quantizer.learning == "gradient" else 4)


def _given(config: Config, key: str) -> Mapping[str, Any]:
    return arguments(config, "model").get(key) or {}
