"""Every run is watched by ``Health``, and the engine repeats what it said."""

from pathlib import Path
from typing import Any

import pytest

from vilau.callbacks.health import Health
from vilau.study.run import _warnings
from vilau.study.stage_cli import StageCLI

OWN = [{"class_path": "vilau.callbacks.health.Health", "init_args": {"spike": 5.0}}]


@pytest.mark.parametrize(("callbacks", "spike"), [([], 10.0), (OWN, 5.0)])
def test_a_run_has_one_health(tmp_path: Path, callbacks: list[Any], spike: float) -> None:
    config = {
        "model": {"class_path": "tests.study.toys.ToyTraining"},
        "data": {"class_path": "tests.study.toys.ToyData"},
        "trainer": {"max_steps": 3, "callbacks": callbacks},
    }
    cli = StageCLI(config, lambda key: key)
    cli.build(tmp_path)
    (health,) = [c for c in cli.trainer.callbacks if isinstance(c, Health)]
    assert health.spikes.deviations == spike


def test_what_health_said_is_read_from_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert _warnings(log) == []
    log.write_text("Seed set to 0\n 3%\rhealth, step 7: it broke.\nhealth, step 7: it broke.\n")
    assert _warnings(log) == ["health, step 7: it broke."]
