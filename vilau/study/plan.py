"""What a study will run: every stage of every variant and seed, with equal ones joined into one run.

Planning imports neither torch nor lightning, so it answers in a fraction of a second.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

from vilau.errors import ConfigError
from vilau.study.dotted import merged, set_dotted
from vilau.study.load import (
    StageConfig,
    load_machine,
    load_scale,
    parse_overrides,
    stage_config,
)
from vilau.study.schema import Column, Gate, Stage, Study
from vilau.study.suggest import did_you_mean

ENGINE_VERSION = "1"
"""Part of every run's identity: raised when runs of older engines must not be taken for equal."""

NOT_IDENTITY = ("checkpoint_every_n_steps", "threads")
"""Keys of a stage config that say how to run, not what: they never change a result."""


@dataclass(frozen=True)
class Options:
    """What the command line adds to a study file; ``None`` and empty mean the study's own."""

    scale: str | None = None
    machine: str = "cpu"
    overrides: Sequence[str] = ()
    seeds: Sequence[int] | None = None
    only: Sequence[str] = ()
    until: str | None = None


@dataclass(frozen=True)
class Run:
    """One stage run: everything that decides its result, and its name in the store."""

    stage: Stage
    seed: int
    resolved: StageConfig
    inputs: dict[str, str]
    """Dotted key -> name of the run whose product folder is written there."""
    key: str

    @property
    def name(self) -> str:
        """Folder name in the store, ``<stage>-<8 hex digits>``."""
        return f"{self.stage.name}-{self.key}"


@dataclass(frozen=True)
class Cell:
    """One stage of one variant and seed; equal cells share a run."""

    variant: str
    seed: int
    stage: str
    run: str


@dataclass(frozen=True)
class Plan:
    """All runs of a study, earlier ones first."""

    study: Study
    """With the table and the claims of ``scale``."""
    options: Options
    scale: str
    stages: dict[str, Stage]
    """The stages that ``scale`` has."""
    seeds: tuple[int, ...]
    trainer: dict[str, Any]
    """What the machine lays over every stage's trainer."""
    runs: dict[str, Run] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    after: dict[str, set[str]] = field(default_factory=dict)
    """Run name -> runs that must be finished before: its inputs, and gated stages above it."""

    def users(self, name: str) -> list[Cell]:
        """Return the cells that share the run ``name``."""
        return [cell for cell in self.cells if cell.run == name]

    def cell(self, variant: str, seed: int, stage: str) -> Cell | None:
        """Return one cell, or None where the options left it out."""
        for cell in self.cells:
            if (cell.variant, cell.seed, cell.stage) == (variant, seed, stage):
                return cell
        return None

    def gates(self, name: str) -> tuple[Gate, ...]:
        """Return the gates that stand behind the run ``name`` at this scale."""
        return self.standing(self.runs[name].stage)

    def standing(self, stage: Stage) -> tuple[Gate, ...]:
        """Return the gates of a stage that stand at this scale."""
        return tuple(gate for gate in stage.gates if not gate.scales or self.scale in gate.scales)

    def stage_trainer(self, run: Run) -> dict[str, Any]:
        """Return a stage's ``trainer``: its config's, the machine's laid over it, and over both the command line's."""
        config = {"trainer": merged(run.resolved.config.get("trainer") or {}, self.trainer)}
        for setting in run.resolved.commanded:
            section, _, key = setting.key.partition(".")
            # What is added to a list stands in the config already, unless the machine has another list.
            if section == "trainer" and (not key.endswith("+") or key[:-1] in self.trainer):
                set_dotted(config, setting.key, deepcopy(setting.value))
        return config["trainer"]


def make_plan(study: Study, options: Options) -> Plan:
    """Plan a study.

    Raises:
        ConfigError: an unknown scale, machine, variant, stage or key.
    """
    scale_name = options.scale or study.scale
    scale = load_scale(study, scale_name)
    overrides = parse_overrides(study, options.overrides)
    variants = _chosen(options.only, list(study.variants), "variant", "--only")
    known = study.stages_at(scale_name)
    asked = [options.until] if options.until else []
    _chosen(asked, list(study.stages), "stage", "--until")
    _check_left_out(study, scale_name, known, [*asked, *(stage for stage, _ in overrides)])
    stages = list(known.values())
    if options.until:
        stages = stages[: list(known).index(options.until) + 1]
    plan = Plan(
        study=study.at(scale_name),
        options=options,
        scale=scale_name,
        stages=known,
        seeds=tuple(study.seeds if options.seeds is None else options.seeds),
        trainer=load_machine(study, options.machine),
    )
    configs = {
        (variant, stage.name): stage_config(
            study,
            stage,
            study.variants[variant],
            scale=scale,
            scale_name=scale_name,
            overrides=overrides,
        )
        for variant in variants
        for stage in stages
    }
    for seed in plan.seeds:
        for variant in variants:
            _add_chain(plan, variant, seed, stages, configs)
    return plan


