"""Choice among lettered options: SEED-Bench and ScienceQA."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from vilau.errors import DataError
from vilau.metrics.answer_metric import AnswerMetric, MeanScore
from vilau.metrics.parsers import AnswerStyle, parse_letter, parse_science_qa, suggestion
from vilau.types import LETTERS

DATA_TYPES = ("image", "video")


def true_letter(truth: str | int, benchmark: str) -> str:
    """Return a truth, given as a letter or counted from 0, as a capital letter.

    Raises:
        DataError: it is neither.
    """
    if isinstance(truth, str):
        letter = truth.strip().upper()
        if len(letter) == 1 and letter in LETTERS:
            return letter
    elif not isinstance(truth, bool) and 0 <= truth < len(LETTERS):
        return LETTERS[truth]
    raise DataError(
        f"A {benchmark} question has the answer {truth!r}; its answer must be an option's letter, such as A, or its "
        "place counted from 0."
    )


class ScienceQA(MeanScore):
    """ScienceQA's accuracy. Over all questions or over those with an image (ScienceQA-IMG): as asked."""

    title: ClassVar[str] = "ScienceQA accuracy"
    columns: ClassVar[Mapping[str, str]] = {"truths": "answer"}

    def update(self, answers: Sequence[str], truths: Sequence[str | int]) -> None:
        """Add answers with their truths, a letter or the option's place counted from 0.

        Raises:
            DataError: a truth is something else, or the numbers differ.
        """
        self.check_counts(answers, truths=truths)
        self.add(
            [
                float(parse_science_qa(answer, self.style) == true_letter(truth, "ScienceQA"))
                for answer, truth in zip(answers, truths, strict=True)
            ]
        )


class SeedBench(AnswerMetric):
    """SEED-Bench's accuracy over its image questions, its video questions, and all.

    Papers print one column without saying which; VILA-U's is of the size of ``all``, VARGPT's of
    that of ``image``.
    """

    title: ClassVar[str] = "SEED-Bench accuracy"
    columns: ClassVar[Mapping[str, str]] = {"truths": "answer", "data_types": "data_type"}
    counts: Tensor

    def __init__(self, style: AnswerStyle = "lmms") -> None:
        super().__init__(style)
        # Rows: image, video; columns: asked, right.
        self.add_state("counts", torch.zeros(2, 2, dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self, answers: Sequence[str], truths: Sequence[str], data_types: Sequence[str]
    ) -> None:
        """Add answers with their truths (letters) and whether they are about an ``image`` or a ``video``.

        Raises:
            DataError: a truth or a type is something else, or the numbers differ.
        """
        self.check_counts(answers, truths=truths, data_types=data_types)
        letters = [true_letter(truth, "SEED-Bench") for truth in truths]
        for kind in data_types:
            if kind not in DATA_TYPES:
                raise DataError(
                    f"A SEED-Bench question is about data of type '{kind}'. {suggestion(kind, DATA_TYPES)}"
                )
        for answer, letter, kind in zip(answers, letters, data_types, strict=True):
            right = parse_letter(answer, self.style) == letter
            row = self.counts[DATA_TYPES.index(kind)]
            row += torch.tensor([1, int(right)], device=row.device)

    def compute(self) -> dict[str, Tensor]:
        """Return ``image`` and ``video`` as far as asked, and ``all`` where both were: accuracies in 0..1."""
        self.check_any(self.counts[:, 0].sum())
        rows = dict(zip(DATA_TYPES, self.counts, strict=True))
        # Questions about pictures are easier: alone they are no measure of the whole.
        if all(row[0] for row in rows.values()):
            rows = {"all": self.counts.sum(dim=0), **rows}
        return {kind: (row[1].double() / row[0]).float() for kind, row in rows.items() if row[0]}


class RankedSeedBench(SeedBench):
    """The same where nobody asks for a letter: the likeliest option counts, as in SEED-Bench's own code."""

    title: ClassVar[str] = "SEED-Bench accuracy, options ranked by likelihood"
