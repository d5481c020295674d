"""Loaders whose position is a pair of numbers: exact resume, any number of ranks and workers.

The order of an epoch is a pure function of ``(seed, epoch)``, and what a batch holds is a pure
function of ``(epoch, sample indices)``. A training run's place in its data is then ``(epoch,
position)``, which Lightning stores through ``state_dict``; nothing random has to be saved. A global
batch is one run of the order, cut into equal slices for micro-steps and ranks, so its content does
not depend on how many devices share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, Dataset

from vilau.data.batch_mark import mark_of
from vilau.errors import CheckpointError, ConfigError
from vilau.types import Movable

WINDOW_CHUNKS = 64
"""Chunks shuffled together: 256 MB of encoded samples at the writer's chunk size."""

MakeBatch = Callable[[int, np.ndarray], Any]
"""Takes the epoch and the sample indices, returns a batch of ``vilau.types``."""


@dataclass(frozen=True)
class Devices:
    """How a global batch is shared: between ranks, and between micro-steps of one rank."""

    rank: int = 0
    world_size: int = 1
    accumulate: int = 1

    @staticmethod
    def of(trainer: Trainer | None) -> Devices:
        """Read the trainer that a data module is attached to; one device without a trainer."""
        if trainer is None:
            return Devices()
        return Devices(trainer.global_rank, trainer.world_size, trainer.accumulate_grad_batches)


class Order(Protocol):
    """Which samples an epoch has, and in which order."""

    num_samples: int
    seed: int

    def indices(self, epoch: int) -> np.ndarray:
        """Return all sample indices ``(num_samples,)`` in the order of this epoch."""


class EpochOrder:
    """The order of samples in each epoch.

    Chunks are permuted, then samples are shuffled inside windows of ``window_chunks`` chunks: a
    full shuffle for sets of up to that many chunks, and for larger ones a bounded part of the disk
    in use at a time.

    Args:
        chunk_sizes: number of samples per chunk, in index order.
        seed: with the epoch, fixes the order.
        keep: sample indices to use; None for all.
        window_chunks: see above.
    """

    def __init__(
        self,
        chunk_sizes: Sequence[int],
        *,
        seed: int,
        keep: np.ndarray | None = None,
        window_chunks: int = WINDOW_CHUNKS,
    ) -> None:
        ends = np.cumsum(np.asarray(chunk_sizes, dtype=np.int64))
        kept = np.arange(ends[-1]) if keep is None else np.sort(keep)
        self._parts = np.split(kept, np.searchsorted(kept, ends[:-1]))
        self._window_chunks = window_chunks
        self.seed = seed
        self.num_samples = len(kept)

    def indices(self, epoch: int) -> np.ndarray:
        """Return all sample indices ``(num_samples,)`` in the order of this epoch."""
        rng = np.random.default_rng((self.seed, epoch))
        chunks = rng.permutation(len(self._parts))
        windows = []
        for first in range(0, len(chunks), self._window_chunks):
            some = chunks[first : first + self._window_chunks]
            window = np.concatenate([self._parts[chunk] for chunk in some])
            rng.shuffle(window)
            windows.append(window)
        return np.concatenate(windows)

    def told(self) -> list[Any]:
        """What decides the order, see ``mark_of``."""
        sizes = [len(part) for part in self._parts]
        return [self.seed, self._window_chunks, np.array(sizes), np.concatenate(self._parts)]


