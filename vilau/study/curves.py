"""Which curves of a stage stand on the page, which are folded away, and which become one panel."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

_SPEED = re.compile(r"learning_rate|lr-|per_s|seconds|time_s|throughput|epoch$|memory|hp_metric")
_BY_DEPTH = re.compile(r"(?P<base>.+?)_d(?:epth)?(?P<depth>\d+)$")
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
    depths: dict[str, dict[int, str]] = {}
    for tag in known:
        if match := _BY_DEPTH.fullmatch(tag):
            depths.setdefault(match["base"], {})[int(match["depth"])] = tag
    out.by_depth = {base: tags_of for base, tags_of in depths.items() if len(tags_of) > 1}
    taken = {tag for tags_of in out.by_depth.values() for tag in tags_of.values()}
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
