"""Which precision a stage is computed in where its device has no units for bfloat16."""

import json
import logging
from pathlib import Path

import pytest
import torch

from tests.study.test_stage import write
from vilau.study import precision, run
from vilau.study.precision import bfloat16_speed, suited_precision
from vilau.study.stage import run_stage


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(precision, "bfloat16_speed", lambda device: request.param)


@pytest.mark.parametrize("speed", [0.01, 0.5], indirect=True)
@pytest.mark.usefixtures("speed")
def test_mixed_precision_is_full_where_bfloat16_is_slow() -> None:
    found, said = suited_precision("bf16-mixed", "cpu")
    assert found == "32-true"
    assert said.startswith("precision: this cpu multiplies matrices in bfloat16 at 0.")
    assert said.endswith("computed in 32-true instead of bf16-mixed")


@pytest.mark.parametrize("speed", [0.01], indirect=True)
@pytest.mark.usefixtures("speed")
@pytest.mark.parametrize("asked", ["bf16-true", "16-mixed", "32-true", 32, None])
def test_no_other_precision_is_replaced(asked: str | int | None) -> None:
    assert suited_precision(asked, "cpu") == (asked, "")


@pytest.mark.parametrize("speed", [4.0], indirect=True)
@pytest.mark.usefixtures("speed")
def test_mixed_precision_stays_where_bfloat16_is_fast() -> None:
    assert suited_precision("bf16-mixed", "cpu") == ("bf16-mixed", "")


@pytest.mark.parametrize(("emulates", "found"), [(False, "bf16-mixed"), (True, "32-true")])
def test_cards_are_asked_not_timed(
    monkeypatch: pytest.MonkeyPatch, emulates: bool, found: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: not emulates
    )
    for accelerator in ("gpu", "cuda", "auto"):
        assert suited_precision("bf16-mixed", accelerator)[0] == found


def test_the_engine_repeats_the_line() -> None:
    assert precision.SAID in run._TOLD


def test_devices_that_are_not_known_keep_what_is_asked() -> None:
    assert suited_precision("bf16-mixed", "tpu") == ("bf16-mixed", "")


def test_the_processor_is_timed() -> None:
    assert 0 < bfloat16_speed("cpu") < 100


@pytest.mark.parametrize("speed", [0.01], indirect=True)
@pytest.mark.usefixtures("speed")
def test_a_stage_is_computed_in_full_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert run_stage("fit", write(tmp_path, trainer__precision="bf16-mixed")) == 0
    assert "computed in 32-true instead of bf16-mixed" in caplog.text
    assert json.loads((tmp_path / "metrics.json").read_text())["precision"] == "32-true"
