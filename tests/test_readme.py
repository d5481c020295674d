"""The README's commands, study and Python are tried: cheap ones run, long ones are parsed as the command line would."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models import tiny
from vilau import cli
from vilau.study.load import load_study
from vilau.study.plan import Options, make_plan, run_config
from vilau.study.stage_cli import StageCLI

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
OURS = ("lightning", "vilau")
CHEAP = ("list", "plan", "table", "--help")
"""Verbs that answer at once; ``check`` is run below, on one study."""


def blocks(language: str) -> list[str]:
    return [text for found, text in BLOCKS if found == language]


def commands() -> list[list[str]]:
    whole = [text.replace("\\\n", " ") for text in blocks("bash")]  # as the shell joins lines
    lines = [line for text in whole for line in text.splitlines() if line.strip()]
    return [shlex.split(line, comments=True) for line in lines]


OWN = [words for words in commands() if words[0] in OURS]


def run(words: list[str], cwd: Path, *, runs: Path) -> str:
    """Run one of our commands from ``cwd`` in a process, with its runs folder elsewhere."""
    if words[1] in ("list", "plan", "table", "run"):
        words = [*words, "--runs", str(runs)]
    done = subprocess.run(
        [sys.executable, "-m", "vilau", *words[1:]],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(words)}: {done.stderr}"
    return done.stdout


def test_the_readme_has_what_is_tested_here() -> None:
    assert len(OWN) >= 12
    assert {words[1] for words in OWN} >= {
        "run",
        "plan",
        "check",
        "table",
        "list",
        "data",
        "--help",
    }
    assert len(blocks("yaml")) == 1
    assert len(blocks("python")) == 1


@pytest.mark.parametrize("words", OWN, ids=shlex.join)
def test_every_command_parses(words: list[str]) -> None:
    verb = words[1]
    if verb == "--help":
        return
    parsed = cli._parser(verb)[0].parse_args(words[1:])
    assert callable(parsed.handler)
    for study in getattr(parsed, "study", []):
        assert (ROOT / study).is_file()
        seeds = None if parsed.seeds is None else [int(seed) for seed in parsed.seeds]
        options = Options(
            scale=parsed.scale,
            machine=parsed.machine,
            overrides=parsed.set,
            seeds=seeds,
            only=parsed.only,
            until=parsed.until,
        )
        assert make_plan(load_study(ROOT / study), options).runs


@pytest.mark.parametrize("words", [w for w in OWN if w[1] in CHEAP], ids=shlex.join)
def test_cheap_commands_run(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    out = run(words, ROOT, runs=tmp_path / "runs")
    expected = {
        "list": "quickstart.yaml",
        "plan": "tower-",
        "table": "Recon.",
        "--help": "usage: vilau",
    }
    assert expected[words[1]] in out


def test_check_runs_on_the_quickstart() -> None:
    out = run(["lightning", "check", "experiments/quickstart.yaml"], ROOT, runs=Path("runs"))
    assert out.count("✓") == 4
    assert "parameters" in out


def test_other_commands_name_what_is_there() -> None:
    for words in commands():
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        elif words[0] in ("pip", "tensorboard"):
            assert words in (
                ["pip", "install", "-e", "."],
                ["tensorboard", "--logdir", "runs/ablate_contrastive"],
            )
        else:
            assert words[0] in OURS, f"the README shows {words[0]}, which no test knows"


def test_the_study_in_the_readme_can_be_run(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    path = tmp_path / "experiments" / "ablate_depth.yaml"
    path.write_text(blocks("yaml")[0], encoding="utf-8")
    plan = make_plan(load_study(path), Options())
    assert len(plan.runs) == 4
    depths = set()
    for run_ in plan.runs.values():
        config = run_config(plan, run_, dict.fromkeys(plan.runs, "an/earlier/model"))
        StageCLI(config, run_.resolved.origin)  # every key fits its constructor
        if run_.stage.name == "tower":
            depths.add(run_.resolved.config["model"]["init_args"]["quantizer"]["depth"])
    assert depths == {2, 4}


def test_the_python_in_the_readme_runs(tmp_path: Path) -> None:
    model = tiny.vila_u()
    model.save(tmp_path / "finetune" / "model")
    model.tokenizer.save(tmp_path / "tower" / "model")
    place = "runs/ablate_contrastive/recon_and_contrastive"
    source = blocks("python")[0]
    assert source.count(place) == 2
    names: dict[str, object] = {}
    exec(source.replace(place, tmp_path.as_posix()), names)
    spec = model.tokenizer.spec
    assert tuple(names["images"].shape) == (4, 3, spec.image_size, spec.image_size)  # type: ignore[attr-defined]
    assert tuple(names["codes"].shape) == (4, spec.num_positions, spec.depth)  # type: ignore[attr-defined]
    assert isinstance(names["answer"], str)


def test_every_path_in_the_readme_exists() -> None:
    named = set(
        re.findall(
            r"`((?:experiments|notebooks|tests|\.ci)/[\w./]*|[A-Z]+\.(?:md|cff)|LICENSE|environment\.yml)`",
            README,
        )
    )
    assert len(named) >= 6
    planned = {"experiments/ablate_depth.yaml"}
    assert [name for name in named - planned if not (ROOT / name).exists()] == []


def test_the_rooms_in_the_readme_are_the_rooms_of_the_house() -> None:
    table = README.split("| room | holds |")[1].split("\n\n")[0]
    named = set(re.findall(r"`(\w+)(?:/|\.py)`", table))
    rooms = {path.name for path in (ROOT / "vilau").iterdir() if (path / "__init__.py").exists()}
    models = {path.parent.name for path in (ROOT / "vilau/models").glob("*/__init__.py")}
    assert named & models, "the families are named"
    assert named - models - {"ablations"} == rooms | {"cli"}


def test_no_line_of_the_readme_names_a_package_registry() -> None:
    assert not re.search(r"pypi|--index-url|--extra-index|conda\.anaconda", README, re.IGNORECASE)
