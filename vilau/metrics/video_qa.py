"""Zero-shot video question answering (MSVD, MSRVTT, TGIF, ActivityNet): verdicts with scores in 0..5."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from vilau.errors import ConfigError
from vilau.metrics.answer_metric import AnswerMetric
from vilau.metrics.answer_text import normalize_answer
from vilau.metrics.open_ended import says
from vilau.metrics.parsers import AnswerStyle, suggestion

Match = Literal["exact", "soft"]
MATCHES: tuple[Match, ...] = ("exact", "soft")
BEST_SCORE, CONTAINED_SCORE, SAME_KIND_SCORE, WRONG_SCORE = 5, 4, 2, 0


class Verdict(NamedTuple):
    """What was found of one answer."""

    right: bool | None
    """None: a judge said neither yes nor no."""
    score: int
    """0..5."""


class VideoVerdicts(AnswerMetric):
    """Counts verdicts on answers to questions about videos, as Video-ChatGPT's evaluation does."""

    verdicts: Tensor

    def __init__(self, style: AnswerStyle = "lmms") -> None:
        super().__init__(style)
        # Asked, right, wrong, sum of scores, without a verdict.
        self.add_state("verdicts", torch.zeros(5, dtype=torch.int64), dist_reduce_fx="sum")

    def count(self, verdict: Verdict | None) -> None:
        """Count a verdict; where there is none the answer is wrong with score 0."""
        right, score = verdict or Verdict(False, 0)
        row = [1, int(right is True), int(right is False), score, int(verdict is None)]
        self.verdicts += torch.tensor(row, device=self.verdicts.device)

    def compute(self) -> dict[str, Tensor]:
        """Return ``accuracy`` (right among right and wrong) in 0..1, ``score`` (the mean of 0..5), and
        ``unreadable``, the share of answers without a verdict."""
        self.check_any(self.verdicts[0])
        asked, right, wrong, score, unreadable = self.verdicts.double()
        return {
            "accuracy": (right / (right + wrong).clamp(min=1)).float(),
            "score": (score / asked).float(),
            "unreadable": (unreadable / asked).float(),
        }


def match_verdict(
    truth: str, answer: str, match: Match, alternatives: Sequence[str] = ()
) -> Verdict:
    """Return what comparing strings makes of an answer.

    ``exact``: right with score 5 if equal once normalised. ``soft``: also right, with score 4, if
    the answer says the truth and none of the other ``alternatives`` of the question's kind. A wrong
    answer that is one of the alternatives scores 2, any other 0.
    """
    said, right = normalize_answer(answer), normalize_answer(truth)
    if said == right:
        return Verdict(True, BEST_SCORE)
    others = [one for one in alternatives if normalize_answer(one) != right]
    if match == "soft" and says(answer, truth) and not any(says(answer, one) for one in others):
        return Verdict(True, CONTAINED_SCORE)
    same_kind = said in {normalize_answer(one) for one in others}
    return Verdict(False, SAME_KIND_SCORE if same_kind else WRONG_SCORE)


class MatchedVideoQA(VideoVerdicts):
    """Video question answering without a judge model, see `match_verdict`: not the judged accuracy of
    the papers.

    Args:
        match: ``exact`` or ``soft``.
        style: both compare alike.

    Raises:
        ConfigError: another match or style.
    """

    title: ClassVar[str] = "video question answering, string match"
    columns: ClassVar[Mapping[str, str]] = {"truths": "answer"}

    def __init__(self, match: Match = "exact", style: AnswerStyle = "lmms") -> None:
        if match not in MATCHES:
            raise ConfigError(f"match is '{match}'. {suggestion(match, MATCHES)}")
        super().__init__(style)
        self.match: Match = match

    def update(
        self,
        answers: Sequence[str],
        truths: Sequence[str],
        alternatives: Sequence[Sequence[str]] | None = None,
    ) -> None:
        """Add answers with their truths and, if known, all answers of each question's kind.

        Raises:
            DataError: the numbers differ.
        """
        kinds: Sequence[Sequence[str]] = (
            [()] * len(answers) if alternatives is None else alternatives
        )
        self.check_counts(answers, truths=truths, alternatives=kinds)
        for answer, truth, others in zip(answers, truths, kinds, strict=True):
            self.count(match_verdict(truth, answer, self.match, others))

    def arguments(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
        """Return what ``update`` takes, out of rows that may hold ``alternatives``."""
        found = super().arguments(rows)
        found["alternatives"] = [row.get("alternatives", ()) for row in rows]
        return found

    def reader(self) -> str:
        """Return what reads the answers."""
        return f"{self.match} match"
