"""What a loss is divided by, so that every prediction of an optimiser step weighs the same.

Data-parallel strategies average gradients over R ranks and Lightning over A accumulated parts, so a part's share of
the step's mean has to be given A * R times: its sum is divided by C / (A * R), where C is the step's count over all.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer

from vilau.errors import ConfigError
from vilau.layers.ranks import many_ranks
from vilau.types import Document, MultimodalBatch

LossAverage = Literal["global", "published"]
LOSS_AVERAGES = ("global", "published")


def check_loss_average(name: str) -> None:
    """Raise ``ConfigError`` for an average that there is not."""
    if name not in LOSS_AVERAGES:
        raise ConfigError(f"model.loss_average is {name!r}; write {' or '.join(LOSS_AVERAGES)}.")


def check_whole_steps(trainer: Trainer) -> None:
    """Raise ``ConfigError`` where an epoch ends inside an accumulated step."""
    parts, batches = trainer.accumulate_grad_batches, trainer.num_training_batches
    if isinstance(batches, int) and batches % parts:
        raise ConfigError(
            f"an epoch of {batches} batches ends inside a step of {parts} (trainer.accumulate_grad_batches), whose "
            f"mean loss would lack what is left out; write a trainer.limit_train_batches that {parts} divides."
        )


class StepCounts:
    """The counts of an optimiser step, known before its first part's gradients."""

    def __init__(self) -> None:
        self._documents: list[list[Document]] = []
        self._counts: dict[str, int] = {}

    def documents(
        self, batch: MultimodalBatch, prepare: Callable[[list[Document]], list[Document]]
    ) -> list[Document]:
        """Return the batch's documents as ``prepare`` leaves them, which is asked at the step's first part for all."""
        _check_known(batch)
        if batch.part == 0:
            self._documents = [prepare(documents) for documents in batch.step]
            self._counts = {}
        return self._documents[batch.part]

    def shares(
        self,
        count: Callable[[list[Document]], Mapping[str, int]],
        *,
        trainer: Trainer,
        device: torch.device,
    ) -> dict[str, float]:
        """Return what this part's sums are divided by; all ranks call it for each part, after ``documents``."""
        if not self._counts:
            own = [count(documents) for documents in self._documents]
            names = own[0]
            self._counts = over_ranks({n: sum(c[n] for c in own) for n in names}, device)
        return shares(self._counts, trainer)


def shares(counts: Mapping[str, int], trainer: Trainer) -> dict[str, float]:
    """Return the counts of a whole step as what each of its parts on each rank is divided by."""
    parts = trainer.accumulate_grad_batches * trainer.world_size
    return {name: count / parts for name, count in counts.items()}


def over_ranks(counts: Mapping[str, int], device: torch.device) -> dict[str, int]:
    """Sum counts over all processes, each of which must call it with the same names."""
    if not many_ranks():
        return dict(counts)
    numbers = torch.tensor(list(counts.values()), dtype=torch.int64, device=device)
    dist.all_reduce(numbers)
    return dict(zip(counts, numbers.tolist(), strict=True))


def _check_known(batch: MultimodalBatch) -> None:
    if not batch.step:
        raise ConfigError(
            "trainer.accumulate_grad_batches is more than 1, but the batches do not tell the documents of their whole "
            "step, over which loss_average: global takes the mean; take a data module of this kit, or write "
            "model.loss_average: published."
        )
