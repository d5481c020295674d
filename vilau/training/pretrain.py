"""Multimodal pretraining: one next-token loss over text and codes (VILA-U section 3.2)."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vilau.layers.pixels import to_uint8
from vilau.models.interface import LossTerms
from vilau.models.loading import load_tower
from vilau.models.sizes import LanguageConfig
from vilau.models.vila_u.config import HeadConfig, PromptConfig
from vilau.models.vila_u.model import VilaU
from vilau.training.base import TrainingModule, given
from vilau.training.optimizers import OptimizerConfig
from vilau.types import (
    Document,
    ImageSegment,
    MultimodalBatch,
    Segment,
    TextSegment,
    VideoSegment,
)

DRAWN = (ImageSegment, VideoSegment)


class LanguageTraining(TrainingModule):
    """The step that pretraining and fine-tuning share; the model is any ``UnifiedModel``."""

    model: VilaU

    def __init__(
        self,
        optimizer: OptimizerConfig,
        *,
        caption_dropout: float,
        loss_weights: dict[str, float],
        guidance_scale: float,
    ) -> None:
        super().__init__(optimizer)
        self.caption_dropout = caption_dropout
        self.loss_weights = loss_weights
        self.guidance_scale = guidance_scale

    def training_step(self, batch: MultimodalBatch, batch_idx: int) -> Tensor:
        """One step; a share of the captions to draw from is dropped, which guidance needs later."""
        documents = [self._maybe_dropped(d) for d in batch.documents]
        terms = self.model.losses(MultimodalBatch(batch.images, documents))
        loss = terms.total(self.loss_weights)
        self._log_terms(terms, "train")
        self.log("train/loss", loss.detach(), prog_bar=True)
        if terms.dropped:
            self.log("train/dropped_documents", float(terms.dropped))
        return loss

    def _maybe_dropped(self, document: Document) -> Document:
        drawn = any(isinstance(s, DRAWN) and s.target for s in document.segments)
        if not drawn or float(torch.rand(())) >= self.caption_dropout:
            return document
        return without_words_to_draw(document)

    def validation_step(self, batch: MultimodalBatch, batch_idx: int) -> None:
        """Log the mean loss per predicted token over the whole validation set."""
        self._log_terms(self.model.losses(batch), "val")

    def _log_terms(self, terms: LossTerms, split: str) -> None:
        for name, value in terms.means().items():
            # Weighted by predictions, so the epoch mean is a mean over tokens, not over batches.
            self.log(
                f"{split}/{name}_loss",
                value.detach(),
                batch_size=int(terms.counts[name]),
                on_step=split == "train",
                on_epoch=split != "train",
                sync_dist=split != "train",
            )

    def draw(self, prompts: Sequence[str], *, seed: int) -> Tensor:
        """Draw prompts as they are drawn so far (for a look during training): uint8 ``(B, 3, H, W)``."""
        images = self.model.generate_images(prompts, seed=seed, guidance_scale=self.guidance_scale)
        return to_uint8(images)

    def export(self, folder: str) -> None:
        """Write the model as a folder that ``vilau.load`` reads."""
        self.model.save(folder)

    def blocks_to_shard(self) -> list[nn.Module]:
        """The blocks of the language model, the depth transformer and the frozen tower."""
        siglip = self.model.tokenizer.siglip
        return [
            *self.model.language.model.layers,
            *self.model.head.blocks,
            *siglip.vision_model.encoder.layers,
            *siglip.text_model.encoder.layers,
        ]


def without_words_to_draw(document: Document) -> Document:
    """Empty the texts that ask for an image or a clip; turns answered in words keep their questions."""
    kept: list[Segment] = []
    draws = in_answer = False
    for segment in reversed(document.segments):
        if segment.target:
            draws = isinstance(segment, DRAWN) or (draws and in_answer)
        elif draws and isinstance(segment, TextSegment):
            segment = TextSegment("")
        in_answer = segment.target
        kept.append(segment)
    return dataclasses.replace(document, segments=tuple(reversed(kept)))


class MultimodalPretraining(LanguageTraining):
    """Train language model, projector and depth transformer on pairs; the tower stays frozen."""

    def __init__(
        self,
        tower_checkpoint: str,
        language: LanguageConfig | None = None,
        head: HeadConfig | None = None,
        prompt: PromptConfig | None = None,
        caption_dropout: float = 0.1,
        text_weight: float = 1.0,
        visual_weight: float = 1.0,
        guidance_scale: float = 3.0,
        standardise_codes: bool = False,
        optimizer: OptimizerConfig | None = None,
    ) -> None:
        """Start from a trained tower, which is whatever ``vilau.load_tower`` opens, and a language model.

        ``caption_dropout`` is the share of drawing prompts replaced by the null prompt (VILA-U publishes none;
        10 % is the usual rate for classifier-free guidance). ``guidance_scale`` is for drawings shown during training.
        ``standardise_codes`` folds mean and deviation of the first batch's code vectors into the first layers that
        read them (not published; a start, no layer: with it short runs learn faster).
        """
        optimizer = given(OptimizerConfig(learning_rate=5e-5), optimizer)
        super().__init__(
            optimizer,
            caption_dropout=caption_dropout,
            loss_weights={"text": text_weight, "visual": visual_weight},
            guidance_scale=guidance_scale,
        )
        language, head = given(LanguageConfig(), language), given(HeadConfig(), head)
        prompt = given(PromptConfig(), prompt)
        self.remember(
            tower_checkpoint=tower_checkpoint,
            language=language,
            head=head,
            prompt=prompt,
            caption_dropout=caption_dropout,
            text_weight=text_weight,
            visual_weight=visual_weight,
            guidance_scale=guidance_scale,
            standardise_codes=standardise_codes,
            optimizer=optimizer,
        )
        self.standardise_codes = standardise_codes
        tower = load_tower(tower_checkpoint, dtype=torch.float32)
        self.model = VilaU.start(tower, language, head, prompt)

    def training_step(self, batch: MultimodalBatch, batch_idx: int) -> Tensor:
        """One step, see ``LanguageTraining``; before the very first, ``standardise_codes``."""
        if self.standardise_codes and self.global_step == 0 and batch_idx == 0:
            self.model.standardise_codes(batch.images)
        return super().training_step(batch, batch_idx)
