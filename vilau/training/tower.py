"""Training the vision tower: reconstruction, quantisation, adversary and alignment with text.

VILA-U section 3.1; the reconstruction losses are RQ-VAE's. B images, P positions, C width, D residual depth.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vilau.layers.perceptual import PerceptualLoss
from vilau.layers.pixels import to_float, to_uint8
from vilau.models.vila_u.config import DecoderConfig, QuantizerConfig
from vilau.training.adversarial import (
    Adversary,
    DiscriminatorConfig,
    optimizer_pair,
    step_both,
)
from vilau.training.alignment import AlignmentConfig
from vilau.training.averaging import AverageConfig, WeightAverage
from vilau.training.base import given
from vilau.training.optimizers import OptimizerConfig
from vilau.training.tower_checks import (
    check_discriminator,
    check_frozen,
    check_losses,
    check_parts,
    check_run,
    check_strategy,
)
from vilau.training.tower_losses import TowerLosses
from vilau.training.tower_start import StartConfig, start_tower
from vilau.types import EmbeddingOutput, ImageTextBatch, LabelledImageBatch, TowerOutput


class TowerTraining(TowerLosses):
    """Turn a pretrained SigLIP into a discrete, text-aligned tower.

    Loss = reconstruction_weight * (l2_weight * MSE + l1_weight * L1 + perceptual_weight * LPIPS
    + commitment_weight * commitment + codebook_weight * codebook + entropy_weight * entropy
    + adversarial_weight * adaptive weight * adversarial) + contrastive_weight * contrastive,
    the contrastive term on the *quantised* features against the frozen text tower; reconstruction and
    contrastive weigh 1 : 1 in the paper. Each term is logged unweighted as ``train/<name>_loss``.

    With an ``adversarial_weight`` (RQ-VAE: 0.75) a discriminator is trained beside the tower, by an
    optimiser of its own: manual optimisation, in which the trainer's clipping and accumulation still hold.

    Args:
        pretrained: the SigLIP: ``world-siglip``, a folder, a hub name, or ``timm/<name>`` (see ``load_encoders``).
        quantizer: sizes and rules; ``learning: gradient`` brings the codebook loss, ``entropy: true`` the entropy loss.
        decoder: sizes of the pixel decoder.
        reconstruction_weight: of all terms but the contrastive one.
        contrastive_weight: 0 trains without texts, and without what only they could train.
        l2_weight: of the mean squared pixel error.
        l1_weight: of the mean absolute pixel error.
        perceptual_weight: of LPIPS; 0 needs no VGG16.
        commitment_weight: of the features' distance from their codes.
        freeze_text: keep the text tower as it was (the paper's recipe).
        optimizer: of the tower.
        codebook_weight: of the codes' distance from their features, where gradients move the codes.
        entropy_weight: of the entropy loss; ``quantizer.entropy`` computes it.
        adversarial_weight: of the generator's loss; 0: no discriminator.
        discriminator: sizes, start, penalties and optimiser of the discriminator.
        alignment: which contrastive loss, and which texts it compares an image with.
        freeze_vision: keep the vision encoder as it was (a recipe that the paper found to fail).
        start: what is pretrained, other than all of ``pretrained``; see ``StartConfig``.
        average: keep an average of the weights, for ``AveragedWeights`` to measure and for export.
    """

    def __init__(  # noqa: PLR0913 - a module's settings are its constructor
        self,
        pretrained: str = "google/siglip-large-patch16-256",
        quantizer: QuantizerConfig | None = None,
        decoder: DecoderConfig | None = None,
        reconstruction_weight: float = 1.0,
        contrastive_weight: float = 1.0,
        l2_weight: float = 1.0,
        l1_weight: float = 0.0,
        perceptual_weight: float = 1.0,
        commitment_weight: float = 0.25,
        freeze_text: bool = True,
        optimizer: OptimizerConfig | None = None,
        codebook_weight: float = 1.0,
        entropy_weight: float = 0.0,
        adversarial_weight: float = 0.0,
        discriminator: DiscriminatorConfig | None = None,
        alignment: AlignmentConfig | None = None,
        freeze_vision: bool = False,
        start: StartConfig | None = None,
        average: AverageConfig | None = None,
    ) -> None:
        """Raises ``ConfigError`` for settings that contradict one another."""
        optimizer = given(OptimizerConfig(), optimizer)
        super().__init__(optimizer)
        self.weights = {
            "reconstruction_weight": reconstruction_weight,
            "contrastive_weight": contrastive_weight,
            "l2_weight": l2_weight,
            "l1_weight": l1_weight,
            "perceptual_weight": perceptual_weight,
            "commitment_weight": commitment_weight,
            "codebook_weight": codebook_weight,
            "entropy_weight": entropy_weight,
            "adversarial_weight": adversarial_weight,
        }
        self.alignment = given(AlignmentConfig(), alignment)
        start, frozen = given(StartConfig(), start), (freeze_text, freeze_vision)
        check_frozen(start, *frozen, aligned=contrastive_weight > 0)
        self.tower = start_tower(start, pretrained, quantizer, decoder)
        self._add_parts(given(DiscriminatorConfig(), discriminator), average, *frozen)
        self.remember(
            pretrained=pretrained,
            quantizer=self.tower.config.quantizer,
            decoder=self.tower.config.decoder,
            freeze_text=freeze_text,
            optimizer=optimizer,
            discriminator=given(DiscriminatorConfig(), discriminator),
            alignment=self.alignment,
            freeze_vision=freeze_vision,
            start=start,
            average=None if self.average is None else self.average.config,
            **self.weights,
        )

    def _add_parts(
        self,
        discriminator: DiscriminatorConfig,
        average: AverageConfig | None,
        freeze_text: bool,
        freeze_vision: bool,
    ) -> None:
        """Freeze what is to stay, and add what the losses need beside the tower."""
        check_losses(self.weights, self.tower.config.quantizer, adaptive=discriminator.adaptive)
        if freeze_text:
            self.tower.freeze_text()
        if self.weights["contrastive_weight"] == 0:
            self.tower.freeze_alignment()
        if freeze_vision:
            self.tower.freeze_encoder()
        if self.alignment.loss == "softmax":  # which does not see the bias
            self.tower.siglip.logit_bias.requires_grad = False
        self.perceptual = PerceptualLoss() if self.weights["perceptual_weight"] > 0 else None
        self.adversary = None
        if self.weights["adversarial_weight"] > 0:
            self.adversary = Adversary(discriminator, image_size=self.tower.sizes.image_size)
        self.average = None
        if average is not None:
            self.average = self._averaged(given(AverageConfig(), average))

    def _averaged(self, config: AverageConfig) -> WeightAverage:
        average = WeightAverage(self.tower, config)
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
        negatives = self.alignment.negatives if self.weights["contrastive_weight"] > 0 else None
        check_run(self.trainer, negatives=negatives, adversarial=self.adversary is not None)
        check_parts(self.trainer, self.tower.quantizer, self.weights)
        self.tower.quantizer.parts.forget()
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
        """AdamW of the tower and, where there is one, of the discriminator."""
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
            optimizer.register_step_post_hook(lambda *_: average.update(self.tower))
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

    # ---------------------------------------------------------------- steps

    def training_step(self, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """One step on all losses with a weight above 0."""
        more_follow = self.trainer.fit_loop._should_accumulate()
        with self.tower.quantizer.part(more_follow=more_follow):
            seen = self.tower(to_float(batch.images))
        losses = self.loss_terms(seen, batch)
        loss = self.reconstruction_total(losses) + self.contrastive_total(losses)
        if self.adversary is None:
            self._log_step(losses, loss, batch)
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
        self._log_step(losses, loss, batch)
        step_both(self, loss + own, discriminate=discriminate)
        return loss.detach()

    def _log_step(self, losses: dict[str, Tensor], loss: Tensor, batch: ImageTextBatch) -> None:
        self.log_losses(losses, split="train", batch_size=len(batch.texts))
        if "contrastive" in losses:
            self.log("train/logit_scale", self.tower.siglip.logit_scale.detach().exp())
        self.log("train/loss", loss.detach(), prog_bar=True)

    # ---------------------------------------------------------------- measuring

    def validation_step(  # type: ignore[override]  # callbacks read typed outputs
        self, batch: ImageTextBatch | LabelledImageBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> TowerOutput | EmbeddingOutput:
        """Reconstruct pairs, embed labelled images; metrics are callbacks' work."""
        output, losses = self.measure(batch)
        if losses:
            self.log_dict(
                {f"val/{name}_loss": value for name, value in losses.items()},
                batch_size=len(batch.images),
                add_dataloader_idx=False,
                sync_dist=True,
            )
        return output

    def measure(
        self, batch: ImageTextBatch | LabelledImageBatch
    ) -> tuple[TowerOutput | EmbeddingOutput, dict[str, Tensor]]:
        """What ``validation_step`` gives to callbacks, and the losses of pairs."""
        if isinstance(batch, LabelledImageBatch):
            return self.embed_labelled(batch), {}
        seen = self.tower(to_float(batch.images))
        losses = self.loss_terms(seen, batch)
        output = TowerOutput(
            reconstructions=to_uint8(seen.images),
            codes=seen.quantized.codes,
            residual_energy=seen.quantized.residual_energy,
        )
        return output, losses

    def embed_labelled(self, batch: LabelledImageBatch) -> EmbeddingOutput:
        """Features of the discrete images."""
        return EmbeddingOutput(self.tower.image_features(to_float(batch.images)))

    # ---------------------------------------------------------------- what callbacks and users ask for

    @property
    def keeps_average(self) -> bool:
        """Whether ``average`` was asked for."""
        return self.average is not None

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Put the averaged weights into the tower as long as the context lasts."""
        return nullcontext() if self.average is None else self.average.swapped(self.tower)

    def image_features(self, images: Tensor) -> Tensor:
        """Normalised features ``(B, C)`` of the discrete images, uint8."""
        return self.tower.image_features(to_float(images))

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Normalised text features ``(len(texts), C)``."""
        return self.tower.text_features(texts)

    def reconstruct_by_depth(self, images: Tensor) -> Tensor:
        """Uint8 images in, uint8 reconstructions ``(D, B, 3, H, W)`` out."""
        return to_uint8(self.tower.reconstruct_by_depth(to_float(images)))

    @property
    def codebook_size(self) -> int:
        """K."""
        return self.tower.spec.codebook_size

    def export(self, folder: str) -> None:
        """Write the tower as a folder that ``VisionTower.load`` reads, with averaged weights if so asked."""
        averaged = self.average is not None and self.average.config.export
        with self.averaged_weights() if averaged else nullcontext():
            self.tower.save(folder)

    def blocks_to_shard(self) -> list[nn.Module]:
        """SigLIP's blocks."""
        siglip = self.tower.siglip
        return [*siglip.vision_model.encoder.layers, *siglip.text_model.encoder.layers]
