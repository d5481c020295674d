"""The common shape of the understanding scores: torchmetrics classes that read answers in a named style."""

from collections.abc import Mapping, Sequence, Sized
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from vilau.errors import DataError
from vilau.metrics.parsers import STYLES, AnswerStyle, check_style
from vilau.types import Passport


class AnswerMetric(Metric):
    """A published score of answers.

    Subclasses define ``update(answers, ...)`` with one entry per question in every argument, and ``compute`` that
    returns named scores: fractions in 0..1 unless the class says points. States add or concatenate over ranks.

    Args:
        style: whose scripts the answers are read like, ``lmms`` or ``llava``, see `vilau.metrics.parsers`.

    Raises:
        ConfigError: the benchmark is not published in this style.
    """

    full_state_update = False
    title: ClassVar[str]
    """What a passport names as the metric."""
    styles: ClassVar[tuple[AnswerStyle, ...]] = STYLES
    columns: ClassVar[Mapping[str, str]] = {}
    """Argument of ``update`` -> column of the benchmark's published table."""

    def __init__(self, style: AnswerStyle = "lmms") -> None:
        super().__init__()
        self.style: AnswerStyle = check_style(style, self.title, self.styles)

    def update_rows(self, answers: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        """Add answers to questions given as rows with the benchmark's published columns (``columns``).

        Raises:
            DataError: as many rows as answers are wanted; a row lacks a column; or whatever ``update`` finds.
        """
        self.check_counts(answers, rows=rows)
        self.update(answers, **self.arguments(rows))

    def arguments(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
        """Return what ``update`` takes beside the answers, out of rows."""
        return {
            argument: [self.cell(row, column) for row in rows]
            for argument, column in self.columns.items()
        }

    def cell(self, row: Mapping[str, Any], column: str) -> Any:
        """Return a row's value in a column, which must be there."""
        if column not in row:
            raise DataError(
                f"A question of {self.title} has no '{column}', only {', '.join(sorted(row)) or 'nothing'}; "
                f"give each the columns {', '.join(self.columns.values())}."
            )
        return row[column]

    def check_counts(self, answers: Sequence[str], **others: Sized) -> None:
        """Raise DataError unless there are answers, and as many of everything else."""
        if not len(answers):
            raise DataError(
                f"{self.title} was given an empty list of answers; give at least one, or leave the batch out."
            )
        for name, values in others.items():
            if len(values) != len(answers):
                raise DataError(
                    f"{self.title} was given {len(answers)} answers but {len(values)} {name}; give one of each to "
                    "every question."
                )

    def check_any(self, count: Tensor | int) -> None:
        """Raise DataError if nothing was asked on any rank."""
        if not int(count):
            raise DataError(
                f"{self.title} has no answers to score; call update before compute, or leave the benchmark out."
            )

    def reader(self) -> str:
        """Return what reads the answers, for the passport."""
        return f"parser {self.style}"

    def passport(self, reference: str = "", num_samples: int = 0, details: str = "") -> Passport:
        """Return what a number of this metric measured."""
        return Passport(
            metric=self.title,
            features=self.reader(),
            reference=reference,
            num_samples=num_samples,
            details=details,
        )


class MeanScore(AnswerMetric):
    """Gives every answer a score and averages: ``accuracy``."""

    total: Tensor
    count: Tensor

    def __init__(self, style: AnswerStyle = "lmms") -> None:
        super().__init__(style)
        # In double precision a sum over a whole benchmark does not depend on how it was split.
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def add(self, scores: Sequence[float]) -> None:
        """Add the scores of some answers."""
        self.total += sum(scores)
        self.count += len(scores)

    def compute(self) -> dict[str, Tensor]:
        """Return ``accuracy`` in 0..1."""
        self.check_any(self.count)
        return {"accuracy": (self.total / self.count).float()}


class RecordedAnswers(AnswerMetric):
    """Keeps one row of whole numbers per answer, for scores over several questions that belong together.

    Questions that belong together may come in any batch of any rank.
    """

    records: list[Tensor] | Tensor
    width: ClassVar[int]
    """Numbers per answer."""

    def __init__(self, style: AnswerStyle = "lmms") -> None:
        super().__init__(style)
        self.add_state("records", [], dist_reduce_fx="cat")

    def record(self, rows: Sequence[Sequence[int]]) -> None:
        """Keep rows of ``width`` numbers."""
        assert isinstance(self.records, list)
        self.records.append(torch.tensor(rows, dtype=torch.int64, device=self.device))

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Share with the other ranks; one without answers takes part with no rows."""
        # torchmetrics would send an empty float vector there, which does not fit the others' rows.
        if isinstance(self.records, list) and not self.records:
            self.records.append(self._no_rows())
        super().sync(*args, **kwargs)

    def all_records(self) -> Tensor:
        """Return all rows ``(N, width)``.

        Raises:
            DataError: there are none.
        """
        held = self.records if isinstance(self.records, list) else [self.records]
        rows = torch.cat([self._no_rows(), *held])
        self.check_any(len(rows))
        return rows.cpu()

    def _no_rows(self) -> Tensor:
        return torch.zeros(0, self.width, dtype=torch.int64, device=self.device)
