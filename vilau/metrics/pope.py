"""POPE (Li et al. 2023, "Evaluating object hallucination in large vision-language models")."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from vilau.errors import DataError
from vilau.metrics.answer_metric import AnswerMetric
from vilau.metrics.parsers import AnswerStyle, parse_yes_no, suggestion

POPE_SETTINGS = ("random", "popular", "adversarial")
ROWS = {"no": 0, "yes": 1}
COLUMNS = {"no": 0, "yes": 1, "other": 2}


def truth_row(truth: str, benchmark: str) -> int:
    """Return 1 for ``yes`` and 0 for ``no``.

    Raises:
        DataError: it is neither.
    """
    row = ROWS.get(truth.strip().lower())
    if row is None:
        raise DataError(
            f"A {benchmark} question has the answer '{truth}'; its answer must be yes or no."
        )
    return row


def pope_scores(table: Tensor) -> dict[str, Tensor]:
    """Return the scores in 0..1 of a count ``table`` (truth no, yes; read as no, yes, other): (2, 3).

    Precision and recall follow lmms-eval: an answer that is neither yes nor no counts as wrong in
    the accuracy but as neither positive nor negative. The ratio of yes is that of the predictions
    (lmms-eval reports the ratio of the truth, which says nothing about a model). What would divide
    by nothing is 0.
    """
    table = table.double()
    true_yes, false_yes, false_no = table[1, 1], table[0, 1], table[1, 0]
    precision = true_yes / (true_yes + false_yes).clamp(min=1)
    recall = true_yes / (true_yes + false_no).clamp(min=1)
    scores = {
        "accuracy": (table[0, 0] + true_yes) / table.sum().clamp(min=1),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall).clamp(min=1e-12),
        "yes_ratio": table[:, 1].sum() / table.sum().clamp(min=1),
    }
    return {name: score.float() for name, score in scores.items()}


class PopeScores(AnswerMetric):
    """POPE in one setting, or in several pooled: is the thing in the picture? See `pope_scores`."""

    title: ClassVar[str] = "POPE (positives as in lmms-eval, ratio of yes of the predictions)"
    columns: ClassVar[Mapping[str, str]] = {"truths": "answer"}
    table: Tensor

    def __init__(self, style: AnswerStyle = "lmms") -> None:
        super().__init__(style)
        # Rows: truth is no, yes; columns: answer read as no, yes, other.
        self.add_state("table", torch.zeros(2, 3, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, answers: Sequence[str], truths: Sequence[str]) -> None:
        """Add answers with their truths, ``yes`` or ``no``.

        Raises:
            DataError: a truth is something else, or the numbers differ.
        """
        self.check_counts(answers, truths=truths)
        rows = [truth_row(truth, "POPE") for truth in truths]
        for row, answer in zip(rows, answers, strict=True):
            self.table[row, COLUMNS[parse_yes_no(answer, self.style)]] += 1

    def compute(self) -> dict[str, Tensor]:
        """Return ``accuracy``, ``precision``, ``recall``, ``f1``, ``yes_ratio``: all in 0..1."""
        self.check_any(self.table.sum())
        return pope_scores(self.table)


class Pope(AnswerMetric):
    """POPE's three settings, their mean, and all questions pooled.

    VARGPT prints the accuracy of each setting; the single POPE number of LLaVA's tables is the mean
    F1; lmms-eval's task ``pope`` pools.
    """

    title: ClassVar[str] = PopeScores.title
    columns: ClassVar[Mapping[str, str]] = {"truths": "answer", "settings": "category"}
    tables: Tensor

    def __init__(self, style: AnswerStyle = "lmms") -> None:
        super().__init__(style)
        zeros = torch.zeros(len(POPE_SETTINGS), 2, 3, dtype=torch.int64)
        self.add_state("tables", zeros, dist_reduce_fx="sum")

    def update(
        self, answers: Sequence[str], truths: Sequence[str], settings: Sequence[str]
    ) -> None:
        """Add answers with their truths and settings (``random``, ``popular``, ``adversarial``).

        Raises:
            DataError: a truth or a setting is something else, or the numbers differ.
        """
        self.check_counts(answers, truths=truths, settings=settings)
        rows = [truth_row(truth, "POPE") for truth in truths]
        for setting in settings:
            if setting not in POPE_SETTINGS:
                raise DataError(
                    f"A POPE question is of setting '{setting}'. {suggestion(setting, POPE_SETTINGS)}"
                )
        for row, answer, setting in zip(rows, answers, settings, strict=True):
            column = COLUMNS[parse_yes_no(answer, self.style)]
            self.tables[POPE_SETTINGS.index(setting), row, column] += 1

    def compute(self) -> dict[str, Tensor]:
        """Return `pope_scores` of all questions pooled, of each setting asked as ``random_f1`` and so
        on, and, if all three were asked, their means as ``mean_f1`` and so on."""
        self.check_any(self.tables.sum())
        scores = pope_scores(self.tables.sum(dim=0))
        asked = {
            setting: pope_scores(table)
            for setting, table in zip(POPE_SETTINGS, self.tables, strict=True)
            if table.any()
        }
        if len(asked) == len(POPE_SETTINGS):
            asked["mean"] = mean_scores(list(asked.values()))
        for setting, parts in asked.items():
            scores |= {f"{setting}_{name}": value for name, value in parts.items()}
        return scores


def mean_scores(scores: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the means over score dictionaries with the same names."""
    return {name: torch.stack([one[name] for one in scores]).mean() for name in scores[0]}
