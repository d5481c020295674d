"""Every run is watched by ``Health``."""

from pathlib import Path
from typing import Any

import pytest

from vilau.callbacks.health import Health
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
