"""What a study is, as plain dataclasses: stages, variants, columns, claims. ``parse`` reads them from YAML."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vilau.study.expressions import Expression
from vilau.study.yaml_reader import YamlFile

COMMANDS = ("fit", "validate", "test", "predict")
"""What a stage may run: the four verbs of a Lightning trainer."""

SECTIONS = (
    "model", "data", "trainer", "optimizer", "lr_scheduler", "checkpoint_every_n_steps", "threads",
)  # fmt: skip
"""The first word of a stage's dotted key. ``seed_everything`` is missing: seeds belong to the study."""


@dataclass(frozen=True)
class Setting:
    """One overlay: a dotted key inside a stage, its value, and where the user wrote it."""

    key: str
    value: Any
    origin: str


@dataclass(frozen=True)
class Gate:
    """A condition on a stage's metric that must hold before later stages start."""

    metric: str
    condition: Expression
    says: str = ""


@dataclass(frozen=True)
class Stage:
    """One Lightning run of a study: a command, its configs, and which earlier products it takes in."""

    name: str
    command: str
    configs: tuple[str, ...]
    inputs: dict[str, str] = field(default_factory=dict)
    """Dotted key -> the earlier stage whose product folder is written there."""
    settings: tuple[Setting, ...] = ()
    gates: tuple[Gate, ...] = ()
    seed: int | None = None
    """A seed of its own: the stage is then the same run for every seed of the study."""


@dataclass(frozen=True)
class Variant:
    """A named difference: settings per stage."""

    name: str
    label: str
    settings: tuple[tuple[str, Setting], ...] = ()


@dataclass(frozen=True)
class Column:
    """A table column: which metric of which stage, and how to print it."""

    heading: str
    stage: str
    metric: str
    higher_is_better: bool = True
    format: str = ""
    """A Python format such as ``.2f`` or ``.1%``; empty: three significant digits or so."""


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper and the comparison that checks it on the measured table."""

    says: str
    holds: Expression


@dataclass(frozen=True)
class Study:
    """A study file, read and checked as far as that needs no other file."""

    name: str
    path: Path
    question: str
    scale: str
    seeds: tuple[int, ...]
    stages: dict[str, Stage]
    variants: dict[str, Variant]
    columns: dict[str, Column]
    baselines: dict[str, dict[str, Column | float]]
    paper: dict[str, dict[str, float]]
    claims: tuple[Claim, ...]
    scales: dict[str, dict[str, tuple[Setting, ...]]]
    """Sizes of the study's own, laid over ``scales/<name>.yaml``."""
    source: YamlFile
