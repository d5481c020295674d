"""Which benchmarks a table of a paper takes, and what of them is on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vilau.errors import ConfigError
from vilau.study.suggest import did_you_mean

SUITES: dict[str, tuple[str, ...]] = {
    "table1": ("imagenet",),
    "table2": ("vqav2", "gqa", "textvqa", "pope", "mme", "seedbench", "seedbench_ranked", "mmvet"),
    "table3": ("msvd_qa", "msrvtt_qa", "tgif_qa", "activitynetqa"),
    "table4": ("mjhq",),
    "table5": ("genai",),
    "table7": ("mjhq",),
    "vbench": ("vbench",),
    "vargpt_table1": ("mmbench", "seedbench", "pope", "mme"),
    "vargpt_table3": ("gqa", "textvqa", "vqav2", "scienceqa_img", "ok_vqa", "vizwiz_vqa"),
}
"""Suites of published benchmarks: VILA-U's tables, and VARGPT's under its name."""
NOT_HERE = {"vargpt_table1": "MMMU"}
"""Columns of a suite's table that no benchmark here fills."""

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
    files_of: str = ""
    """The benchmark whose files it reads, where these are not its own."""

    @property
    def folder(self) -> str:
        """Its folder's name."""
        return self.files_of or self.name

    def missing(self, folder: Path) -> list[Path]:
        """The needed paths that are not there."""
        return [folder / need for need in self.needs if not (folder / need).exists()]


def known_benchmarks(*, ocr: bool = False) -> dict[str, Listed]:
    """Return all published benchmarks by name, with ``ocr`` those that have OCR tokens with what these need."""
    # Imported here: readers of data bring Pillow and torch along, and --help must answer at once.
    from vilau.data.published.catalogue import question_benchmarks
    from vilau.data.published.drawings import DRAWN_BENCHMARKS

    asked = (
        Listed(one.name, one.title, QUESTIONS, one.needs, "", one.remark, one.files_of)
        for one in question_benchmarks(ocr=ocr).values()
    )
    drawn = (
        Listed(one.name, one.title, DRAWINGS, one.needs, one.scorer)
        for one in DRAWN_BENCHMARKS.values()
    )
    imagenet = Listed(
        "imagenet", "ImageNet val, zero-shot", ZERO_SHOT, ("val", "classnames.json"), ""
    )
    return {one.name: one for one in (*asked, *drawn, imagenet)}


def chosen_names(suite: str | None, benchmarks: Sequence[str], *, world: bool) -> list[str]:
    """Return the names of the benchmarks that were asked for.

    Raises:
        ConfigError: neither suite nor benchmarks are named, one is unknown, or a suite has no twins.
    """
    if suite is not None and suite not in SUITES:
        raise ConfigError(f"--suite is `{suite}`.{did_you_mean(suite, SUITES)}")
    if suite is None and not benchmarks:
        raise ConfigError(
            f"nothing is asked for; write --suite ({', '.join(SUITES)}) or --benchmarks."
        )
    known = list(twins() if world else known_benchmarks())
    for name in benchmarks:
        if name not in known:
            raise ConfigError(f"--benchmarks holds `{name}`.{did_you_mean(name, known)}")
    if suite is None:
        return list(dict.fromkeys(benchmarks))
    return list(dict.fromkeys([*(_twins_of(suite) if world else SUITES[suite]), *benchmarks]))


def _twins_of(suite: str) -> list[str]:
    """Return a suite's twins in the order of its table."""
    twin_of = {published: twin for twin, published in twins().items()}
    found = [twin_of[name] for name in SUITES[suite] if name in twin_of]
    if not found:
        raise ConfigError(
            f"--suite is `{suite}`, of which the drawn world has no twin; leave out --world, or name another suite."
        )
    return found


def not_in(suite: str, *, world: bool) -> list[str]:
    """Return what the suite's table has, but this program or, with ``world``, the drawn world has not."""
    lacking = [NOT_HERE[suite]] if suite in NOT_HERE else []
    return lacking + [name for name in SUITES[suite] if world and name not in twins().values()]


def check_ocr(names: Sequence[str]) -> None:
    """Raise ``ConfigError`` where none of the benchmarks has OCR tokens."""
    # Imported here: see `known_benchmarks`.
    from vilau.data.published.catalogue import OCR_BENCHMARKS

    having = [*OCR_BENCHMARKS, *(name for name, real in twins().items() if real in OCR_BENCHMARKS)]
    if not set(having) & set(names):
        raise ConfigError(
            f"--ocr puts OCR tokens into the questions of {' and '.join(having)}, but {', '.join(names)} is asked for; "
            "add one of these, or leave --ocr out."
        )


def check_hidden(names: Sequence[str]) -> None:
    """Raise ``ConfigError`` where one of the benchmarks asks nothing about images that could be hidden."""
    # Imported here: see `known_benchmarks`.
    from vilau.data.twins.prompts import DRAWN

    listed = known_benchmarks()
    for name in names:
        if name in DRAWN or (name in listed and listed[name].kind != QUESTIONS):
            raise ConfigError(
                f"--without-images is for questions about images, but {name} is asked for; leave out one of the two."
            )


def twins() -> dict[str, str]:
    """Return the drawn world's twins by name, each with the published benchmark it stands for."""
    # Imported here: see `known_benchmarks`.
    from vilau.data.twins.prompts import DRAWN
    from vilau.data.twins.sets import TWINS

    return {name: twin.stands_for for name, twin in TWINS.items()} | DRAWN
