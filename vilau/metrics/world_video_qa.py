"""The drawn world's questions about clips, with the share of right answers of each family."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from vilau.errors import DataError
from vilau.metrics.parsers import AnswerStyle, suggestion
from vilau.metrics.video_qa import Match, MatchedVideoQA, match_verdict
from vilau.world.clip_language import CLIP_FAMILIES

FAMILIES = (*CLIP_FAMILIES, "repetition")


class WorldVideoQA(MatchedVideoQA):
    """As `MatchedVideoQA`, and by family: a mean hides that direction and order are harder than colour.

    Args:
        match: ``exact`` or ``soft``.
        style: both compare alike.

    Raises:
        ConfigError: another match or style.
    """

    columns: ClassVar[Mapping[str, str]] = {"truths": "answer", "families": "type"}
    by_family: Tensor

    def __init__(self, match: Match = "exact", style: AnswerStyle = "lmms") -> None:
        super().__init__(match, style)
        # Rows: families; columns: asked, right.
        zeros = torch.zeros(len(FAMILIES), 2, dtype=torch.int64)
        self.add_state("by_family", zeros, dist_reduce_fx="sum")

    def update(  # type: ignore[override]  # one column more
        self,
        answers: Sequence[str],
        truths: Sequence[str],
        families: Sequence[str],
        alternatives: Sequence[Sequence[str]] | None = None,
    ) -> None:
        """Add answers with their truths, the families of their questions and all answers of each one's kind.

        Raises:
            DataError: a family is unknown, or the numbers differ.
        """
        self.check_counts(answers, truths=truths, families=families)
        for family in families:
            if family not in FAMILIES:
                raise DataError(
                    f"A question about a clip is of type '{family}'. {suggestion(family, FAMILIES)}"
                )
        kinds: Sequence[Sequence[str]] = (
            [()] * len(answers) if alternatives is None else alternatives
        )
        self.check_counts(answers, alternatives=kinds)
        for answer, truth, family, others in zip(answers, truths, families, kinds, strict=True):
            verdict = match_verdict(truth, answer, self.match, others)
            self.count(verdict)
            row = self.by_family[FAMILIES.index(family)]
            row += torch.tensor([1, int(verdict.right is True)], device=row.device)

    def compute(self) -> dict[str, Tensor]:
        """Return what `MatchedVideoQA` does, and ``<family>_accuracy`` of each family asked, in 0..1."""
        parts = {
            f"{family}_accuracy": (row[1].double() / row[0]).float()
            for family, row in zip(FAMILIES, self.by_family, strict=True)
            if row[0]
        }
        return super().compute() | parts
