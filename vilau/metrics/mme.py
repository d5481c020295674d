"""MME (Fu et al. 2023): pairs of yes/no questions about one image, in points."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics.utilities import rank_zero_warn

from vilau.errors import ConfigError, DataError
from vilau.metrics.answer_metric import RecordedAnswers
from vilau.metrics.parsers import AnswerStyle, parse_mme, suggestion
from vilau.metrics.pope import truth_row
from vilau.types import Passport
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
MOST_POINTS = 200
"""Of a category: all questions right, and so all pairs."""


class MME(RecordedAnswers):
    """MME's scores in points.

    A category's score is its accuracy times 100 plus its accuracy+ times 100 (the share of images
    with both questions right), at most 200. Perception and cognition are the sums over their
    categories, at most 2000 and 800; the papers print perception. A sum that lacks an expected
    category is left out with a warning: it would look like a low score.

    Args:
        style: see `vilau.metrics.parsers.parse_mme`.
        perception: names of the categories that perception sums, each once.
        cognition: those of cognition. The drawn world's twin has categories of its own.
        expected: the categories that must have been asked for their sum to be given; None: all.

    Raises:
        ConfigError: an expected category is neither of perception nor of cognition.
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
        expected: Sequence[str] | None = None,
    ) -> None:
        super().__init__(style)
        self.groups = {"perception": tuple(perception), "cognition": tuple(cognition)}
        self.categories = (*perception, *cognition)
        self.expected = frozenset(self.categories if expected is None else expected)
        for name in sorted(self.expected.difference(self.categories)):
            raise ConfigError(
                f"expected holds the category '{name}'. {suggestion(name, self.categories)}"
            )
        self.summed: dict[str, int] = {}

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
        """Return ``perception`` and ``cognition`` in points, each if all its expected categories were asked and
        any at all, and for each category asked ``<category>_score`` in points, ``<category>_accuracy`` and
        ``<category>_accuracy_plus`` in 0..1.

        Raises:
            DataError: an image of a category has not exactly two questions.
        """
        records = self.all_records()
        points: dict[str, Tensor] = {}
        scores: dict[str, Tensor] = {}
        for index, category in enumerate(self.categories):
            _, image, right = records[records[:, 0] == index].unbind(dim=1)
            if not len(image):
                continue
            accuracy, plus = self._accuracies(category, image, right)
            points[category] = 100 * (accuracy + plus)
            scores[f"{category}_score"] = points[category]
            scores[f"{category}_accuracy"] = accuracy
            scores[f"{category}_accuracy_plus"] = plus
        sums = self._sums(points)
        return {name: value.float() for name, value in (sums | scores).items()}

    def _sums(self, points: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the sums of the groups that are whole; warn of the others once."""
        sums: dict[str, Tensor] = {}
        lacking: list[str] = []
        self.summed = {}
        for name, group in self.groups.items():
            asked = [points[category] for category in group if category in points]
            missing = [one for one in group if one in self.expected and one not in points]
            if missing:
                lacking.append(f"{name} lacks {', '.join(missing)}")
            elif asked:
                sums[name], self.summed[name] = sum(asked, torch.zeros(()).double()), len(asked)
        if lacking:
            rank_zero_warn(
                f"MME's sums are of all categories, but {' and '.join(lacking)}: left out; ask these too, or read "
                "the score of each category."
            )
        return sums

    def passport(self, reference: str = "", num_samples: int = 0, details: str = "") -> Passport:
        """Return what a number measured; after ``compute`` also how many categories each sum is over."""
        said = [
            f"{name} {count} of {len(self.groups[name])} categories, at most {count * MOST_POINTS}"
            for name, count in self.summed.items()
        ]
        return super().passport(
            reference, num_samples, "; ".join([details, *said] if details else said)
        )

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
    """MME's rule over the categories of the drawn world's twin: ten of perception, four of cognition.

    A level of the world may lack some of them, so by default those asked are summed; the passport says how many.
    """

    title: ClassVar[str] = "MME's rule on the drawn world (points, accuracy and accuracy+)"

    def __init__(self, style: AnswerStyle = "lmms", expected: Sequence[str] | None = ()) -> None:
        super().__init__(style, PAIR_PERCEPTION, PAIR_COGNITION, expected)


def _digest(text: str) -> int:
    """Return 63 bits that stand for a text on every rank."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
