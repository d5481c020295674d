"""MME (Fu et al. 2023): pairs of yes/no questions about one image, in points."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from vilau.errors import DataError
from vilau.metrics.answer_metric import RecordedAnswers
from vilau.metrics.parsers import AnswerStyle, parse_mme, suggestion
from vilau.metrics.pope import truth_row
from vilau.world.pairs import PAIR_COGNITION, PAIR_PERCEPTION

MME_PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
MME_COGNITION = (
    "commonsense_reasoning",
    "numerical_calculation",
    "text_translation",
    "code_reasoning",
)
QUESTIONS_PER_IMAGE = 2


class MME(RecordedAnswers):
    """MME's scores in points.

    A category's score is its accuracy times 100 plus its accuracy+ times 100 (the share of images
    with both questions right), at most 200. Perception and cognition are the sums over their
    categories, at most 2000 and 800; the papers print perception.

    Args:
        style: see `vilau.metrics.parsers.parse_mme`.
        perception: names of the categories that perception sums, each once.
        cognition: those of cognition. The drawn world's twin has categories of its own.
    """

    title: ClassVar[str] = "MME (points, accuracy and accuracy+)"
    columns: ClassVar[Mapping[str, str]] = {
        "truths": "answer",
        "categories": "category",
        "question_ids": "question_id",
    }
    width: ClassVar[int] = 3

    def __init__(
        self,
        style: AnswerStyle = "lmms",
        perception: Sequence[str] = MME_PERCEPTION,
        cognition: Sequence[str] = MME_COGNITION,
    ) -> None:
        super().__init__(style)
        self.perception, self.cognition = tuple(perception), tuple(cognition)
        self.categories = (*self.perception, *self.cognition)

    def update(
        self,
        answers: Sequence[str],
        truths: Sequence[str],
        categories: Sequence[str],
        question_ids: Sequence[object],
    ) -> None:
        """Add answers with their truths, categories, and the id that the two questions about an image share.

        Raises:
            DataError: a truth is neither yes nor no, a category is unknown, or the numbers differ.
        """
        self.check_counts(answers, truths=truths, categories=categories, question_ids=question_ids)
        rows = []
        for answer, truth, category, image in zip(
            answers, truths, categories, question_ids, strict=True
        ):
            if category not in self.categories:
                raise DataError(
                    f"A question of MME is of category '{category}'. {suggestion(category, self.categories)}"
                )
            bare = truth.replace(".", "")
            right = parse_mme(answer, self.style) == ("no", "yes")[truth_row(bare, "MME")]
            rows.append((self.categories.index(category), _digest(str(image)), int(right)))
        self.record(rows)

    def compute(self) -> dict[str, Tensor]:
        """Return ``perception`` and ``cognition`` in points, and for each category asked
        ``<category>_score`` in points, ``<category>_accuracy`` and ``<category>_accuracy_plus`` in 0..1.

        Raises:
            DataError: an image of a category has not exactly two questions.
        """
        records = self.all_records()
        points = {"perception": torch.zeros(()).double(), "cognition": torch.zeros(()).double()}
        scores: dict[str, Tensor] = {}
        for index, category in enumerate(self.categories):
            _, image, right = records[records[:, 0] == index].unbind(dim=1)
            if not len(image):
                continue
            accuracy, plus = self._accuracies(category, image, right)
            total = 100 * (accuracy + plus)
            points["perception" if category in self.perception else "cognition"] += total
            scores[f"{category}_score"] = total
            scores[f"{category}_accuracy"] = accuracy
            scores[f"{category}_accuracy_plus"] = plus
        return {name: value.float() for name, value in (points | scores).items()}

    @staticmethod
    def _accuracies(category: str, image: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Return the shares of right questions and of images with all right; both tensors are ``(N,)``."""
        _, place, asked = torch.unique(image, return_inverse=True, return_counts=True)
        if bool((asked != QUESTIONS_PER_IMAGE).any()):
            odd = asked[asked != QUESTIONS_PER_IMAGE]
            raise DataError(
                f"MME category {category} has {len(odd)} images with {int(odd[0])} instead of "
                f"{QUESTIONS_PER_IMAGE} questions; give the two questions of an image the same question_id, and "
                "every question once."
            )
        per_image = torch.zeros(len(asked), dtype=torch.float64).index_add_(
            0, place, right.double()
        )
        return right.double().mean(), (per_image == QUESTIONS_PER_IMAGE).double().mean()


class WorldMME(MME):
    """MME's rule over the categories of the drawn world's twin: ten of perception, four of cognition."""

    title: ClassVar[str] = "MME's rule on the drawn world (points, accuracy and accuracy+)"

    def __init__(self, style: AnswerStyle = "lmms") -> None:
        super().__init__(style, PAIR_PERCEPTION, PAIR_COGNITION)


def _digest(text: str) -> int:
    """Return 63 bits that stand for a text on every rank."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
