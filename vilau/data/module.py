"""What the data modules of this kit share: sets in the cache, loaders that know the trainer."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from lightning.pytorch import LightningDataModule

from vilau.data.pairs import Split
from vilau.data.shards import ShardSet
from vilau.data.streaming import Devices, EpochOrder, FixedLoader, MakeBatch, TrainLoader
from vilau.errors import ConfigError
from vilau.types import CodedSet


class StreamedDataModule(LightningDataModule):
    """Base of the data modules; ``setup`` opens what the loaders read.

    Args:
        image_size: side of the images in pixels.
        global_batch_size: samples per optimizer step over all devices.
        num_workers: loader processes per device; batches do not depend on it.
        seed: with the epoch, decides all that is random.

    Raises:
        ConfigError: a number makes no sense.
    """

    def __init__(
        self, *, image_size: int, global_batch_size: int, num_workers: int, seed: int
    ) -> None:
        super().__init__()
        for key, value, least in (
            ("image_size", image_size, 1),
            ("global_batch_size", global_batch_size, 1),
            ("num_workers", num_workers, 0),
            ("seed", seed, 0),
        ):
            if value < least:
                raise ConfigError(f"data.{key} is {value}; write a whole number from {least} on.")
        self.image_size, self.global_batch_size = image_size, global_batch_size
        self.num_workers, self.seed = num_workers, seed

    def prepare_data(self) -> None:
        """Write what is not in the cache yet (once per machine)."""
        self.setup()

    @abstractmethod
    def setup(self, stage: str | None = None) -> None:
        """Open the sets."""

    def coded_sets(self) -> list[CodedSet]:
        """The sets that hold codes in the place of images; see ``vilau.types.ReadsCodes``."""
        split: Split | None = getattr(self, "_split", None)
        return [] if split is None else coded_sets(split.train, split.val)

    def _train_loader(
        self, make_batch: MakeBatch, shards: ShardSet, indices: np.ndarray
    ) -> TrainLoader:
        return TrainLoader(
            make_batch,
            EpochOrder(shards.chunk_sizes, seed=self.seed, keep=indices),
            global_batch_size=self.global_batch_size,
            devices=Devices.of(self.trainer),
            num_workers=self.num_workers,
        )

    def _fixed_loader(self, make_batch: MakeBatch, indices: np.ndarray) -> FixedLoader:
        return FixedLoader(
            make_batch,
            indices,
            global_batch_size=self.global_batch_size,
            devices=Devices.of(self.trainer),
            num_workers=self.num_workers,
        )


def coded_sets(*sets: ShardSet) -> list[CodedSet]:
    """What those of ``sets`` that hold codes tell of them, each once."""
    told = [
        CodedSet(str(shards.folder), shards.coding.tower, shards.coding.encoded_by)
        for shards in sets
        if shards.coding is not None
    ]
    return list(dict.fromkeys(told))
