"""How well a tower's features agree with their texts: zero-shot classification."""

from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from vilau.callbacks.measuring import MeasuringCallback
from vilau.errors import ConfigError
from vilau.metrics.passport import SetFingerprint, text_hash
from vilau.metrics.zero_shot import ZeroShotAccuracy, class_vectors
from vilau.types import EmbeddingOutput, EmbedsTexts, LabelledImageBatch, Passport


class ZeroShot(MeasuringCallback):
    """Logs ``val/zero_shot_top1``, ``_top5``, top-1 of ``_seen`` and ``_held_out`` classes, and a guess's, ``_chance``.

    Where the module gives further features of the same images (``EmbeddingOutput.others``), their
    top-1 is logged too: ``val/zero_shot_top1_unquantized``, ``val/zero_shot_top1_depth1``, ...

    The texts of the classes are embedded once per validation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.accuracy = ZeroShotAccuracy()
        self.others: dict[str, ZeroShotAccuracy] = {}
        self.fingerprint = SetFingerprint()
        self.vectors: Tensor | None = None
        self.texts: list[list[str]] = []

    def begin(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the class vectors too: the text encoder may have been trained since."""
        self.vectors, self.texts, self.others = None, [], {}
        for metric in (self.accuracy, self.fingerprint):
            metric.to(pl_module.device).reset()

    def observe(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any
    ) -> bool:
        """Classify a batch's images."""
        if not isinstance(batch, LabelledImageBatch) or not isinstance(outputs, EmbeddingOutput):
            return False
        if self.vectors is None:
            if not isinstance(pl_module, EmbedsTexts):
                raise ConfigError(
                    "trainer.callbacks holds ZeroShot, which needs a model with text features, and "
                    f"{type(pl_module).__name__} has none; take the callback out."
                )
            self.texts = batch.class_texts
            self.vectors = class_vectors(pl_module.text_features, batch.class_texts)
        self.accuracy.update(outputs.features, batch.labels, self.vectors, batch.held_out)
        for name, features in outputs.others.items():
            if name not in self.others:
                self.others[name] = ZeroShotAccuracy().to(pl_module.device)
            self.others[name].update(features, batch.labels, self.vectors, batch.held_out)
        self.fingerprint.update(batch.images)
        return True

    def finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        """Report."""
        digest, count = self.fingerprint.compute()
        prompts = text_hash(text for texts in self.texts for text in texts)
        passport = Passport(
            metric="zero-shot accuracy (template mean, renormalised)",
            reference=f"{split} images {digest}",
            num_samples=count,
            details=f"{len(self.texts)} classes, prompts {prompts}",
        )
        for name, value in self.accuracy.compute().items():
            full = f"{split}/zero_shot_{name}"
            self.report(pl_module, full, value, passport, prog_bar=name == "top1")
        for name, accuracy in self.others.items():
            full = f"{split}/zero_shot_top1_{name}"
            self.report(pl_module, full, accuracy.compute()["top1"], passport)
        guess = replace(passport, metric="accuracy of a guess, all classes equally likely")
        self.report(pl_module, f"{split}/zero_shot_chance", 1 / len(self.texts), guess)
