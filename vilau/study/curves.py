"""Which curves of a stage stand on the page, which are folded away, and which become one panel."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

Number = TypeVar("Number", int, float)

_SPEED = re.compile(r"learning_rate|lr-|per_s|seconds|time_s|throughput|epoch$|memory|hp_metric")
_BY_DEPTH = re.compile(r"(?P<base>.+?)_d(?:epth)?(?P<at>\d+)$")
_BY_GUIDANCE = re.compile(r"(?P<base>.+?)_g(?P<at>\d+(?:\.\d+)?)$")
MOST_PANELS = 9


@dataclass
class Arranged:
    """The tags of a stage, in the order of their panels."""

    training: list[str] = field(default_factory=list)
    """Logged at every step: losses first."""
    measured: list[str] = field(default_factory=list)
    """Measured now and then: what the study's table shows first."""
    by_depth: dict[str, dict[int, str]] = field(default_factory=dict)
    """Base name -> depth -> tag: one panel over the depth, from the last measurement."""
    by_guidance: dict[str, dict[float, str]] = field(default_factory=dict)
    """Base name -> guidance scale -> tag: one panel over the scale."""
    folded: list[str] = field(default_factory=list)
    """Speeds, learning rates, and whatever finds no room above."""


def arrange(tags: Iterable[str], in_table: Collection[str]) -> Arranged:
    """Arrange the tags of a stage.

    Args:
        tags: every scalar the stage's runs logged.
        in_table: metrics of this stage that the study's table shows.
    """
    out = Arranged()
    known = sorted(set(tags))
    out.by_depth = {
        base: _numbered(found, int) for base, found in _series(known, _BY_DEPTH).items()
    }
    out.by_guidance = {
        base: _numbered(found, float) for base, found in _series(known, _BY_GUIDANCE).items()
    }
    taken = {tag for tags_of in out.by_depth.values() for tag in tags_of.values()}
    taken |= {tag for tags_of in out.by_guidance.values() for tag in tags_of.values()}
    for tag in sorted(known, key=lambda tag: (tag not in in_table, "loss" not in tag, tag)):
        if tag in taken:
            continue
        if _SPEED.search(tag):
            out.folded.append(tag)
        elif tag.startswith("train/"):
            out.training.append(tag)
        else:
            out.measured.append(tag)
    for shelf in (out.training, out.measured):
        out.folded += shelf[MOST_PANELS:]
        del shelf[MOST_PANELS:]
    return out


def _series(tags: Iterable[str], pattern: re.Pattern[str]) -> dict[str, dict[str, str]]:
    """Return base name -> what the tag ends in -> tag, of names with more than one ending."""
    found: dict[str, dict[str, str]] = {}
    for tag in tags:
        if match := pattern.fullmatch(tag):
            found.setdefault(match["base"], {})[match["at"]] = tag
    return {base: tags_of for base, tags_of in found.items() if len(tags_of) > 1}


def _numbered(tags: dict[str, str], kind: Callable[[str], Number]) -> dict[Number, str]:
    return {kind(at): tag for at, tag in sorted(tags.items(), key=lambda item: float(item[0]))}
