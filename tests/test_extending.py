"""The examples of docs/extending.md are run as they stand there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.callbacks.test_evaluation_callbacks import prompt_batches
from tests.callbacks.toys import Toy, loader, trainer
from vilau.study.load import load_study
from vilau.study.plan import Options, make_plan, run_config
from vilau.study.stage_cli import StageCLI

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
PYTHON, *YAML = (
    text for _, text in re.findall(r"^```(python|yaml)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
)


@pytest.fixture
def experiments(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    return tmp_path / "experiments"


def test_the_callback_measures(tmp_path: Path) -> None:
    names: dict[str, type] = {}
    exec(PYTHON, names)
    callback = names["Contrast"]()
    batches = prompt_batches(8, 4)
    (values,) = trainer(tmp_path, callback).test(Toy(), loader(*batches), verbose=False)
    shades = [b.references.float().flatten(1).std(dim=1) for b in batches]  # Toy gives these back
    assert values["test/contrast"] == pytest.approx(
        float(sum(s.sum() for s in shades)) / 8, rel=1e-4
    )
    assert callback.passports["test/contrast"].num_samples == 8


def test_the_study_takes_it_in(experiments: Path) -> None:
    path = experiments / "contrast.yaml"
    path.write_text(YAML[0], encoding="utf-8")
    plan = make_plan(load_study(path), Options())
    (run,) = (run for run in plan.runs.values() if run.stage.name == "evaluate")
    callbacks = run.resolved.config["trainer"]["callbacks"]
    assert len(callbacks) > 1
    assert callbacks[-1] == {"class_path": "my_package.Contrast"}


def test_a_machine_and_a_logger(experiments: Path) -> None:
    (experiments / "machines" / "nodes.yaml").write_text(YAML[1], encoding="utf-8")
    study = load_study(experiments / "quickstart.yaml")
    plan = make_plan(study, Options(machine="nodes"))
    assert all(plan.stage_trainer(run)["num_nodes"] == 2 for run in plan.runs.values())
    chosen = yaml.safe_dump(yaml.safe_load(YAML[2])["trainer"]["logger"], default_flow_style=True)
    plan = make_plan(study, Options(overrides=[f"tower.trainer.logger={chosen}"], until="tower"))
    (run,) = plan.runs.values()
    cli = StageCLI(run_config(plan, run, {}), run.resolved.origin)
    assert [one.class_path for one in cli.config.trainer.logger] == [
        "lightning.pytorch.loggers.CSVLogger"
    ]
