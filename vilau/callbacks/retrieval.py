"""How well a tower's features find the right text for an image among many, and the right image for a text."""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from torch import Tensor

from vilau.callbacks.measuring import MeasuringCallback
from vilau.errors import ConfigError
from vilau.metrics.passport import SetFingerprint
from vilau.metrics.retrieval import RetrievalRecall
from vilau.types import EmbedsImages, EmbedsTexts, ImageTextBatch, Passport

KEY_BYTES = 7
"""Of a text's hash: 56 bits, never negative as int64."""
CHUNK = 8192
"""Texts that a batch is asked about at a time."""

Truth = Callable[[Sequence[str]], Tensor]


class Retrieval(MeasuringCallback):
    """Logs ``val/retrieval_image_to_text_r1``, ``_r5``, ``_r10`` and ``val/retrieval_text_to_image_r1``, ...

    Every validation image is compared with every validation text, of all ranks. A tower's image features are
    those of the quantised image. Equal texts are one text. A text is right for each image that it is true of:
    those it came with and, where the data know it (``ImageTextBatch.truth``: the drawn world's short captions,
    "a star", are true of many images), all others too; one right answer among the k nearest is a hit. Where
    only the pairs are known, a text that happens to fit another image counts as wrong for it, as in
    published scores. Names with ``_chance`` say what ordering by chance would give, which is a lot where much
    is true of much.

    Args:
        ks: the k of R@k, each 1 or more.
    """

    def __init__(self, ks: Sequence[int] = (1, 5, 10)) -> None:
        super().__init__()
        if not ks or min(ks) < 1:
            raise ConfigError(f"Retrieval.ks is {list(ks)}; write numbers of 1 or more.")
        self.recall = RetrievalRecall(ks)
        self.fingerprint = SetFingerprint()
        self.texts: set[str] = set()
        self.truths: list[tuple[int, Truth]] = []
        self.num_images = 0

    def begin(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the texts' features too: the text encoder may have been trained since."""
        for metric in (self.recall, self.fingerprint):
            metric.to(pl_module.device).reset()
        self.texts, self.truths, self.num_images = set(), [], 0

    def observe(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any
    ) -> bool:
        """Embed a batch of pairs."""
        if not isinstance(batch, ImageTextBatch):
            return False
        if not isinstance(pl_module, EmbedsImages) or not isinstance(pl_module, EmbedsTexts):
            raise ConfigError(
                "trainer.callbacks holds Retrieval, which needs a model with features of images and texts, and "
                f"{type(pl_module).__name__} has none; take the callback out."
            )
        fresh = {text: row for row, text in enumerate(batch.texts) if text not in self.texts}
        with torch.no_grad(), trainer.strategy.precision_plugin.val_step_context():
            images = pl_module.image_features(batch.images)
            texts = pl_module.text_features(list(fresh)) if fresh else images[:0]
        owners = torch.tensor(list(fresh.values()), dtype=torch.int64)
        self.recall.update(images, texts, owners, text_keys(list(fresh)))
        rows = torch.arange(len(images)) + self.num_images
        self.recall.add_true(rows, text_keys(batch.texts))
        self.texts |= fresh.keys()
        if batch.truth is not None:
            self.truths.append((self.num_images, batch.truth))
        self.num_images += len(batch.images)
        self.fingerprint.update(batch.images, batch.texts)
        return True

    def finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        """Report."""
        texts = self._all_texts(trainer)
        told = trainer.strategy.reduce_boolean_decision(bool(self.truths), all=False)
        for start in range(0, len(texts) if told else 0, CHUNK):
            self._add_true(texts[start : start + CHUNK])
        digest, count = self.fingerprint.compute()
        passport = Passport(
            metric="retrieval R@k (vilau), cosine, ties count against",
            reference=f"{split} pairs {digest}",
            num_samples=count,
            details=f"{len(texts)} different texts; right are "
            + (
                "all texts known to be true of an image" if told else "the texts an image came with"
            ),
        )
        for name, value in self.recall.compute().items():
            self.report(pl_module, f"{split}/retrieval_{name}", value, passport)

    def _all_texts(self, trainer: pl.Trainer) -> list[str]:
        """The texts of all ranks, each once, in one order."""
        found = [self.texts]
        if trainer.world_size > 1:
            found = [set() for _ in range(trainer.world_size)]
            dist.all_gather_object(found, self.texts)
        return sorted(set().union(*found))

    def _add_true(self, texts: list[str]) -> None:
        keys = text_keys(texts)
        for first, truth in self.truths:
            rows, columns = truth(texts).nonzero(as_tuple=True)
            self.recall.add_true(rows + first, keys[columns.cpu()])


def text_keys(texts: Sequence[str]) -> Tensor:
    """Return int64 ``(len(texts),)``: equal for equal texts, on every rank."""
    digests = (blake2b(text.encode(), digest_size=KEY_BYTES).digest() for text in texts)
    return torch.tensor([int.from_bytes(digest) for digest in digests], dtype=torch.int64)
