"""What training an image tokenizer is, whichever its family: reconstruct, quantise, and deceive an adversary.

B images, P positions, D residual depth.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vilau.layers.perceptual import PerceptualLoss
from vilau.layers.pixels import to_float, to_uint8
from vilau.models.interface import TokenizerForward
from vilau.training.adversarial import (
    Adversary,
    DiscriminatorConfig,
    optimizer_pair,
    step_both,
)
from vilau.training.averaging import AverageConfig, WeightAverage
from vilau.training.base import TrainingModule, given
from vilau.training.reconstruction_checks import (
    check_discriminator,
    check_losses,
    check_parts,
    check_run,
    check_strategy,
)
from vilau.types import ImageTextBatch, TowerOutput

PIXEL_LOSSES = ("l2", "l1", "perceptual")
RECONSTRUCTION_LOSSES = (*PIXEL_LOSSES, "commitment", "codebook", "entropy")


class ReconstructionTraining(TrainingModule):
    """Train an image tokenizer to reconstruct; a family adds its tokenizer, and losses of its own.

    Loss = reconstruction_weight * (l2_weight * MSE + l1_weight * L1 + perceptual_weight * LPIPS
    + commitment_weight * commitment + codebook_weight * codebook + entropy_weight * entropy
    + adversarial_weight * adaptive weight * adversarial). Each term is logged unweighted as ``train/<name>_loss``.

    With an ``adversarial_weight`` a discriminator is trained beside the tokenizer, by an optimiser of its own: manual
    optimisation, in which the trainer's clipping and accumulation still hold.
    """

    weights: dict[str, float]
    perceptual: PerceptualLoss | None
    adversary: Adversary | None
    average: WeightAverage | None

    @property
    def autoencoder(self) -> Any:
        """The image tokenizer that is trained: a ``VisualTokenizer`` with a ``quantizer`` and a ``decoder``."""
        raise NotImplementedError

    def add_parts(
        self,
        discriminator: DiscriminatorConfig,
        average: AverageConfig | None,
        *,
        learning: str,
        entropy: bool,
    ) -> None:
        """Add what the losses need beside the tokenizer, which is there already, with what of it stays frozen.

        For ``learning`` and ``entropy``, and the ``ConfigError`` for weights that cannot work, see ``check_losses``.
        """
        check_losses(
            self.weights, learning=learning, entropy=entropy, adaptive=discriminator.adaptive
        )
        self.perceptual = PerceptualLoss() if self.weights["perceptual_weight"] > 0 else None
        self.adversary = None
        if self.weights["adversarial_weight"] > 0:
            size = self.autoencoder.spec.image_size
            self.adversary = Adversary(discriminator, image_size=size)
        self.average = None
        if average is not None:
            self.average = self._averaged(given(AverageConfig(), average))

    def _averaged(self, config: AverageConfig) -> WeightAverage:
        average = WeightAverage(self.autoencoder, config)
        # Every rank averages the same weights: nothing to send around before each pass.
        names = [f"average.{name}" for name in average.state_dict()]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self, names)
        return average

    # ---------------------------------------------------------------- the run

    def setup(self, stage: str) -> None:
        """Refuse what the losses cannot work with, and take over the steps where there are two optimisers."""
        super().setup(stage)
        if stage != "fit":
            return
        quantizer = self.autoencoder.quantizer
        check_run(self.trainer, adversarial=self.adversary is not None)
        check_parts(self.trainer, quantizer, self.weights)
        quantizer.parts.forget()
        # Not before: Lightning refuses clipping and accumulation there, which ``step_both`` sees to.
        self.automatic_optimization = self.adversary is None

    def on_fit_start(self) -> None:
        """Refuse what the strategy made of the discriminator, where it cannot be trained so."""
        if self.adversary is not None:
            check_discriminator(self.adversary)

    def configure_model(self) -> None:
        """Shard; see ``TrainingModule``."""
        if not self._sharded and self.device_mesh is not None:
            check_strategy(adversary=self.adversary, average=self.average)
        super().configure_model()

    def trained_parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """All but the discriminator's."""
        for name, parameter in self.named_parameters():
            if not name.startswith("adversary."):
                yield name, parameter

    def configure_optimizers(self) -> Any:
        """The optimiser of the tokenizer and, where there is one, that of the discriminator."""
        if self.adversary is None:
            built = super().configure_optimizers()
            optimizer = built["optimizer"]
        else:
            steps = int(self.trainer.estimated_stepping_batches)
            built = optimizer_pair(
                self.trained_parameters(), self.adversary, self.optimizer_config, num_steps=steps
            )
            optimizer = built[0]["optimizer"]
        if self.average is not None:
            average = self.average
            optimizer.register_step_post_hook(lambda *_: average.update(self.autoencoder))
        return built

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the learning rates."""
        if self.adversary is None:
            super().on_before_optimizer_step(optimizer)
            return
        own = next(self.adversary.parameters())
        mine = any(own is p for group in optimizer.param_groups for p in group["params"])
        name = "train/discriminator_learning_rate" if mine else "train/learning_rate"
        self.log(name, optimizer.param_groups[0]["lr"])

    # ---------------------------------------------------------------- losses

    def loss_terms(self, seen: TokenizerForward, batch: ImageTextBatch) -> dict[str, Tensor]:
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
        return losses

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """Weighted sum of ``loss_terms``."""
        return self.reconstruction_total(losses)

    def reconstruction_total(self, losses: dict[str, Tensor]) -> Tensor:
        """Weighted sum of the terms that every tokenizer has."""
        names = [name for name in losses if name in RECONSTRUCTION_LOSSES]
        return self.weights["reconstruction_weight"] * self._weighted(losses, names)

    def _weighted(self, losses: dict[str, Tensor], names: Sequence[str]) -> Tensor:
        return torch.stack([self.weights[f"{name}_weight"] * losses[name] for name in names]).sum()

    @property
    def adversary_acts(self) -> bool:
        """Whether there is a discriminator and its start step is reached."""
        return self.adversary is not None and self.global_step >= self.adversary.config.start_step

    def adversarial_total(
        self, seen: TokenizerForward, losses: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted adversarial term, and what it is made of: ``adversarial`` and ``adaptive_weight``."""
        assert self.adversary is not None
        pixels = self._weighted(losses, [name for name in PIXEL_LOSSES if name in losses])
        last = self.autoencoder.decoder.last_layer.weight
        loss, adaptive = self.adversary.generator_terms(seen.images, pixels, last)
        weight = self.weights["reconstruction_weight"] * self.weights["adversarial_weight"]
        return weight * adaptive * loss, {"adversarial": loss, "adaptive_weight": adaptive}

    # ---------------------------------------------------------------- steps

    def training_step(self, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """One step on all losses with a weight above 0."""
        more_follow = self.trainer.fit_loop._should_accumulate()
        with self.autoencoder.quantizer.part(more_follow=more_follow):
            seen = self.autoencoder(to_float(batch.images))
        losses = self.loss_terms(seen, batch)
        loss = self.total(losses)
        if self.adversary is None:
            self.log_step(losses, loss, batch)
            return loss
        discriminate = self.adversary_acts
        own: Tensor = self.adversary.nothing()
        if discriminate:
            total, terms = self.adversarial_total(seen, losses)
            self.log("train/adversarial_adaptive_weight", terms.pop("adaptive_weight"))
            loss, losses = loss + total, losses | terms
            terms, right = self.adversary.own_terms(to_float(batch.images), seen.images)
            self.log("train/discriminator_accuracy", right)
            own, losses = self.adversary.own_total(terms), losses | terms
        self.log_step(losses, loss, batch)
        step_both(self, loss + own, discriminate=discriminate)
        return loss.detach()

    def log_step(self, losses: dict[str, Tensor], loss: Tensor, batch: ImageTextBatch) -> None:
        """Log a step's losses."""
        self.log_losses(losses, split="train", batch_size=len(batch.texts))
        self.log("train/loss", loss.detach(), prog_bar=True)

    # ---------------------------------------------------------------- measuring

    def validation_step(  # type: ignore[override]  # callbacks read typed outputs
        self, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> Any:
        """Reconstruct images; metrics are callbacks' work."""
        output, losses = self.measure(batch)
        if losses:
            self.log_dict(
                {f"val/{name}_loss": value for name, value in losses.items()},
                batch_size=len(batch.images),
                add_dataloader_idx=False,
                sync_dist=True,
            )
        return output

    def measure(self, batch: Any) -> tuple[Any, dict[str, Tensor]]:
        """What ``validation_step`` gives to callbacks, and the losses."""
        seen = self.autoencoder(to_float(batch.images))
        losses = self.loss_terms(seen, batch)
        spec = self.autoencoder.spec
        several = spec.part_name == "scale"
        output = TowerOutput(
            reconstructions=to_uint8(seen.images),
            codes=seen.quantized.codes,
            residual_energy=seen.quantized.residual_energy,
            scales=tuple(h * w for h, w in spec.levels) if several else (),
        )
        return output, losses

    # ---------------------------------------------------------------- what callbacks and users ask for

    @property
    def keeps_average(self) -> bool:
        """Whether ``average`` was asked for."""
        return self.average is not None

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Put the averaged weights into the tokenizer as long as the context lasts."""
        return nullcontext() if self.average is None else self.average.swapped(self.autoencoder)

    def reconstruct_by_part(self, images: Tensor) -> Tensor:
        """Uint8 images in, uint8 reconstructions ``(parts, B, 3, H, W)`` out."""
        return to_uint8(self.autoencoder.reconstruct_by_part(to_float(images)))

    @property
    def part_name(self) -> str:
        """``depth`` or ``scale``."""
        return str(self.autoencoder.spec.part_name)

    @property
    def codebook_size(self) -> int:
        """K."""
        return int(self.autoencoder.spec.codebook_size)

    def export(self, folder: str) -> None:
        """Write a folder that ``vilau.load_tokenizer`` opens, with averaged weights if so asked."""
        averaged = self.average is not None and self.average.config.export
        with self.averaged_weights() if averaged else nullcontext():
            self.autoencoder.save(folder)
