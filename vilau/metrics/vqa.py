"""Scores of short answers: VQA's soft accuracy over ten annotators, and exact match."""

import string
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from vilau.errors import DataError
from vilau.metrics.answer_metric import MeanScore
from vilau.metrics.answer_text import clean_spaces, normalize_answer, normalize_vqa
from vilau.metrics.parsers import AnswerStyle

ANNOTATORS_FOR_VOTE = 4
"""With fewer accepted answers than this nobody could reach full marks by VQA's vote: any match is
right then."""
ANNOTATORS = 10
DROP_PUNCTUATION = str.maketrans("", "", string.punctuation)


def leave_one_out(answer: str, accepted: Sequence[str]) -> float:
    """Return VQA's soft accuracy in 0..1 of an answer against as normal annotators' answers.

    For each annotator the answer scores ``min(1, matches among the others / 3)``; the scores are
    averaged (Antol et al. 2015). Of ten, eight matches give 1.0, three 0.9, two 0.6, one 0.3.
    """
    matches = [one == answer for one in accepted]
    total = sum(matches)
    return sum(min(1.0, (total - match) / 3) for match in matches) / len(matches)


def vqa_accuracy(answer: str, accepted: Sequence[str]) -> float:
    """Return VQA's soft accuracy of one answer, in 0..1, see `leave_one_out`.

    With one to three accepted answers any match gives 1.0. Both sides are normalised first.
    """
    said = normalize_answer(answer)
    normal = [normalize_answer(one) for one in accepted]
    if len(normal) < ANNOTATORS_FOR_VOTE:
        return float(said in normal)
    return leave_one_out(said, normal)


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


def vqav2_score(answer: str, accepted: Sequence[str], style: AnswerStyle) -> float:
    """Return one answer's soft accuracy on VQAv2, in 0..1.

    ``lmms`` normalises both sides (`normalize_vqa`). ``llava`` is LLaVA's submission, EvalAI's
    normal form, under the challenge's own script, which leaves all texts as they are where the
    annotators agree.
    """
    if style == "lmms":
        return leave_one_out(normalize_vqa(answer), [normalize_vqa(one) for one in accepted])
    said, truths = normalize_answer(answer), [clean_spaces(one) for one in accepted]
    if len(set(truths)) > 1:
        said, truths = normalize_vqa(said), [normalize_vqa(one) for one in truths]
    return leave_one_out(said, truths)


def text_vqa_score(answer: str, accepted: Sequence[str]) -> float:
    """Return one answer's soft accuracy on TextVQA, in 0..1; both styles normalise both sides alike."""
    return leave_one_out(normalize_answer(answer), [normalize_answer(one) for one in accepted])


def gqa_score(answer: str, truth: str, style: AnswerStyle) -> float:
    """Return 1.0 if an answer of GQA is right.

    ``lmms``: equal but for case and punctuation. ``llava``: lower-cased and without full stops at
    its end it equals the truth. Neither knows that "two" is 2.
    """
    text = answer.strip()
    if style == "llava":
        return float(text.rstrip(".").lower() == truth)
    both = [side.lower().translate(DROP_PUNCTUATION) for side in (text, truth)]
    return float(both[0] == both[1])


class VQAv2(MeanScore):
    """VQAv2's soft accuracy, see `vqav2_score`."""

    title: ClassVar[str] = "VQAv2 soft accuracy"
    columns: ClassVar[Mapping[str, str]] = {"accepted": "answers"}
    annotators: ClassVar[Mapping[AnswerStyle, int]] = {}
    """Where a style refuses another number of annotators, that number."""

    def update(
        self, answers: Sequence[str], accepted: Sequence[Sequence[str | Mapping[str, Any]]]
    ) -> None:
        """Add answers with their annotators' answers (texts, or mappings with ``answer``).

        Raises:
            DataError: the numbers of answers and questions differ, or a question has too few
                annotators for a vote.
        """
        self.check_counts(answers, accepted=accepted)
        texts = [[_text_of(one) for one in annotators] for annotators in accepted]
        for annotators in texts:
            self._check_annotators(len(annotators))
        self.add([self.score(said, given) for said, given in zip(answers, texts, strict=True)])

    def score(self, answer: str, accepted: Sequence[str]) -> float:
        """Return one answer's score in 0..1."""
        return vqav2_score(answer, accepted, self.style)

    def _check_annotators(self, number: int) -> None:
        wanted = self.annotators.get(self.style)
        if number < ANNOTATORS_FOR_VOTE or wanted not in (None, number):
            raise DataError(
                f"A question of {self.title} has {number} annotators' answers; style {self.style} needs "
                f"{wanted or f'at least {ANNOTATORS_FOR_VOTE}'} of them (a single truth is scored by GQA's rule)."
            )


def _text_of(annotator: str | Mapping[str, Any]) -> str:
    return annotator if isinstance(annotator, str) else str(annotator["answer"])


class TextVQA(VQAv2):
    """TextVQA's accuracy. Whether the prompt held OCR tokens (LLaVA: yes, lmms-eval: no) moves it by some ten
    points and belongs in the passport's details."""

    title: ClassVar[str] = "TextVQA soft accuracy"
    annotators: ClassVar[Mapping[AnswerStyle, int]] = {"llava": ANNOTATORS}

    def score(self, answer: str, accepted: Sequence[str]) -> float:
        """Return one answer's score in 0..1."""
        return text_vqa_score(answer, accepted)


class OKVQA(TextVQA):
    """OK-VQA's accuracy as lmms-eval computes it; LLaVA has no script for it."""

    title: ClassVar[str] = "OK-VQA soft accuracy"
    styles: ClassVar[tuple[AnswerStyle, ...]] = ("lmms",)


class VizWiz(VQAv2):
    """VizWiz's accuracy: TextVQA's rule in style ``lmms``, a submission scored like VQAv2's in ``llava``."""

    title: ClassVar[str] = "VizWiz soft accuracy"

    def score(self, answer: str, accepted: Sequence[str]) -> float:
        """Return one answer's score in 0..1."""
        if self.style == "lmms":
            return text_vqa_score(answer, accepted)
        return vqav2_score(answer, accepted, self.style)


class GQA(MeanScore):
    """GQA's accuracy, see `gqa_score`."""

    title: ClassVar[str] = "GQA exact match"
    columns: ClassVar[Mapping[str, str]] = {"truths": "answer"}

    def update(self, answers: Sequence[str], truths: Sequence[str]) -> None:
        """Add answers with their truths.

        Raises:
            DataError: their numbers differ.
        """
        self.check_counts(answers, truths=truths)
        self.add([gqa_score(*pair, self.style) for pair in zip(answers, truths, strict=True)])
