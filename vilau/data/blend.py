"""Several sources of documents in one run, each with a weight, as VILA-U fine-tunes: a dozen sets of instructions
beside images and clips to draw. Its scripts have no weights but take each set in proportion to its size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from vilau.data.document_module import DocumentModule, Stream
from vilau.data.module import StreamedDataModule
from vilau.data.streaming import Devices, EpochOrder, FixedLoader, TrainLoader
from vilau.data.world_data import WorldSplit
from vilau.errors import ConfigError
from vilau.types import CodedSet, MultimodalBatch


@dataclass
class BlendSource:
    """One source of a ``Blend``."""

    weight: float
    """Share of the documents' samples that it gives, relative to the other sources' weights."""
    data: DocumentModule
    """Its own data module: path, forms, folders, seed. Its batch size and workers are the blend's."""


class Blend(StreamedDataModule):
    """Mixes data modules of documents by weight; loaders of ``MultimodalBatch``.

    An epoch has a fixed number of samples, of which each source gives its weight's share, in an order that depends on
    ``(seed, epoch)`` alone. Each source goes through its own samples in its own order, epoch by epoch at its own pace,
    so that none is seen twice before all were seen once; a run that was stopped goes on exactly.

    Args:
        sources: what is mixed: weights, and data modules of documents (``MultimodalMixture``, ``Instructions``).
        image_size: side of the images in pixels; that of all sources.
        global_batch_size: samples per optimizer step over all devices.
        samples_per_epoch: length of an epoch; None: as many as the sources hold together.
        num_workers: loader processes per device; batches do not depend on it.
        seed: with the epoch, decides which source comes when.

    Raises:
        ConfigError: a setting makes no sense.
        DataError: data are missing or broken.
    """

    def __init__(
        self,
        sources: list[BlendSource],
        image_size: int = 64,
        global_batch_size: int = 64,
        samples_per_epoch: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            image_size=image_size,
            global_batch_size=global_batch_size,
            num_workers=num_workers,
            seed=seed,
        )
        if not sources:
            raise ConfigError("data.sources is empty; name at least one source.")
        for number, source in enumerate(sources):
            key = f"data.sources[{number}]"
            if not source.weight > 0:
                raise ConfigError(
                    f"{key}.weight is {source.weight:g}; write a number above 0, or leave the source out."
                )
            if source.data.image_size != image_size:
                raise ConfigError(
                    f"{key}.data.image_size is {source.data.image_size}, but data.image_size is {image_size}; write "
                    f"{image_size} in both."
                )
        if samples_per_epoch is not None and samples_per_epoch < len(sources):
            raise ConfigError(
                f"data.samples_per_epoch is {samples_per_epoch}; write at least {len(sources)}, one for each source."
            )
        self.sources, self.samples_per_epoch = sources, samples_per_epoch

    def setup(self, stage: str | None = None) -> None:
        """Open the sets of all sources."""
        for source in self.sources:
            source.data.setup(stage)

    def coded_sets(self) -> list[CodedSet]:
        """The sets of all sources that hold codes."""
        found = [coded for source in self.sources for coded in source.data.coded_sets()]
        return list(dict.fromkeys(found))

    def train_dataloader(self) -> TrainLoader:
        """Stateful loader of ``MultimodalBatch``."""
        streams = self._streams("train")
        total = self.samples_per_epoch or sum(len(stream.indices) for stream in streams)
        counts = shares_of(total, [source.weight for source in self.sources])
        orders = [
            EpochOrder(stream.shards.chunk_sizes, seed=source.data.seed, keep=stream.indices)
            for stream, source in zip(streams, self.sources, strict=True)
        ]
        return TrainLoader(
            BlendBatches(streams, tuple(orders), counts, self.seed),
            Slots(sum(counts), seed=self.seed),
            global_batch_size=self.global_batch_size,
            devices=Devices.of(self.trainer),
            num_workers=self.num_workers,
        )

    def val_dataloader(self) -> FixedLoader:
        """Loader of ``MultimodalBatch`` over the validation samples of all sources, whatever their weights."""
        streams = self._streams("val")
        return FixedLoader(
            FixedBlendBatches(streams),
            np.arange(sum(len(stream.indices) for stream in streams)),
            global_batch_size=self.global_batch_size,
            devices=Devices.of(self.trainer),
            num_workers=self.num_workers,
        )

    def _streams(self, split: WorldSplit) -> tuple[Stream, ...]:
        return tuple(source.data.stream(split) for source in self.sources)


