"""Training the vision tower: reconstruction, quantisation, adversary and alignment with text.

VILA-U section 3.1; the reconstruction losses are RQ-VAE's. B images, P positions, C width, D residual depth.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from vilau.layers.pixels import to_float
from vilau.layers.ranks import many_ranks
from vilau.models.interface import TokenizerForward
from vilau.models.vila_u.config import DecoderConfig, QuantizerConfig
from vilau.models.vila_u.tower import VisionTower
from vilau.training.adversarial import DiscriminatorConfig
from vilau.training.alignment import AlignmentConfig, contrastive_loss
from vilau.training.averaging import AverageConfig
from vilau.training.base import given
from vilau.training.optimizers import OptimizerConfig
from vilau.training.reconstruction import ReconstructionTraining
from vilau.training.tower_checks import check_frozen, check_negatives
from vilau.training.tower_start import StartConfig, start_tower
from vilau.types import EmbeddingOutput, ImageTextBatch, LabelledImageBatch, TowerOutput


class TowerTraining(ReconstructionTraining):
    """Turn a pretrained SigLIP into a discrete, text-aligned tower.

    Loss = that of ``ReconstructionTraining`` + contrastive_weight * contrastive, the contrastive term on the
    *quantised* features against the frozen text tower; reconstruction and contrastive weigh 1 : 1 in the paper. The
    published adversarial weight is RQ-VAE's, 0.75.

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
        start = given(StartConfig(), start)
        check_frozen(start, freeze_text, freeze_vision, aligned=contrastive_weight > 0)
        self.tower = start_tower(start, pretrained, quantizer, decoder)
        discriminator = given(DiscriminatorConfig(), discriminator)
        codes = self.tower.config.quantizer
        self._freeze(text=freeze_text, vision=freeze_vision)
        self.add_parts(discriminator, average, learning=codes.learning, entropy=codes.entropy)
        self.remember(
            pretrained=pretrained,
            quantizer=codes,
            decoder=self.tower.config.decoder,
            freeze_text=freeze_text,
            optimizer=optimizer,
            discriminator=discriminator,
            alignment=self.alignment,
            freeze_vision=freeze_vision,
            start=start,
            average=None if self.average is None else self.average.config,
            **self.weights,
        )

    def _freeze(self, *, text: bool, vision: bool) -> None:
        """Freeze what is to stay, and what no loss would reach."""
        if text:
            self.tower.freeze_text()
        if self.weights["contrastive_weight"] == 0:
            self.tower.freeze_alignment()
        if vision:
            self.tower.freeze_encoder()
        if self.alignment.loss == "softmax":  # which does not see the bias
            self.tower.siglip.logit_bias.requires_grad = False

    @property
    def autoencoder(self) -> VisionTower:
        """The tower."""
        return self.tower

    def setup(self, stage: str) -> None:
        """Also refuse accumulated parts that a contrastive loss over whole steps cannot know."""
        if stage == "fit" and self.weights["contrastive_weight"] > 0:
            check_negatives(self.trainer, self.alignment.negatives)
        super().setup(stage)

    # ---------------------------------------------------------------- losses

    def loss_terms(self, seen: TokenizerForward, batch: ImageTextBatch) -> dict[str, Tensor]:
        """Return the unweighted losses of one pass, but for those of the adversary."""
        losses = super().loss_terms(seen, batch)
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

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """Reconstruction and contrastive part of the loss."""
        return self.reconstruction_total(losses) + self.contrastive_total(losses)

    def contrastive_total(self, losses: dict[str, Tensor]) -> Tensor | float:
        """The weighted contrastive term, or 0 when it is off."""
        if "contrastive" not in losses:
            return 0.0
        return self.weights["contrastive_weight"] * losses["contrastive"]

    def log_step(self, losses: dict[str, Tensor], loss: Tensor, batch: ImageTextBatch) -> None:
        """Log a step's losses, and how sharply images and texts are told apart."""
        super().log_step(losses, loss, batch)
        if "contrastive" in losses:
            self.log("train/logit_scale", self.tower.siglip.logit_scale.detach().exp())

    # ---------------------------------------------------------------- measuring

    def measure(
        self, batch: ImageTextBatch | LabelledImageBatch
    ) -> tuple[TowerOutput | EmbeddingOutput, dict[str, Tensor]]:
        """Reconstruct pairs, embed labelled images, and the losses of pairs."""
        if isinstance(batch, LabelledImageBatch):
            return self.embed_labelled(batch), {}
        return super().measure(batch)

    def embed_labelled(self, batch: LabelledImageBatch) -> EmbeddingOutput:
        """Features of the discrete images."""
        return EmbeddingOutput(self.tower.image_features(to_float(batch.images)))

    # ---------------------------------------------------------------- what callbacks and users ask for

    def image_features(self, images: Tensor) -> Tensor:
        """Normalised features ``(B, C)`` of the discrete images, uint8."""
        return self.tower.image_features(to_float(images))

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Normalised text features ``(len(texts), C)``."""
        return self.tower.text_features(texts)

    def blocks_to_shard(self) -> list[nn.Module]:
        """SigLIP's blocks."""
        siglip = self.tower.siglip
        return [*siglip.vision_model.encoder.layers, *siglip.text_model.encoder.layers]
