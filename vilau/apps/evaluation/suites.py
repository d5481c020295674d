"""Which benchmarks a table of VILA-U takes, and what of them is on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vilau.errors import ConfigError
from vilau.study.suggest import did_you_mean

SUITES: dict[str, tuple[str, ...]] = {
    "table1": ("imagenet",),
    "table2": ("vqav2", "gqa", "textvqa", "pope", "mme", "seedbench", "mmvet"),
    "table3": ("msvd_qa", "msrvtt_qa", "tgif_qa", "activitynetqa"),
    "table4": ("mjhq",),
    "table5": ("genai",),
    "table7": ("mjhq",),
    "vbench": ("vbench",),
}
"""Suites of published benchmarks, by VILA-U's tables."""
TWIN_SUITES: dict[str, tuple[str, ...]] = {
    "table2": (
        "world_vqav2", "world_gqa", "world_textvqa", "world_pope", "world_mme", "world_seedbench", "world_mmvet",
    ),
    "table3": ("world_msvd_qa", "world_msrvtt_qa", "world_tgif_qa", "world_activitynetqa"),
    "table4": ("world_mjhq",),
    "table5": ("world_genai",),
    "table7": ("world_mjhq",),
    "vbench": ("world_vbench",),
}  # fmt: skip
"""The drawn world's twins of the same."""

QUESTIONS, DRAWINGS, ZERO_SHOT = "questions", "drawings", "zero-shot"


@dataclass(frozen=True)
class Listed:
    """One benchmark of the real world: what it needs on disk, and what scores it."""

    name: str
    title: str
    kind: str
    needs: tuple[str, ...]
    """Paths under its folder."""
    scorer: str
    """Who turns answers or drawings into the number, where that is not this package."""
    remark: str = ""

    def missing(self, folder: Path) -> list[Path]:
        """The needed paths that are not there."""
        return [folder / need for need in self.needs if not (folder / need).exists()]


def known_benchmarks() -> dict[str, Listed]:
    """Return all published benchmarks by name."""
    # Imported here: readers of data bring Pillow and torch along, and --help must answer at once.
    from vilau.data.published.drawings import IMAGES, META, PROMPTS, SKILLS, VBENCH
    from vilau.data.published.images import IMAGE_BENCHMARKS
    from vilau.data.published.videos import VIDEO_BENCHMARKS

    drawn = (
        Listed("mjhq", "MJHQ-30K", DRAWINGS, (META, IMAGES), "clean-fid 0.1.35"),
        Listed("genai", "GenAI-Bench-527", DRAWINGS, (PROMPTS, SKILLS),
               "t2v-metrics 3.0 with the weights of clip-flant5-xxl"),
        Listed("vbench", "VBench", DRAWINGS, (VBENCH,), "VBench"),
        Listed("imagenet", "ImageNet val, zero-shot", ZERO_SHOT, ("val", "classnames.json"), ""),
    )  # fmt: skip
    asked = (
        Listed(one.name, one.title, QUESTIONS, one.needs, "", one.remark)
        for one in (*IMAGE_BENCHMARKS, *VIDEO_BENCHMARKS)
    )
    return {one.name: one for one in (*asked, *drawn)}


def chosen_names(suite: str | None, benchmarks: Sequence[str], *, world: bool) -> list[str]:
    """Return the names of the benchmarks that were asked for.

    Raises:
        ConfigError: neither suite nor benchmarks are named, or one is unknown.
    """
    suites = TWIN_SUITES if world else SUITES
    if suite is not None and suite not in suites:
        raise ConfigError(f"--suite is `{suite}`.{did_you_mean(suite, suites)}")
    if suite is None and not benchmarks:
        raise ConfigError(
            f"nothing is asked for; write --suite ({', '.join(suites)}) or --benchmarks."
        )
    known = twin_names() if world else list(known_benchmarks())
    for name in benchmarks:
        if name not in known:
            raise ConfigError(f"--benchmarks holds `{name}`.{did_you_mean(name, known)}")
    return list(dict.fromkeys([*(suites[suite] if suite else ()), *benchmarks]))


def twin_names() -> list[str]:
    """Return the names of all twins."""
    # Imported here: see `known_benchmarks`.
    from vilau.data.twins.prompts import DRAWN
    from vilau.data.twins.sets import TWINS

    return [*TWINS, *DRAWN]