class Slots:
    """The samples of a blend's epoch: so many places, one after another (see ``Order``)."""

    def __init__(self, num_samples: int, *, seed: int) -> None:
        self.num_samples, self.seed = num_samples, seed

    def indices(self, epoch: int) -> np.ndarray:
        """Return all places ``(num_samples,)``."""
        return np.arange(self.num_samples)

    def told(self) -> list[Any]:
        """What decides the order beside the seed."""
        return [self.num_samples]


@dataclass(frozen=True)
class BlendBatches:
    """Builds a training batch from places in a blend's epoch; the documents of one source follow one another."""

    streams: tuple[Stream, ...]
    orders: tuple[EpochOrder, ...]
    counts: tuple[int, ...]
    """Samples that each source gives to an epoch."""
    seed: int

    def __call__(self, epoch: int, slots: np.ndarray) -> MultimodalBatch:
        """Return the batch of the places ``slots`` ``(B,)``."""
        owners, numbers = epoch_plan(self.counts, self.seed, epoch)
        batches = []
        for owner, (stream, order) in enumerate(zip(self.streams, self.orders, strict=True)):
            wanted = numbers[slots][owners[slots] == owner] + epoch * self.counts[owner]
            passes, places = np.divmod(wanted, order.num_samples)
            for own_epoch in np.unique(passes).tolist():
                samples = _in_order(order, own_epoch)[places[passes == own_epoch]]
                batches.append(stream.make_batch(own_epoch, samples))
        return MultimodalBatch.joined(batches)


@dataclass(frozen=True)
class FixedBlendBatches:
    """Builds a validation batch: the sources' samples one source after another."""

    streams: tuple[Stream, ...]

    def __call__(self, epoch: int, slots: np.ndarray) -> MultimodalBatch:
        """Return the batch of the places ``slots`` ``(B,)``."""
        ends = np.cumsum([len(stream.indices) for stream in self.streams])
        owners = np.searchsorted(ends, slots, side="right")
        batches = []
        for owner in np.unique(owners).tolist():
            stream = self.streams[owner]
            first = ends[owner] - len(stream.indices)
            batches.append(stream.make_batch(epoch, stream.indices[slots[owners == owner] - first]))
        return MultimodalBatch.joined(batches)


def shares_of(total: int, weights: Sequence[float]) -> tuple[int, ...]:
    """Part ``total`` samples by weight, each source at least one; what rounding leaves goes to the largest remainders.

    Raises:
        ConfigError: a source would give less than half a sample.
    """
    wanted = np.asarray(weights) / sum(weights) * total
    for number, share in enumerate(wanted):
        if share < 0.5:
            raise ConfigError(
                f"data.sources[{number}].weight is {weights[number]:g}, which gives it less than one of an epoch's "
                f"{total} samples; write a larger weight, or a larger data.samples_per_epoch."
            )
    counts = np.maximum(np.floor(wanted), 1).astype(int)
    for number in np.argsort(counts - wanted, kind="stable")[: max(0, total - counts.sum())]:
        counts[number] += 1
    return tuple(counts.tolist())


@lru_cache(maxsize=16)
def _in_order(order: EpochOrder, epoch: int) -> np.ndarray:
    return order.indices(epoch)


@lru_cache(maxsize=4)
def epoch_plan(counts: tuple[int, ...], seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each place of an epoch its source, and the how-manieth of that source in the epoch it is."""
    owners = np.repeat(np.arange(len(counts)), counts)
    owners = np.random.default_rng((seed, epoch, 1)).permutation(owners)
    numbers = np.empty_like(owners)
    for owner, count in enumerate(counts):
        numbers[owners == owner] = np.arange(count)
    return owners, numbers
