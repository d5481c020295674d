"""The small file that tells how far a run is."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vilau.callbacks.progress import ProgressFile


def trainer(step: int, max_steps: int = 10, rank: int = 0) -> Any:
    return SimpleNamespace(
        global_step=step, max_steps=max_steps, is_global_zero=rank == 0, sanity_checking=False,
        num_test_batches=[4, 6],
    )  # fmt: skip


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that a test sets."""
    time = [100.0]
    monkeypatch.setattr("vilau.callbacks.progress.time.monotonic", lambda: time[0])
    return time


def test_steps_loss_and_speed(tmp_path: Path, now: list[float]) -> None:
    callback = ProgressFile(str(tmp_path / "status.json"))
    callback.on_train_start(trainer(2), None)  # type: ignore[arg-type]
    now[0] += 2.0
    callback.on_train_batch_end(trainer(6), None, {"loss": torch.tensor(0.5)}, None, 0)  # type: ignore[arg-type]
    assert read(tmp_path / "status.json") == {
        "phase": "train", "step": 6, "max_steps": 10, "loss": 0.5, "steps_per_second": 2.0,
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_at_most_once_a_second_but_always_the_last_step(tmp_path: Path, now: list[float]) -> None:
    callback = ProgressFile(str(tmp_path / "status.json"))
    callback.on_train_start(trainer(0), None)  # type: ignore[arg-type]
    for step in range(1, 10):
        now[0] += 0.2
        callback.on_train_batch_end(trainer(step), None, torch.tensor(0.5), None, 0)  # type: ignore[arg-type]
    assert read(tmp_path / "status.json")["step"] == 6
    callback.on_train_batch_end(trainer(10), None, None, None, 0)  # type: ignore[arg-type]
    assert read(tmp_path / "status.json")["step"] == 10
    # Without a known end no step is the last one.
    callback.on_train_batch_end(trainer(11, max_steps=-1), None, None, None, 0)  # type: ignore[arg-type]
    assert read(tmp_path / "status.json")["step"] == 10


def test_measuring_does_not_slow_the_speed_down(tmp_path: Path, now: list[float]) -> None:
    callback = ProgressFile(str(tmp_path / "status.json"))
    callback.on_train_start(trainer(0), None)  # type: ignore[arg-type]
    now[0] += 2.0
    callback.on_validation_start(trainer(4), None)  # type: ignore[arg-type]
    assert read(tmp_path / "status.json")["phase"] == "validate"
    now[0] += 100.0
    callback.on_validation_end(trainer(4), None)  # type: ignore[arg-type]
    now[0] += 2.0
    callback.on_train_batch_end(trainer(8), None, None, None, 0)  # type: ignore[arg-type]
    assert read(tmp_path / "status.json")["steps_per_second"] == pytest.approx(2.0)


def test_test_batches_are_counted_over_all_loaders(tmp_path: Path, now: list[float]) -> None:
    callback = ProgressFile(str(tmp_path / "status.json"))
    callback.on_test_start(trainer(0), None)  # type: ignore[arg-type]
    now[0] += 2.0
    callback.on_test_batch_end(trainer(0), None, None, None, 1, dataloader_idx=1)  # type: ignore[arg-type]
    status = read(tmp_path / "status.json")
    assert (status["phase"], status["step"], status["max_steps"]) == ("test", 6, 10)


def test_other_ranks_write_nothing(tmp_path: Path, now: list[float]) -> None:
    callback = ProgressFile(str(tmp_path / "status.json"))
    callback.on_train_start(trainer(0, rank=1), None)  # type: ignore[arg-type]
    now[0] += 2.0
    callback.on_train_batch_end(trainer(3, rank=1), None, None, None, 0)  # type: ignore[arg-type]
    callback.on_validation_start(trainer(3, rank=1), None)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
