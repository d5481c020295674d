"""What data modules of documents share: a stream of batches for training and one for validation."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from vilau.data.module import StreamedDataModule
from vilau.data.shards import ShardSet
from vilau.data.streaming import FixedLoader, MakeBatch, TrainLoader
from vilau.data.world_data import WorldSplit


@dataclass(frozen=True)
class Stream:
    """The samples of one split, and what makes a ``MultimodalBatch`` of some of them."""

    make_batch: MakeBatch
    shards: ShardSet
    indices: np.ndarray
    """The samples of the split, as places in ``shards``."""


class DocumentModule(StreamedDataModule):
    """Base of the data modules whose batches are ``MultimodalBatch``; a ``Blend`` mixes several."""

    @abstractmethod
    def stream(self, split: WorldSplit) -> Stream:
        """The samples of ``train`` or ``val``; after ``setup``."""

    def train_dataloader(self) -> TrainLoader:
        """Stateful loader of ``MultimodalBatch``."""
        stream = self.stream("train")
        return self._train_loader(stream.make_batch, stream.shards, stream.indices)

    def val_dataloader(self) -> FixedLoader:
        """Loader of ``MultimodalBatch`` over a fixed set."""
        stream = self.stream("val")
        return self._fixed_loader(stream.make_batch, stream.indices)
