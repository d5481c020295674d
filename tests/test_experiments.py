"""Every file under experiments/ is read, planned and built on the meta device at every scale."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from vilau import cli
from vilau.costs import estimate
from vilau.study.check import check_plan
from vilau.study.dotted import merged
from vilau.study.load import load_study
from vilau.study.overview import short_count
from vilau.study.plan import Options, Plan, Run, make_plan
from vilau.study.run import run_title
from vilau.study.yaml_reader import read_yaml

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = ROOT / "experiments"
STUDIES = sorted(EXPERIMENTS.glob("*.yaml"))
FILES = sorted(EXPERIMENTS.rglob("*.yaml"))
SCALES = sorted(path.stem for path in EXPERIMENTS.glob("scales/*.yaml"))
MACHINES = sorted(path.stem for path in EXPERIMENTS.glob("machines/*.yaml"))

ids = [path.stem for path in STUDIES]


def test_the_files_are_found() -> None:
    # A glob that finds nothing would make every test below pass.
    assert {"ablate_contrastive", "pretrain_world_siglip", "quickstart"} <= set(ids)
    assert SCALES == ["paper", "small", "tiny"]
    assert {"cpu", "gpu", "fsdp_8gpu"} <= set(MACHINES)
    assert len(FILES) >= 15
    rooms = {path.parent.name for path in FILES}
    assert rooms == {"experiments", "parts", "scales", "machines"}, "a file no test below would see"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(EXPERIMENTS).as_posix())
def test_every_file_is_strict_yaml_and_says_what_it_is(path: Path) -> None:
    read_yaml(path, what="file")
    assert path.read_text(encoding="utf-8").startswith("# "), (
        "the first line says what the file is for"
    )


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("path", STUDIES, ids=ids)
@pytest.mark.filterwarnings("ignore::UserWarning")  # lpips and Lightning on the meta device
def test_every_stage_is_built_and_costs_what_was_planned(path: Path, scale: str) -> None:
    plan = make_plan(load_study(path), Options(scale=scale))
    lines: list[str] = []
    check_plan(plan, lines.append)
    assert len(lines) == len(plan.runs)
    for line, (name, run) in zip(lines, plan.runs.items(), strict=True):
        assert run_title(plan, name) in line
        cost = estimate(with_inputs(plan, run))
        assert cost is not None, f"no costs for {line}"
        assert f" {short_count(cost['parameters'])} parameters" in line
        assert cost["samples"], f"no samples for {line}"


@pytest.mark.parametrize("machine", MACHINES)
def test_every_machine_fits_every_study(machine: str) -> None:
    for path in STUDIES:
        assert make_plan(load_study(path), Options(machine=machine)).trainer["devices"]


def test_every_part_is_used() -> None:
    used = {
        config
        for path in STUDIES
        for stage in load_study(path).stages.values()
        for config in stage.configs
    }
    parts = {path.relative_to(EXPERIMENTS).as_posix() for path in EXPERIMENTS.glob("parts/*.yaml")}
    assert parts == used


@pytest.mark.parametrize("scale", SCALES)
def test_a_scale_names_only_stages_that_some_study_has(scale: str) -> None:
    # Loading ignores stages a study lacks, so a misspelt one would be lost without a word.
    known = {stage for path in STUDIES for stage in load_study(path).stages}
    data: dict[str, Any] = read_yaml(EXPERIMENTS / f"scales/{scale}.yaml", what="scale").data or {}
    assert set(data) <= known


@pytest.mark.parametrize("path", STUDIES, ids=ids)
def test_a_study_has_a_question_and_its_commands_parse(path: Path) -> None:
    study = load_study(path)
    assert study.question
    assert study.name == path.stem
    comment = "".join(re.findall(r"^#.*\n", path.read_text(encoding="utf-8"), re.MULTILINE))
    commands = re.findall(r"^#\s+(?:lightning|vilau) (.*?)(?:\s{2,}#.*)?$", comment, re.MULTILINE)
    assert any(command.startswith("run ") for command in commands), "no command to run it"
    for command in commands:
        words = shlex.split(command, comments=True)
        assert (ROOT / words[1]).is_file(), command
        parsed = cli._parser(words[0])[0].parse_args(words)
        assert parsed.machine in MACHINES, command
        assert parsed.scale in (None, *SCALES), command


@pytest.mark.parametrize("scale", SCALES)
def test_families_are_compared_with_all_else_equal(scale: str) -> None:
    plan = make_plan(load_study(EXPERIMENTS / "compare_families.yaml"), Options(scale=scale))
    by_stage: dict[str, list[dict[str, Any]]] = {}
    for run in plan.runs.values():
        by_stage.setdefault(run.stage.name, []).append(run.resolved.config)
    vila_u, *liquids = by_stage["pretrain"]
    own = vila_u["model"]["init_args"]
    for config in liquids:
        assert {**config, "model": None} == {**vila_u, "model": None}
        for key, value in config["model"]["init_args"].items():
            if key == "optimizer":
                value = {"weight_decay": 0.0, "warmup_share": 0.03, **value}
            if key != "prompt" and key in own:
                assert own[key] == value, key
    for stage in ("finetune", "image_questions", "evaluate"):
        assert all(config == by_stage[stage][0] for config in by_stage.get(stage, []))


def with_inputs(plan: Plan, run: Run) -> dict[str, Any]:
    config = {"command": run.stage.command, **run.resolved.config}
    config["trainer"] = merged(config.get("trainer") or {}, plan.trainer)
    config["inputs"] = {
        key: with_inputs(plan, plan.runs[source]) for key, source in run.inputs.items()
    }
    return config
