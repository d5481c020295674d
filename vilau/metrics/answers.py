"""Scores of answers to questions: VQA's soft accuracy, exact match, POPE with either published
parser, and families."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeVar

import torch
import torch.distributed
from torch import Tensor
from torchmetrics import Metric

from vilau.errors import DataError
from vilau.metrics.answer_text import normalize_answer

T = TypeVar("T")
PopeStyle = Literal["lmms", "llava"]

ANNOTATORS_FOR_VOTE = 4
"""With fewer accepted answers than this nobody could reach full marks by VQA's vote: any match is
right then."""


def vqa_accuracy(answer: str, accepted: Sequence[str]) -> float:
    """Return VQA's soft accuracy of one answer, in 0..1 (Antol et al. 2015).

    For each annotator the answer scores ``min(1, matches among the others / 3)``; the scores are
    averaged. Eight of ten matches give 1.0, three 0.9, two 0.6, one 0.3. With one to three accepted
    answers any match gives 1.0. Both sides are normalised first.
    """
    said = normalize_answer(answer)
    matches = [normalize_answer(one) == said for one in accepted]
    if len(matches) < ANNOTATORS_FOR_VOTE:
        return float(any(matches))
    total = sum(matches)
    return sum(min(1.0, (total - match) / 3) for match in matches) / len(matches)


def best_vqa_accuracy(accepted: Sequence[str]) -> float:
    """Return the highest soft accuracy any answer can reach: what the annotators' disagreement
    leaves possible."""
    return max(vqa_accuracy(answer, accepted) for answer in set(accepted))


def exact_match(answer: str, accepted: Sequence[str]) -> float:
    """Return 1.0 if the answer equals one of the accepted ones but for case, spaces at the ends and
    a full stop."""
    return float(_bare(answer) in {_bare(one) for one in accepted})


def _bare(answer: str) -> str:
    return answer.lower().strip().rstrip(".").strip()


def parse_yes_no(answer: str, style: PopeStyle) -> str:
    """Read an answer as ``yes``, ``no`` or ``other``.

    ``lmms`` (lmms-eval): the lower-case stripped answer must be the bare word, so "Yes." is
    ``other``. ``llava`` (LLaVA's and Liquid's scripts): the first sentence without commas is ``no``
    if one of its words is ``No``, ``no`` or ``not``, and ``yes`` otherwise; never ``other``.
    """
    if style == "lmms":
        word = answer.lower().strip()
        return word if word in ("yes", "no") else "other"
    words = answer.split(".")[0].replace(",", "").split()
    return "no" if {"No", "no", "not"} & set(words) else "yes"


def names_on_all_ranks(names: Iterable[str]) -> list[str]:
    """Return the names that any rank holds, sorted; every rank must call it."""
    return sorted({name for held in _from_all_ranks(list(names)) for name in held})


def _from_all_ranks(value: T) -> list[T]:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    ranks: list[T] = [value] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(ranks, value)
    return ranks


class GroupedMean:
    """Means of named groups; the names may differ from rank to rank.

    It has the methods of a torchmetrics metric, but sums by name, which torchmetrics cannot.
    """

    def __init__(self) -> None:
        self.sums: dict[str, tuple[float, int]] = {}

    def update(self, values: Mapping[str, Sequence[float]]) -> None:
        """Add values to their groups."""
        for name, more in values.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + sum(more), count + len(more))

    def compute(self) -> dict[str, tuple[float, int]]:
        """Return for each group that has values, in the order of the names, its mean and its number
        of values."""
        merged: dict[str, tuple[float, int]] = {}
        for sums in _from_all_ranks(self.sums):
            for name, (total, count) in sums.items():
                before, number = merged.get(name, (0.0, 0))
                merged[name] = (before + total, number + count)
        return {
            name: (merged[name][0] / merged[name][1], merged[name][1])
            for name in sorted(merged)
            if merged[name][1]
        }

    def reset(self) -> None:
        """Forget everything."""
        self.sums = {}


class PopeScores(Metric):
    """POPE (Li et al. 2023): is the thing in the picture?

    Precision and recall follow lmms-eval: an answer that is neither yes nor no counts as wrong in
    the accuracy but as neither positive nor negative. The ratio of yes is that of the predictions
    (lmms-eval reports the ratio of the truth, which says nothing about a model).

    Args:
        style: which published parser reads the answers, see `parse_yes_no`.
    """

    full_state_update = False
    table: Tensor

    def __init__(self, style: PopeStyle = "lmms") -> None:
        super().__init__()
        self.style: PopeStyle = style
        # Rows: truth is no, yes; columns: answer read as no, yes, other.
        zeros = torch.zeros(2, 3, dtype=torch.int64)
        self.add_state("table", zeros, dist_reduce_fx="sum")

    def update(self, answers: Sequence[str], truths: Sequence[str]) -> None:
        """Add answers with their truths, ``yes`` or ``no``.

        Raises:
            DataError: a truth is something else.
        """
        for answer, truth in zip(answers, truths, strict=True):
            row = {"no": 0, "yes": 1}.get(truth.strip().lower())
            if row is None:
                raise DataError(
                    f"A POPE question has the answer '{truth}'; its answer must be yes or no."
                )
            read = parse_yes_no(answer, self.style)
            self.table[row, {"no": 0, "yes": 1, "other": 2}[read]] += 1

    def compute(self) -> dict[str, Tensor]:
        """Return ``accuracy``, ``precision``, ``recall``, ``f1``, ``yes_ratio``: all in 0..1."""
        table = self.table.double()
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
