"""Read a study file: its keys into the dataclasses of ``schema``, each mistake one sentence with file and line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vilau.errors import ConfigError
from vilau.study import expressions
from vilau.study.node import Node
from vilau.study.parse_table import named_variants, parse_claims, parse_tables
from vilau.study.schema import (
    COMMANDS,
    SECTIONS,
    Gate,
    Setting,
    Stage,
    Study,
    Variant,
)
from vilau.study.suggest import did_you_mean, listing
from vilau.study.yaml_reader import YamlFile, leading_comment


def parse_study(file: YamlFile, path: Path) -> Study:
    """Read a study file's data.

    Raises:
        ConfigError: an unknown or missing key, a value of the wrong kind, or a name that is not there.
    """
    top = Node(file, (), file.data)
    top.only("study scale seeds stages variants table claims scales")
    names = list(top.child("variants").named())
    stages = _stages(top.child("stages", required=True), names)
    variants = _variants(top.child("variants", required=True), stages)
    table, tables = parse_tables(top.child("table"), variants, stages)
    return Study(
        name=top.child("study", required=True).identifier(),
        path=path,
        question=leading_comment(file.text),
        scale=top.child("scale").text("tiny"),
        seeds=_seeds(top.child("seeds")),
        stages=stages,
        variants=variants,
        table=table,
        claims=parse_claims(top.child("claims"), table, tables, variants),
        scales={
            name: {stage: settings(entry) for stage, entry in node.entries().items()}
            for name, node in top.child("scales").entries().items()
        },
        source=file,
        tables=tables,
    )


def settings(node: Node) -> tuple[Setting, ...]:
    """Read flat dotted keys (``model.contrastive_weight: 0.0``) of one stage."""
    out = []
    for key, item in node.entries().items():
        where = node.file.where(item.path)
        check_section(key, where)
        out.append(Setting(key, item.data, where))
    return tuple(out)


def check_section(key: str, where: str) -> None:
    """Refuse a dotted key whose first word is no section of a stage's config."""
    section = key.split(".")[0].rstrip("+")
    if section == "seed_everything":
        raise ConfigError(f"{where}: seeds belong to the study; write `seeds: [0, 1]` at its top.")
    if section not in SECTIONS:
        raise ConfigError(f"{where}: unknown key `{key}`.{did_you_mean(section, SECTIONS)}")


def overlay_file(file: YamlFile) -> dict[str, tuple[Setting, ...]]:
    """Read a scale file: per stage flat dotted keys."""
    return {name: settings(node) for name, node in Node(file, (), file.data).entries().items()}


def machine_file(file: YamlFile) -> dict[str, Any]:
    """Read a machine file: a mapping ``trainer``, laid over every stage's trainer."""
    top = Node(file, (), file.data)
    top.only("trainer")
    return {key: node.data for key, node in top.child("trainer").entries().items()}


def _seeds(node: Node) -> tuple[int, ...]:
    if node.data is None:
        return (0,)
    seeds = tuple(item.integer() for item in node.list_items())
    if not seeds:
        raise node.wrong("`seeds` holds []; name at least one seed, or leave the key out")
    if len(set(seeds)) < len(seeds):
        raise node.wrong(f"`seeds` holds {list(seeds)}; name each seed once")
    return seeds


def _stages(node: Node, variants: list[str]) -> dict[str, Stage]:
    stages: dict[str, Stage] = {}
    for name, entry in node.named().items():
        entry.only("run config inputs set gate seed scale variants scales")
        command = entry.child("run").text("fit")
        if command not in COMMANDS:
            raise entry.child("run").wrong(
                f"`{entry.shown}.run` holds `{command}`; write one of {listing(COMMANDS)}"
            )
        config = entry.child("config", required=True)
        parts = config.list_items() if isinstance(config.data, list) else [config]
        seed = entry.child("seed")
        stages[name] = Stage(
            name=name,
            command=command,
            configs=tuple(part.text() for part in parts),
            inputs=_inputs(entry.child("inputs"), stages, node),
            settings=settings(entry.child("set")),
            gates=_gates(entry.child("gate")),
            seed=None if seed.data is None else seed.integer(),
            scale=entry.child("scale").text(name),
            variants=named_variants(entry.child("variants"), variants),
            scales=tuple(item.text() for item in entry.child("scales").list_items()),
        )
    if not stages:
        raise node.wrong("a study needs at least one stage")
    return stages


def _inputs(node: Node, earlier: dict[str, Stage], all_stages: Node) -> dict[str, str]:
    inputs = {}
    for key, item in node.entries().items():
        check_section(key, node.file.where(item.path))
        source = item.text()
        if source not in earlier:
            if source in all_stages.entries():
                raise item.wrong(
                    f"`{item.shown}`: `{source}` is not an earlier stage. Earlier stages:"
                    f" {listing(earlier) or 'none'}"
                )
            raise ConfigError(
                f"{node.file.where(item.path)}: `{item.shown}`: there is no stage `{source}`."
                f"{did_you_mean(source, earlier)}"
            )
        if earlier[source].command != "fit":
            raise item.wrong(f"`{item.shown}`: stage `{source}` trains nothing that could be used")
        inputs[key] = source
    return inputs


def _gates(node: Node) -> tuple[Gate, ...]:
    says = node.child("says").text("")
    scales = tuple(item.text() for item in node.child("scales").list_items())
    gates = []
    for metric, item in node.entries().items():
        if metric in ("says", "scales"):
            continue
        fault = item.wrong(f'`{item.shown}` holds {item.data!r}; write e.g. ">= 0.9"')
        try:
            condition = expressions.parse(f"value {item.text()}", ["value"])
        except ConfigError:
            raise fault from None
        if condition.kind != "compare":
            raise fault
        gates.append(Gate(metric, condition, says, scales))
    return tuple(gates)


def _variants(node: Node, stages: dict[str, Stage]) -> dict[str, Variant]:
    variants = {}
    for name, entry in node.named().items():
        entry.only("label set scales")
        variants[name] = Variant(
            name=name,
            label=entry.child("label").text(name),
            settings=_stage_settings(entry.child("set"), stages),
            scales={
                scale: _stage_settings(item, stages)
                for scale, item in entry.child("scales").entries().items()
            },
        )
    if not variants:
        raise node.wrong("a study needs at least one variant")
    return variants


def _stage_settings(node: Node, stages: Iterable[str]) -> tuple[tuple[str, Setting], ...]:
    return tuple(
        stage_setting(key, item.data, stages, node.file.where(item.path))
        for key, item in node.entries().items()
    )


def stage_setting(key: str, value: Any, stages: Iterable[str], where: str) -> tuple[str, Setting]:
    """Split ``stage.key`` and check both halves as far as that needs no class."""
    stage, _, inner = key.partition(".")
    if stage not in stages or not inner:
        raise ConfigError(
            f"{where}: `{key}` must start with a stage's name.{did_you_mean(stage, stages)}"
        )
    check_section(inner, where)
    return stage, Setting(inner, value, where)