class TrainLoader:
    """Endless epochs of global batches; the last incomplete one of an epoch is left out.

    An iteration that begins at the start of an epoch ends with it. One that begins inside (after a
    resume, or where ``limit_train_batches`` cut the one before) runs on into the next epoch:
    Lightning counts batches by ``len`` itself, and the stream goes on where it stood.

    Args:
        make_batch: builds a batch from an epoch and sample indices; must be picklable if there are
            workers. Where it is a dataclass of plain settings and sets, a checkpoint is only resumed with the same.
        order: the order of samples.
        global_batch_size: samples per optimizer step over all devices.
        devices: who shares them.
        num_workers: processes that build batches ahead; the batches do not depend on it.

    Raises:
        ConfigError: the batch does not divide, or the set is smaller than one batch.
    """

    def __init__(
        self,
        make_batch: MakeBatch,
        order: Order,
        *,
        global_batch_size: int,
        devices: Devices,
        num_workers: int = 0,
    ) -> None:
        self._make_batch, self._order = make_batch, order
        self._global_batch_size, self._devices = global_batch_size, devices
        self._num_workers = num_workers
        self.per_device_batch_size = _per_device(global_batch_size, devices)
        if order.num_samples < global_batch_size:
            raise ConfigError(
                f"data.global_batch_size is {global_batch_size} but the training set holds only "
                f"{order.num_samples} samples; write at most {order.num_samples}, or more data."
            )
        self._micro_size = global_batch_size // devices.accumulate
        self._epoch_size = order.num_samples // global_batch_size * global_batch_size
        self._epoch, self._position = 0, 0

    def __len__(self) -> int:
        """Micro-steps per epoch on this rank."""
        return self._epoch_size // self._micro_size

    def __iter__(self) -> Iterator[Any]:
        starts_inside = 0 < self._position < self._epoch_size
        while True:
            if self._position >= self._epoch_size:
                self._epoch, self._position = self._epoch + 1, 0
            batches = _built(self._make_batch, self._plans(), self._num_workers)
            for batch in self._joined(batches):
                # Counted before handing out: Lightning saves the state while the step runs and
                # never asks for the one `next` that would end this loop.
                self._position += self._micro_size
                yield batch
            if not starts_inside:
                return

    def state_dict(self) -> dict[str, int | str]:
        """The place in the data, the same on every rank."""
        mark = {} if self._mark is None else {"batches": self._mark}
        return {"epoch": self._epoch, "position": self._position, **self._identity(), **mark}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a saved place.

        Raises:
            CheckpointError: it was saved over other data, or with another seed.
        """
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise CheckpointError(
                    f"The checkpoint was saved with {name} {state.get(name)} in its training data, "
                    f"now it is {value}; resume with the same data settings, or start a new run."
                )
        # Checkpoints of earlier versions have no mark.
        if None not in (saved := state.get("batches"), self._mark) and saved != self._mark:
            raise CheckpointError(
                f"The checkpoint was saved over other training data, or with other data settings (mark {saved}, now "
                f"{self._mark}), so its place in them means nothing here; resume with the same data settings, or "
                "start a new run."
            )
        if state["position"] % self._micro_size:
            raise CheckpointError(
                f"The checkpoint stands {state['position']} samples into an epoch, which the micro-"
                f"batch of {self._micro_size} does not divide; resume with the same "
                "data.global_batch_size and trainer.accumulate_grad_batches."
            )
        self._epoch, self._position = state["epoch"], state["position"]

    @cached_property
    def _mark(self) -> str | None:
        """What decides the batches beside ``_identity``; workers, ranks and accumulation do not."""
        return mark_of(self._order, self._make_batch)

    def _identity(self) -> dict[str, int]:
        return {
            "num_samples": self._order.num_samples,
            "seed": self._order.seed,
            "global_batch_size": self._global_batch_size,
        }

    def _joined(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Tell batches that are accumulated which step they are part of; they are built before its first part."""
        if self._devices.accumulate == 1:
            yield from batches
            return
        # After a resume inside a step what is left of it is a step of fewer parts.
        missing = (
            self._devices.accumulate - self._position // self._micro_size % self._devices.accumulate
        )
        while parts := list(islice(batches, missing)):
            for number, part in enumerate(parts):
                if isinstance(part, Movable):
                    part.join_step(number, parts)
            yield from parts
            missing = self._devices.accumulate

    def _plans(self) -> list[tuple[int, np.ndarray]]:
        order = self._order.indices(self._epoch)
        offset = self._devices.rank * self.per_device_batch_size
        starts = range(self._position + offset, self._epoch_size, self._micro_size)
        return [(self._epoch, order[s : s + self.per_device_batch_size]) for s in starts]


class FixedLoader:
    """Every sample once, in index order, for validation and test.

    All ranks get the same number of batches (a sharded model runs them in step) and together each
    sample exactly once: batch sizes may differ by one.

    Args:
        make_batch: see ``TrainLoader``; it gets epoch 0.
        indices: the samples, as an array ``(number of samples,)``.
        global_batch_size: about so many samples per step over all devices.
        devices: who shares them.
        num_workers: processes that build batches ahead.

    Raises:
        ConfigError: fewer samples than devices.
    """

    def __init__(
        self,
        make_batch: MakeBatch,
        indices: np.ndarray,
        *,
        global_batch_size: int,
        devices: Devices,
        num_workers: int = 0,
    ) -> None:
        if len(indices) < devices.world_size:
            raise ConfigError(
                f"The evaluation set holds {len(indices)} samples for {devices.world_size} "
                "devices; use at least one sample per device (data.num_val_samples)."
            )
        self._make_batch, self._num_workers = make_batch, num_workers
        # Never so many steps that a rank would get an empty batch.
        num_steps = min(-(-len(indices) // global_batch_size), len(indices) // devices.world_size)
        pieces = np.array_split(indices, num_steps * devices.world_size)
        self._plans = [(0, piece) for piece in pieces[devices.rank :: devices.world_size]]

    def __len__(self) -> int:
        return len(self._plans)

    def __iter__(self) -> Iterator[Any]:
        return iter(_built(self._make_batch, self._plans, self._num_workers))


class _Plans(Dataset[Any]):
    """Presents planned batches to torch's worker processes, one whole batch per item."""

    def __init__(self, make_batch: MakeBatch, plans: Sequence[tuple[int, np.ndarray]]) -> None:
        self._make_batch, self._plans = make_batch, plans

    def __len__(self) -> int:
        return len(self._plans)

    def __getitem__(self, index: int) -> Any:
        return self._make_batch(*self._plans[index])


def _built(
    make_batch: MakeBatch, plans: Sequence[tuple[int, np.ndarray]], num_workers: int
) -> Iterator[Any]:
    if num_workers == 0:
        yield from (make_batch(*plan) for plan in plans)
        return
    # A generator of its own: the loader draws a base seed, which must not come from the run's.
    yield from DataLoader(
        _Plans(make_batch, plans),
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=num_workers,
        generator=torch.Generator(),
    )


def _as_it_is(batch: Any) -> Any:
    return batch


def _per_device(global_batch_size: int, devices: Devices) -> int:
    parts = devices.world_size * devices.accumulate
    if global_batch_size < 1 or global_batch_size % parts:
        multiple = max(1, round(global_batch_size / parts)) * parts
        raise ConfigError(
            f"data.global_batch_size is {global_batch_size}, which {devices.world_size} devices "
            f"times {devices.accumulate} accumulated steps do not divide; write {multiple}."
        )
    return global_batch_size // parts
