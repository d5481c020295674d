"""Settings of an image tokenizer's training that contradict one another, told before anything is computed."""

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn

from vilau.errors import ConfigError
from vilau.training.adversarial import Adversary


def check_losses(
    weights: dict[str, float], *, learning: str, entropy: bool, adaptive: bool
) -> None:
    """Refuse weights that are negative, or of a loss that is not computed or could not work.

    ``learning`` of the codes is ``ema`` or ``gradient``, ``entropy`` says whether the quantiser computes that loss.
    """
    for name, weight in weights.items():
        if not weight >= 0:
            raise ConfigError(f"model.{name} is {weight}; write 0 or more.")
    if weights.get("entropy_weight", 0) > 0 and not entropy:
        raise ConfigError(
            f"model.entropy_weight is {weights['entropy_weight']}, but quantizer.entropy is false, so there is "
            "no entropy loss; write quantizer.entropy: true."
        )
    if learning == "gradient" and weights["codebook_weight"] == 0:
        raise ConfigError(
            "model.codebook_weight is 0, but the codes learn by gradient, so that nothing moves them; write "
            "model.codebook_weight: 1.0, or for a tower quantizer.learning: ema."
        )
    if weights["adversarial_weight"] == 0:
        return
    adversarial = f"model.adversarial_weight is {weights['adversarial_weight']}"
    if weights["reconstruction_weight"] == 0:
        raise ConfigError(
            f"{adversarial}, but model.reconstruction_weight is 0, so that nothing trains the decoder; write "
            "model.adversarial_weight: 0 or a model.reconstruction_weight above 0."
        )
    pixels = ("l2_weight", "l1_weight", "perceptual_weight")
    if adaptive and not any(weights[name] for name in pixels):
        raise ConfigError(
            f"{adversarial}, but model.{', model.'.join(pixels)} are 0, whose gradient at the decoder's last "
            "layer its adaptive weight is a ratio to; write one of them above 0 or discriminator.adaptive: false."
        )


def check_run(trainer: Trainer, *, adversarial: bool) -> None:
    """Refuse what a trainer does that the losses cannot follow."""
    if adversarial and str(trainer.precision) == "16-mixed":
        raise ConfigError(
            "trainer.precision is 16-mixed, in which the gradients that weigh the adversarial loss vanish; "
            "write bf16-mixed."
        )


def check_discriminator(adversary: Adversary) -> None:
    """Refuse a penalty on gradients through normalisation over ranks, which has no second derivative."""
    if adversary.config.r1_weight > 0 and any(
        isinstance(part, nn.SyncBatchNorm) for part in adversary.modules()
    ):
        raise ConfigError(
            f"discriminator.r1_weight is {adversary.config.r1_weight:g}, but trainer.sync_batchnorm is true, through "
            "which no gradient of a gradient flows; write r1_weight: 0 or sync_batchnorm: false."
        )


def check_parts(trainer: Trainer, quantizer: Any, weights: dict[str, float]) -> None:
    """Refuse codes that cannot learn from accumulated parts as from a whole batch; tell of terms that differ."""
    parts = trainer.accumulate_grad_batches
    if parts == 1:
        return
    accumulated = f"trainer.accumulate_grad_batches is {parts}"
    if quantizer.training and quantizer.updates_per_depth:
        raise ConfigError(
            f"{accumulated}, but quantizer.update is per_depth: each depth searches the codes that the vectors of the "
            "whole optimiser step left at the one before, of which the accumulated parts do not know one another's; "
            "write quantizer.update: per_step, or quantizer.shared_codebook: false."
        )
    names = ("entropy_weight", "adversarial_weight")
    if differing := [f"model.{name}" for name in names if weights.get(name, 0) > 0]:
        rank_zero_warn(
            f"{accumulated}: the terms of {' and '.join(differing)} hold averages over a batch, which each "
            "accumulated part takes over itself, so that they are not those of whole batches."
        )


def check_strategy(*, adversary: Any, average: Any) -> None:
    """Refuse what needs whole weights where they are sharded over processes."""
    for part, key, off in (
        (adversary, "adversarial_weight", "0"),
        (average, "average", "null"),
    ):
        if part is not None:
            raise ConfigError(
                f"model.{key} needs whole weights, and this strategy shards them; write trainer.strategy: ddp, "
                f"or model.{key}: {off}."
            )
