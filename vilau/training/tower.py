"""Training the vision tower: reconstruction, commitment and alignment with text (VILA-U section 3.1).

B images, P positions, C width, D residual depth.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vilau.layers.contrastive import sigmoid_contrastive_loss
from vilau.layers.perceptual import PerceptualLoss
from vilau.layers.pixels import to_float, to_uint8
from vilau.models.vila_u.config import DecoderConfig, QuantizerConfig
from vilau.models.vila_u.tower import TowerForward, VisionTower
from vilau.training.base import TrainingModule, given
from vilau.training.optimizers import OptimizerConfig
from vilau.types import EmbeddingOutput, ImageTextBatch, LabelledImageBatch, TowerOutput


class TowerTraining(TrainingModule):
    """Turn a pretrained SigLIP into a discrete, text-aligned tower.

    Loss = reconstruction_weight * (l2_weight * MSE + l1_weight * L1 + perceptual_weight * LPIPS
    + commitment_weight * commitment) + contrastive_weight * contrastive, the contrastive term on the *quantised*
    features against the frozen text tower; reconstruction and contrastive weigh 1 : 1 in the paper.
    """

    def __init__(
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
    ) -> None:
        """Start from ``pretrained`` SigLIP weights: ``world-siglip``, a folder, or a hub name."""
        quantizer = given(QuantizerConfig(), quantizer)
        decoder, optimizer = given(DecoderConfig(), decoder), given(OptimizerConfig(), optimizer)
        super().__init__(optimizer)
        weights = {
            "reconstruction_weight": reconstruction_weight,
            "contrastive_weight": contrastive_weight,
            "l2_weight": l2_weight,
            "l1_weight": l1_weight,
            "perceptual_weight": perceptual_weight,
            "commitment_weight": commitment_weight,
        }
        self.remember(
            pretrained=pretrained,
            quantizer=quantizer,
            decoder=decoder,
            freeze_text=freeze_text,
            optimizer=optimizer,
            **weights,
        )
        self.weights = weights
        self.tower = VisionTower.from_siglip(pretrained, quantizer=quantizer, decoder=decoder)
        if freeze_text:
            self.tower.freeze_text()
        if contrastive_weight == 0:
            self.tower.freeze_alignment()
        self.perceptual = PerceptualLoss() if perceptual_weight > 0 else None

    # ---------------------------------------------------------------- steps

    def training_step(self, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """One step on all losses with a weight above 0."""
        seen = self.tower(to_float(batch.images))
        losses = self.loss_terms(seen, batch)
        loss = self.reconstruction_total(losses) + self.contrastive_total(losses)
        self.log_losses(losses, split="train", batch_size=len(batch.texts))
        self.log("train/loss", loss.detach(), prog_bar=True)
        return loss

    def loss_terms(self, seen: TowerForward, batch: ImageTextBatch) -> dict[str, Tensor]:
        """Return the unweighted losses of one pass."""
        target = to_float(batch.images)
        error = seen.images.float() - target
        losses = {
            "l2": error.square().mean(),
            "l1": error.abs().mean(),
            "commitment": seen.quantized.commitment_loss,
        }
        if self.perceptual is not None:
            losses["perceptual"] = self.perceptual(seen.images, target)
        if self.weights["contrastive_weight"] > 0:
            losses["contrastive"] = self._contrastive(seen.quantized.features, batch)
        return losses

    def reconstruction_total(self, losses: dict[str, Tensor]) -> Tensor:
        """Weighted sum of all terms but the contrastive one."""
        terms = [
            self.weights[f"{name}_weight"] * value
            for name, value in losses.items()
            if name != "contrastive"
        ]
        return self.weights["reconstruction_weight"] * torch.stack(terms).sum()

    def contrastive_total(self, losses: dict[str, Tensor]) -> Tensor | float:
        """The weighted contrastive term, or 0 when it is off."""
        if "contrastive" not in losses:
            return 0.0
        return self.weights["contrastive_weight"] * losses["contrastive"]

    def _contrastive(self, features: Tensor, batch: ImageTextBatch) -> Tensor:
        return sigmoid_contrastive_loss(
            self.tower.pooled(features),
            self.tower.text_features(batch.texts),
            logit_scale=self.tower.siglip.logit_scale,
            logit_bias=self.tower.siglip.logit_bias,
            matches_BB=batch.matches,
        )

    def validation_step(  # type: ignore[override]  # callbacks read typed outputs
        self, batch: ImageTextBatch | LabelledImageBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> TowerOutput | EmbeddingOutput:
        """Reconstruct pairs, embed labelled images; metrics are callbacks' work."""
        if isinstance(batch, LabelledImageBatch):
            return self.embed_labelled(batch)
        seen = self.tower(to_float(batch.images))
        losses = self.loss_terms(seen, batch)
        self.log_dict(
            {f"val/{name}_loss": value for name, value in losses.items()},
            batch_size=len(batch.texts),
            add_dataloader_idx=False,
            sync_dist=True,
        )
        return TowerOutput(
            reconstructions=to_uint8(seen.images),
            codes=seen.quantized.codes,
            residual_energy=seen.quantized.residual_energy,
        )

    def embed_labelled(self, batch: LabelledImageBatch) -> EmbeddingOutput:
        """Features of the discrete images."""
        return EmbeddingOutput(self.tower.image_features(to_float(batch.images)))

    # ---------------------------------------------------------------- what callbacks and users ask for

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
        """Write the tower as a folder that ``VisionTower.load`` reads."""
        self.tower.save(folder)

    def blocks_to_shard(self) -> list[nn.Module]:
        """SigLIP's blocks."""
        siglip = self.tower.siglip
        return [*siglip.vision_model.encoder.layers, *siglip.text_model.encoder.layers]