def joined(plans: Sequence[Plan]) -> Plan:
    """Return one plan with the runs of several, for what is counted of all of them; study and table are the first's.

    A run that several have waits for what all of them want before it: one study's gates do not hold back another's.
    """
    after: dict[str, set[str]] = {}
    for plan in plans:
        for name, before in plan.after.items():
            after[name] = after[name] & before if name in after else before
    runs = {name: run for plan in reversed(plans) for name, run in plan.runs.items()}
    return replace(plans[0], runs={name: runs[name] for name in after}, after=after, cells=[])


def run_config(
    plan: Plan, run: Run, products: dict[str, str], *, threads: int | None = None
) -> dict[str, Any]:
    """Return the config that ``vilau fit --config`` takes: inputs filled in, the machine's trainer.

    Args:
        plan: the plan that holds ``run``.
        run: the run to write down.
        products: run name -> path of its product folder, for every input.
        threads: CPU threads to compute with, recorded so that a resumed run computes alike.
    """
    config: dict[str, Any] = {"seed_everything": run.seed, **deepcopy(run.resolved.config)}
    for key, source in run.inputs.items():
        set_dotted(config, key, products[source])
    config["trainer"] = plan.stage_trainer(run)
    if threads is not None:
        config["threads"] = threads
    return config


def _add_chain(
    plan: Plan,
    variant: str,
    seed: int,
    stages: Sequence[Stage],
    configs: dict[tuple[str, str], StageConfig],
) -> None:
    """Add the stages of one variant and seed, joining runs that are equal to known ones."""
    names: dict[str, str] = {}
    gated: set[str] = set()
    for stage in stages:
        if stage.variants and variant not in stage.variants:
            continue
        resolved = configs[variant, stage.name]
        inputs = {key: names[source] for key, source in stage.inputs.items() if source in names}
        own_seed = seed if stage.seed is None else stage.seed
        key = _identity(stage.command, resolved.config, own_seed, inputs)
        where = plan.study.source.where
        places = {name: where(("stages", stage.name, "inputs", name)) for name in inputs}
        run = Run(stage, own_seed, resolved.fed(places), inputs, key)
        plan.runs.setdefault(run.name, run)
        plan.after.setdefault(run.name, set()).update(set(inputs.values()) | gated - {run.name})
        plan.cells.append(Cell(variant, seed, stage.name, run.name))
        names[stage.name] = run.name
        if plan.standing(stage):
            gated.add(run.name)


def _identity(command: str, config: dict[str, Any], seed: int, inputs: dict[str, str]) -> str:
    """Return 8 hex digits over everything that decides a result: no paths, no machine, no code."""
    content = {
        "engine": ENGINE_VERSION,
        "command": command,
        "config": {key: value for key, value in config.items() if key not in NOT_IDENTITY},
        "seed": seed,
        "inputs": inputs,
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _check_left_out(
    study: Study, scale: str, known: Collection[str], commanded: Sequence[str]
) -> None:
    """Refuse to set, to stop at, or to show numbers of a stage that the scale lacks."""
    lacks = f"scale `{scale}` has no stage"
    for name in commanded:
        if name not in known:
            raise ConfigError(f"{lacks} `{name}`; leave it out of --set and --until.")
    table = study.at(scale).table
    columns = [*table.columns.values()]
    for line in table.baselines.values():
        columns += [cell for cell in line.values() if isinstance(cell, Column)]
    for column in columns:
        if column.stage not in known:
            raise ConfigError(
                f"{study.path.name}: {lacks} `{column.stage}`, which measures `{column.heading}`; write another table "
                f"under table.scales.{scale}."
            )


def _chosen(wanted: Sequence[str], known: list[str], kind: str, flag: str) -> list[str]:
    for name in wanted:
        if name not in known:
            raise ConfigError(
                f"{flag} {name}: there is no {kind} `{name}`.{did_you_mean(name, known)}"
            )
    return [name for name in known if name in wanted] if wanted else known
