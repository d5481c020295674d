"""What a study is, as plain dataclasses: stages, variants, columns, claims. ``parse`` reads them from YAML."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
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
    scales: tuple[str, ...] = ()
    """The scales at which it stands; none named: all."""


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
    scale: str = ""
    """Which stage of the scale file it takes its sizes from; empty: the one of its own name."""
    variants: tuple[str, ...] = ()
    """The variants that have this stage; none named: all. Where a variant lacks it, what other stages would
    take from it stays as their configs have it."""
    scales: tuple[str, ...] = ()
    """The scales that have this stage; none named: all. Where a scale lacks it, what other stages would take
    from it they take from where it would have taken it itself."""


@dataclass(frozen=True)
class Variant:
    """A named difference: settings per stage."""

    name: str
    label: str
    settings: tuple[tuple[str, Setting], ...] = ()
    scales: dict[str, tuple[tuple[str, Setting], ...]] = field(default_factory=dict)
    """What else differs at a scale: sizes that mean the same relative to the others."""

    def of(self, stage: str, scale: str) -> list[Setting]:
        """Return what this variant sets in a stage, at a scale."""
        every = (*self.settings, *self.scales.get(scale, ()))
        return [setting for name, setting in every if name == stage]


@dataclass(frozen=True)
class Column:
    """A table column: which metric of which stage, and how to print it."""

    heading: str
    stage: str
    metric: str
    higher_is_better: bool = True
    format: str = ""
    """A Python format such as ``.2f`` or ``.1%``; empty: three significant digits or so."""
    variants: tuple[str, ...] = ()
    """The only variants that log it; empty: all."""


@dataclass(frozen=True)
class TableRow:
    """A table line out of one variant's numbers: of every column the metric with an ending of its own."""

    name: str
    label: str
    ending: str
    """``_g1.25`` turns the column ``sweep/test/fid`` into ``sweep/test/fid_g1.25``."""


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper and the comparison that checks it on the measured table."""

    says: str
    holds: Expression
    scales: tuple[str, ...] = ()
    """The scales at which it is checked; none named: all."""


@dataclass(frozen=True)
class Table:
    """What a study's table shows."""

    columns: dict[str, Column] = field(default_factory=dict)
    baselines: dict[str, dict[str, Column | float]] = field(default_factory=dict)
    paper: dict[str, dict[str, float]] = field(default_factory=dict)
    rows: dict[str, TableRow] = field(default_factory=dict)
    """Lines of the table where they are not the variants; then there is one variant."""


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
    table: Table
    claims: tuple[Claim, ...]
    scales: dict[str, dict[str, tuple[Setting, ...]]]
    """Sizes of the study's own, laid over ``scales/<name>.yaml``."""
    source: YamlFile
    tables: dict[str, Table] = field(default_factory=dict)
    """Scale -> the table that stands in the place of ``table`` there."""

    def at(self, scale: str) -> Study:
        """Return the study with the table and the claims that it has at a scale."""
        claims = tuple(one for one in self.claims if not one.scales or scale in one.scales)
        return replace(self, table=self.tables.get(scale, self.table), claims=claims)

    def stages_at(self, scale: str) -> dict[str, Stage]:
        """Return the stages that a scale has, with the inputs that they have there."""

        def lacking(name: str) -> bool:
            stage = self.stages[name]
            return bool(stage.scales) and scale not in stage.scales

        found = {}
        for name, stage in self.stages.items():
            if lacking(name):
                continue
            inputs = {}
            for key, source in stage.inputs.items():
                giver: str | None = source
                while giver is not None and lacking(giver):
                    giver = self.stages[giver].inputs.get(key)
                if giver is not None:
                    inputs[key] = giver
            found[name] = replace(stage, inputs=inputs)
        return found

    @property
    def columns(self) -> dict[str, Column]:
        """The table's columns by heading."""
        return self.table.columns

    @property
    def baselines(self) -> dict[str, dict[str, Column | float]]:
        """Lines of the table that are measured beside the variants, or known."""
        return self.table.baselines

    @property
    def paper(self) -> dict[str, dict[str, float]]:
        """The paper's numbers, by variant or row and heading."""
        return self.table.paper

    @property
    def rows(self) -> dict[str, TableRow]:
        """Lines of the table where they are not the variants."""
        return self.table.rows
