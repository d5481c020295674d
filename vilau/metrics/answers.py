"""Scores of answers to questions: the published benchmarks by name, and means of named groups.

Each benchmark is a torchmetrics class in a file of its own; all are importable from here.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch.distributed

from vilau.errors import ConfigError
from vilau.metrics.answer_metric import AnswerMetric
from vilau.metrics.judged import Judge, JudgedVideoQA, MMVet
from vilau.metrics.mmbench import MMBench
from vilau.metrics.mme import MME, WorldMME
from vilau.metrics.multiple_choice import RankedSeedBench, ScienceQA, SeedBench
from vilau.metrics.open_ended import OpenEnded
from vilau.metrics.parsers import AnswerStyle, check_style, parse_yes_no, suggestion
from vilau.metrics.pope import POPE_SETTINGS, Pope, PopeScores, mean_scores
from vilau.metrics.predictions import read_predictions
from vilau.metrics.video_qa import MatchedVideoQA
from vilau.metrics.vqa import (
    GQA,
    OKVQA,
    TextVQA,
    VizWiz,
    VQAv2,
    best_vqa_accuracy,
    exact_match,
    vqa_accuracy,
)
from vilau.metrics.world_video_qa import WorldVideoQA

__all__ = [
    "BENCHMARKS",
    "GQA",
    "JUDGED",
    "MME",
    "OKVQA",
    "POPE_SETTINGS",
    "AnswerMetric",
    "AnswerStyle",
    "GroupedMean",
    "Judge",
    "JudgedVideoQA",
    "MMBench",
    "MMVet",
    "MatchedVideoQA",
    "OpenEnded",
    "Pope",
    "PopeScores",
    "RankedSeedBench",
    "ScienceQA",
    "SeedBench",
    "TWINS",
    "TextVQA",
    "VQAv2",
    "VizWiz",
    "WorldMME",
    "answer_metric",
    "best_vqa_accuracy",
    "check_style",
    "exact_match",
    "mean_scores",
    "names_on_all_ranks",
    "parse_yes_no",
    "read_predictions",
    "unjudged",
    "vqa_accuracy",
    "without_judge",
]

T = TypeVar("T")

BENCHMARKS: dict[str, type[AnswerMetric]] = {
    "vqav2": VQAv2,
    "gqa": GQA,
    "textvqa": TextVQA,
    "ok_vqa": OKVQA,
    "vizwiz_vqa": VizWiz,
    "scienceqa": ScienceQA,
    "scienceqa_img": ScienceQA,
    "pope": Pope,
    "mme": MME,
    "seedbench": SeedBench,
    "seedbench_ranked": RankedSeedBench,
    "mmbench": MMBench,
    "open_ended": OpenEnded,
    "video_qa": MatchedVideoQA,
}
"""Benchmarks that need no judge, by lmms-eval's name where it has one."""

JUDGED: dict[str, type[MMVet] | type[JudgedVideoQA]] = {
    "mmvet": MMVet,
    "msvd_qa": JudgedVideoQA,
    "msrvtt_qa": JudgedVideoQA,
    "tgif_qa": JudgedVideoQA,
    "activitynetqa": JudgedVideoQA,
}
"""Benchmarks that a judge model scores."""


def unjudged(benchmark: str) -> str:
    """Return the benchmark's own name, or of one that a judge model scores that of what compares strings instead."""
    if benchmark not in JUDGED:
        return benchmark
    return "open_ended" if JUDGED[benchmark] is MMVet else "video_qa"


def without_judge(benchmark: str) -> str:
    """Return what a benchmark's numbers are called that no judge gave: where one should have, the name says so."""
    return f"{benchmark}_string_match" if benchmark in JUDGED else benchmark


_TWINNED = (
    "vqav2", "gqa", "textvqa", "pope", "seedbench", "seedbench_ranked", "mmbench", "scienceqa", "ok_vqa", "vizwiz_vqa",
    *JUDGED,
)  # fmt: skip
TWINS: dict[str, type[AnswerMetric]] = {
    "world_mme": WorldMME,
    **{
        f"world_{name}": WorldVideoQA
        if unjudged(name) == "video_qa"
        else BENCHMARKS[unjudged(name)]
        for name in _TWINNED
    },
}
"""The drawn world's twins, scored by the rules of what they stand for; where that takes a judge model (MM-Vet,
video questions) by comparing strings. MME's has categories of its own."""


def answer_metric(
    benchmark: str,
    style: AnswerStyle = "lmms",
    *,
    judge: Judge | None = None,
    judge_name: str = "",
    **settings: Any,
) -> AnswerMetric:
    """Return the metric of a benchmark.

    Args:
        benchmark: a name of `BENCHMARKS`, `TWINS` or `JUDGED`.
        style: whose scripts read the answers.
        judge: needed by the benchmarks of `JUDGED` alone.
        judge_name: its model and version.
        settings: further arguments of the benchmark's class.

    Raises:
        ConfigError: the benchmark or the style is unknown, or a judge is missing.
    """
    unjudged_ones = BENCHMARKS | TWINS
    if benchmark in unjudged_ones:
        return unjudged_ones[benchmark](style=style, **settings)
    if benchmark not in JUDGED:
        known = [*unjudged_ones, *JUDGED]
        raise ConfigError(f"There is no benchmark '{benchmark}'. {suggestion(benchmark, known)}")
    if judge is None:
        raise ConfigError(
            f"Benchmark '{benchmark}' is scored by a judge model and none is given; give judge and judge_name, or ask "
            f"for '{unjudged(benchmark)}', which compares strings under a name of its own."
        )
    return JUDGED[benchmark](judge, judge_name, style, **settings)


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
