"""Open answers with required elements, graded in 0..1: what MM-Vet asks, and a string match for lack of a judge."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from vilau.errors import DataError
from vilau.metrics.answer_metric import AnswerMetric
from vilau.metrics.answer_text import FULL_STOP, normalize_answer
from vilau.metrics.parsers import AnswerStyle, suggestion

MM_VET_CAPABILITIES = ("rec", "ocr", "know", "gen", "spat", "math")


def says(answer: str, phrase: str) -> bool:
    """Return whether the words of a phrase stand side by side in an answer, both normalised.

    A phrase that normalisation leaves nothing of, such as the letter A, is looked for as it is.
    """
    words, said = normalize_answer(phrase), normalize_answer(answer)
    if not words:
        words, said = (
            " ".join(FULL_STOP.sub("", text).lower().split()) for text in (phrase, answer)
        )
    return bool(words) and f" {words} " in f" {said} "


def element_share(truth: str, answer: str) -> float:
    """Return the share in 0..1, in steps of 0.1, of a truth's elements that an answer names.

    ``<AND>`` separates the elements, each of which may offer alternatives separated by ``<OR>``. An
    answer that lists everything gets full marks: only what is missing costs.
    """
    elements = [element.split("<OR>") for element in truth.split("<AND>")]
    met = sum(any(says(answer, one) for one in alternatives) for alternatives in elements)
    return int(10 * met / len(elements) + 0.5) / 10


class GradedAnswers(AnswerMetric):
    """The mean grade of open answers, in all and by capability; subclasses say who grades.

    Args:
        style: named in the passport.
        capabilities: the capabilities that questions may be tagged with.
    """

    columns: ClassVar[Mapping[str, str]] = {
        "questions": "question",
        "truths": "answer",
        "capabilities": "capability",
    }
    grades: Tensor
    counts: Tensor
    unreadable: Tensor

    def __init__(
        self, style: AnswerStyle = "lmms", capabilities: Sequence[str] = MM_VET_CAPABILITIES
    ) -> None:
        super().__init__(style)
        self.capabilities = tuple(capabilities)
        number = 1 + len(self.capabilities)  # the first is for all questions
        self.add_state("grades", torch.zeros(number, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(number, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("unreadable", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @abstractmethod
    def grade(self, question: str, truth: str, answer: str) -> float | None:
        """Return an answer's grade in 0..1; None if there is none, which counts as 0."""

    def update(
        self,
        answers: Sequence[str],
        questions: Sequence[str],
        truths: Sequence[str],
        capabilities: Sequence[str],
    ) -> None:
        """Add answers, each with its question, truth and capabilities (``"rec,ocr"``, may be empty).

        Raises:
            DataError: a capability is unknown, or the numbers differ.
        """
        self.check_counts(answers, questions=questions, truths=truths, capabilities=capabilities)
        places = [self._places(tags) for tags in capabilities]
        for answer, question, truth, place in zip(answers, questions, truths, places, strict=True):
            grade = self.grade(question, truth, answer)
            self.unreadable += int(grade is None)
            self.grades[place] += grade or 0.0
            self.counts[place] += 1

    def _places(self, tags: str) -> list[int]:
        """Return the indices into ``grades`` that a question counts for."""
        names = {tag.strip() for tag in tags.split(",") if tag.strip()}
        for name in sorted(names - set(self.capabilities)):
            raise DataError(
                f"A question of {self.title} is tagged '{name}'. {suggestion(name, self.capabilities)}"
            )
        return [0, *(1 + self.capabilities.index(name) for name in sorted(names))]

    def compute(self) -> dict[str, Tensor]:
        """Return ``score``, one score for each capability asked, and ``unreadable``, the share of
        answers without a grade: all in 0..1."""
        self.check_any(self.counts[0])
        names = ("score", *self.capabilities)
        means = (self.grades / self.counts.clamp(min=1)).float()
        scores = {name: means[i] for i, name in enumerate(names) if self.counts[i]}
        return scores | {"unreadable": (self.unreadable / self.counts[0]).float()}


class OpenEnded(GradedAnswers):
    """The mean share of required elements that answers name, see `element_share`.

    It takes questions in MM-Vet's form, but no judge model reads the answers: its numbers are not
    MM-Vet's.
    """

    title: ClassVar[str] = "open answers, share of required elements"

    def grade(self, question: str, truth: str, answer: str) -> float:
        """Return the share of the truth's elements that the answer names."""
        return element_share(truth, answer)

    def reader(self) -> str:
        """Return what reads the answers."""
        return "string match"
