"""What pretraining and fine-tuning share: one next-token loss over text and codes (VILA-U section 3.2)."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from vilau.errors import ConfigError
from vilau.layers.isolation import check_isolating, check_sharing
from vilau.layers.pixels import to_uint8
from vilau.layers.ranks import many_ranks
from vilau.models.causal.model import CausalModel
from vilau.models.interface import LossTerms
from vilau.training.base import TrainingModule
from vilau.training.code_checks import check_codes
from vilau.training.document_counts import DocumentCounts, sentence
from vilau.training.optimizers import OptimizerConfig
from vilau.training.step_counts import (
    StepCounts,
    check_loss_average,
    check_whole_steps,
    over_ranks,
    shares,
)
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
    """The step that pretraining and fine-tuning share, whatever the family of the model."""

    model: CausalModel

    def __init__(
        self,
        optimizer: OptimizerConfig,
        *,
        own: Mapping[str, Any],
        caption_dropout: float,
        text_weight: float,
        visual_weight: float,
        guidance_scale: float,
        loss_average: str,
        packing: bool,
        length_groups: int,
        share_images: bool,
    ) -> None:
        """Take what all of them are told, and remember it beside a module's ``own`` hyper-parameters."""
        super().__init__(optimizer)
        self.remember(
            **own,
            caption_dropout=caption_dropout,
            text_weight=text_weight,
            visual_weight=visual_weight,
            guidance_scale=guidance_scale,
            loss_average=loss_average,
            packing=packing,
            length_groups=length_groups,
            share_images=share_images,
            optimizer=optimizer,
        )
        if not 0 <= caption_dropout <= 1:
            raise ConfigError(
                f"model.caption_dropout is {caption_dropout}; write a share from 0 to 1."
            )
        if length_groups < 1:
            raise ConfigError(f"model.length_groups is {length_groups}; write 1 or more.")
        check_loss_average(loss_average)
        self.caption_dropout = caption_dropout
        self.loss_weights = {"text": text_weight, "visual": visual_weight}
        self.guidance_scale = guidance_scale
        self.loss_average, self.packing = loss_average, packing
        self.length_groups, self.share_images = length_groups, share_images
        self._step_counts = StepCounts()
        self._documents, self._val_documents = DocumentCounts(), DocumentCounts()
        self._val_totals: dict[str, int] | None = None

    def setup(self, stage: str) -> None:
        """Refuse stored codes of another tower, and attention that lets a packed row's documents see one another."""
        super().setup(stage)
        check_codes(getattr(self.trainer, "datamodule", None), self.model.tokenizer)
        if stage == "fit" and self.packing:
            check_isolating(str(self.model.language.config._attn_implementation))
        if stage == "fit" and self.share_images:
            check_sharing(str(self.model.language.config._attn_implementation))

    def on_train_start(self) -> None:
        """Refuse an epoch that ends inside an accumulated step."""
        if self._accumulates():
            check_whole_steps(self.trainer)

    def training_step(self, batch: MultimodalBatch, batch_idx: int) -> Tensor:
        """One step; a share of the captions to draw from is dropped, which guidance needs later.

        With ``loss_average: global`` the gradients of an optimiser step are those of the mean over all its
        predictions, whatever ranks and accumulated parts they are spread over; with ``published`` each part of each
        rank takes its own mean, and the step the mean of these.
        """
        if self._accumulates():
            documents = self._step_counts.documents(batch, self._some_dropped)
        else:
            documents = self._some_dropped(batch.documents)
        self._log_dropout(batch.documents, documents)
        terms = self._losses(dataclasses.replace(batch, documents=documents))
        self._log_terms(terms, "train", terms.counts)
        own = terms.total(self.loss_weights, self._divisors(terms.counts))
        self.log("train/loss", own.detach(), prog_bar=True)
        self._documents.add(len(documents), terms)
        if self._logs_documents():
            self._log_documents("train", self._documents.totals(self.device))
        counts = self._shares_of_step(terms)
        return own if counts is None else terms.total(self.loss_weights, self._divisors(counts))

    def _divisors(self, counts: Mapping[str, float]) -> Mapping[str, float]:
        """What each term is divided by: its own predictions, or with a joint loss all of them."""
        return dict.fromkeys(counts, sum(counts.values())) if self.model.joint_loss else counts

    def _losses(self, batch: MultimodalBatch) -> LossTerms:
        return self.model.losses(
            batch,
            packing=self.packing,
            length_groups=self.length_groups,
            share_images=self.share_images,
        )

    def _accumulates(self) -> bool:
        """Whether a step's mean runs over parts that are still to come."""
        return self.loss_average == "global" and self.trainer.accumulate_grad_batches > 1

    def _shares_of_step(self, terms: LossTerms) -> dict[str, float] | None:
        """What the sums of this part of the step are divided by; None: their own counts."""
        if self._accumulates():
            return self._step_counts.shares(
                self.model.count_targets, trainer=self.trainer, device=self.device
            )
        if self.loss_average == "published" or self.trainer.world_size == 1:
            return None
        return shares(over_ranks(terms.counts, self.device), self.trainer)

    def _some_dropped(self, documents: Sequence[Document]) -> list[Document]:
        return [self._maybe_dropped(document) for document in documents]

    def _maybe_dropped(self, document: Document) -> Document:
        if not _draws(document) or float(torch.rand(())) >= self.caption_dropout:
            return document
        return without_words_to_draw(document, null=self.model.prompt.null_words)

    def _log_dropout(self, given: Sequence[Document], kept: Sequence[Document]) -> None:
        dropped = [new is not old for old, new in zip(given, kept, strict=True) if _draws(old)]
        if dropped:
            self.log("train/dropped_captions", sum(dropped) / len(dropped))

    # ---------------------------------------------------------------- documents that do not fit

    def _logs_documents(self) -> bool:
        """Whether the totals are logged in this step: ranks ask one another only where a logger will write them."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # Lightning sets it elsewhere
        return not many_ranks() or (every > 0 and (self.trainer.global_step + 1) % every == 0)

    def _log_documents(self, split: str, totals: dict[str, int]) -> None:
        """Log running totals as ``<split>/dropped_documents`` and ``<split>/cut_documents``, where there are any."""
        for name in ("dropped", "cut"):
            if totals[name]:  # equal on all ranks, as is their mean
                self.log(
                    f"{split}/{name}_documents",
                    float(totals[name]),
                    batch_size=1,
                    sync_dist=many_ranks(),
                )

    def on_train_epoch_end(self) -> None:
        """Log the totals of documents that were left out or cut, whatever steps are logged."""
        self._log_documents("train", self._documents.totals(self.device))

    def on_validation_epoch_start(self) -> None:
        """Count the validation set's documents anew."""
        self._val_documents = DocumentCounts()

    def on_validation_epoch_end(self) -> None:
        """Log how many of the validation set's documents were left out or cut."""
        self._val_totals = self._val_documents.totals(self.device)
        self._log_documents("val", self._val_totals)

    def on_train_end(self) -> None:
        """Say how many of how many documents did not fit, if any."""
        totals = {"training": self._documents.totals(self.device)}
        if self._val_totals:
            totals["validation"] = self._val_totals
        if text := sentence(totals, self.model.sequence.max_length):
            rank_zero_warn(text)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the totals of documents, with which a resumed run goes on; every rank saves."""
        checkpoint["documents"] = self._documents.totals(self.device)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting documents; checkpoints of earlier versions have no totals."""
        self._documents.go_on_from(checkpoint.get("documents", {}))

    def validation_step(self, batch: MultimodalBatch, batch_idx: int) -> None:
        """Log the mean loss per predicted token over the whole validation set."""
        terms = self._losses(batch)
        self._val_documents.add(len(batch.documents), terms)
        # What one rank logs all must, or they wait for one another at the end.
        self._log_terms(terms, "val", over_ranks(terms.counts, self.device))

    def _log_terms(self, terms: LossTerms, split: str, present: Mapping[str, int]) -> None:
        means = terms.means()
        for name in (name for name, count in present.items() if count):
            # Weighted by predictions, so the epoch mean is a mean over tokens, not over batches.
            self.log(
                f"{split}/{name}_loss",
                means.get(name, terms.sums[name]).detach(),
                batch_size=terms.counts[name],
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
        """The model's own."""
        return self.model.blocks_to_shard()


def _draws(document: Document) -> bool:
    return any(isinstance(segment, DRAWN) and segment.target for segment in document.segments)


def without_words_to_draw(document: Document, *, null: str = "") -> Document:
    """Put ``null`` in the place of the texts that ask for an image or a clip: one in each turn, the others empty.

    Turns answered in words keep their questions.
    """
    kept: list[Segment] = []
    draws = in_answer = False
    first: int | None = None
    for segment in reversed(document.segments):
        if segment.target:
            if not in_answer:
                first = None
            draws = isinstance(segment, DRAWN) or (draws and in_answer)
        elif draws and isinstance(segment, TextSegment):
            if first is not None:  # another text of the turn, behind this one
                kept[first] = TextSegment("")
            first, segment = len(kept), TextSegment(null)
        in_answer = segment.target
        kept.append(segment)
    return dataclasses.replace(document, segments=tuple(reversed(kept)))
