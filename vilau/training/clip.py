"""Contrastive pretraining of a SigLIP (Zhai et al. 2023): where the drawn world's towers start from."""

from collections.abc import Sequence
from dataclasses import asdict

import torch
import torch.nn.functional as F
from torch import Tensor

from vilau.layers.pixels import to_float
from vilau.layers.ranks import many_ranks
from vilau.models.encoders.load import load_encoders
from vilau.models.encoders.weights import build_encoders
from vilau.models.siglip import KIND, TextInputs, check_image_size
from vilau.models.sizes import SiglipSizes
from vilau.models.storage import save_folder
from vilau.training.alignment import AlignmentConfig, pair_loss
from vilau.training.base import TrainingModule, given
from vilau.training.optimizers import OptimizerConfig
from vilau.training.tower_checks import check_negatives
from vilau.types import EmbeddingOutput, ImageTextBatch, LabelledImageBatch


class ClipPretraining(TrainingModule):
    """Train image and text encoders on pairs, with every true caption of a batch as a positive."""

    def __init__(
        self,
        siglip: SiglipSizes | None = None,
        checkpoint: str | None = None,
        logit_bias: float = -10.0,
        optimizer: OptimizerConfig | None = None,
        alignment: AlignmentConfig | None = None,
    ) -> None:
        """Start from random weights of ``siglip``'s sizes, or go on from a saved ``checkpoint`` folder.

        ``logit_bias`` is where the bias starts; -10 fits large batches of distinct captions, -3 the short
        captions of the curriculum, of which many are true of many images. ``alignment`` says which loss, and which
        texts of several processes an image is compared with.
        """
        optimizer, sizes = given(OptimizerConfig(), optimizer), given(SiglipSizes(), siglip)
        super().__init__(optimizer)
        self.alignment = given(AlignmentConfig(), alignment)
        if checkpoint is not None:
            self.model, self.sizes = load_encoders(checkpoint)
        else:
            sizes.check_border()
            self.sizes = sizes
            self.model = build_encoders(self.sizes, logit_bias=logit_bias)
        self.remember(
            siglip=self.sizes, checkpoint=checkpoint, logit_bias=logit_bias, optimizer=optimizer,
            alignment=self.alignment,
        )  # fmt: skip
        if self.alignment.loss == "softmax":  # which does not see the bias
            self.model.logit_bias.requires_grad = False
        self._text_inputs = TextInputs(self.sizes)

    def setup(self, stage: str) -> None:
        """Refuse what the loss cannot work with."""
        super().setup(stage)
        if stage == "fit":
            check_negatives(self.trainer, self.alignment.negatives)

    def image_features(self, images: Tensor) -> Tensor:
        """Normalised features ``(B, C)`` of uint8 images."""
        check_image_size(images, self.sizes)
        vision = self.model.vision_model
        hidden = vision.embeddings(to_float(images))
        for block in vision.encoder.layers:
            hidden = block(hidden, attention_mask=None)
        return F.normalize(vision.head(vision.post_layernorm(hidden)).float(), dim=-1)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Normalised features ``(len(texts), C)``."""
        ids = self._text_inputs(texts, self.device)
        return F.normalize(self.model.text_model(input_ids=ids).pooler_output.float(), dim=-1)

    def _loss(self, batch: ImageTextBatch) -> Tensor:
        # Ranks may have unlike numbers of validation batches, so none waits for another there.
        over_ranks = self.training and self.alignment.negatives != "rank" and many_ranks()
        return pair_loss(
            self.image_features(batch.images),
            self.text_features(batch.texts),
            batch,
            scale=self.model.logit_scale,
            bias=self.model.logit_bias,
            kind=self.alignment.loss,
            over_ranks=over_ranks,
        )

    def training_step(self, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        """One contrastive step."""
        loss = self._loss(batch)
        self.log_losses({"contrastive": loss}, split="train", batch_size=len(batch.texts))
        self.log("train/logit_scale", self.model.logit_scale.detach().exp())
        self.log("train/loss", loss.detach(), prog_bar=True)
        return loss

    def validation_step(  # type: ignore[override]  # callbacks read typed outputs
        self, batch: ImageTextBatch | LabelledImageBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> EmbeddingOutput:
        """Embed a batch; zero-shot accuracy is a callback's work."""
        if isinstance(batch, ImageTextBatch):
            self.log(
                "val/contrastive_loss",
                self._loss(batch),
                batch_size=len(batch.texts),
                add_dataloader_idx=False,
                sync_dist=True,
            )
        return EmbeddingOutput(self.image_features(batch.images))

    def export(self, folder: str) -> None:
        """Write the SigLIP as a folder that ``load_encoders`` reads."""
        save_folder(folder, kind=KIND, config={"sizes": asdict(self.sizes)}, module=self.model)

    def blocks_to_shard(self) -> list[torch.nn.Module]:
        """The blocks of both encoders."""
        return [
            *self.model.vision_model.encoder.layers,
            *self.model.text_model.encoder.layers,
        ]
