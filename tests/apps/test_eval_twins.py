"""``vilau eval --world``: styles are checked first, twins are kept one by one, and a stop loses at most one."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.apps.conftest import Command
from tests.models import tiny
from vilau.apps.evaluation import twins

SETTINGS = ("--limit", 2, "--max-new-tokens", 2, "--device", "cpu")


@pytest.fixture
def larger_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of 32 pixels, the least that scenes are drawn on."""
    monkeypatch.setattr(tiny, "SIDE", 32)
    monkeypatch.setattr(twins, "PRIOR_SCENES", 5)
    tiny.vila_u().save(tmp_path / "larger")
    return tmp_path / "larger"


def results(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "evaluation" / "results.json").read_text(encoding="utf-8"))


def test_a_style_that_one_twin_lacks_is_told_before_the_others_are_asked(
    vilau: Command, tmp_path: Path
) -> None:
    names = ("world_gqa", "world_ok_vqa")
    code, _, err = vilau(
        "eval", "--benchmarks", *names, "--style", "llava", "--model", "none", *SETTINGS
    )
    assert code == 2
    assert "OK-VQA soft accuracy is read in style lmms" in err
    assert not (tmp_path / "evaluation").exists()


def test_the_same_command_goes_on_after_a_stop(
    vilau: Command, larger_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    run_twin = twins.run_twin

    def stopped(name: str, *rest: Any) -> dict[str, Any]:
        asked.append(name)
        if name == "world_mme" and len(asked) == 2:
            raise KeyboardInterrupt
        return run_twin(name, *rest)

    monkeypatch.setattr(twins, "run_twin", stopped)
    command = ("eval", "--benchmarks", "world_seedbench_ranked", "world_mme", "world_seedbench",
               "--model", larger_model, *SETTINGS)  # fmt: skip
    with contextlib.suppress(KeyboardInterrupt):
        assert vilau(*command)[0] != 0
    first = results(tmp_path)
    assert {found["twin"] for found in first.values()} == {"world_seedbench_ranked"}
    code, out, err = vilau(*command)
    assert code == 0, err
    assert asked == ["world_seedbench_ranked", "world_mme", "world_mme", "world_seedbench"]
    assert "world_seedbench_ranked: measured before, its numbers stand in evaluation" in out
    found = results(tmp_path)
    assert first.items() <= found.items()
    assert found["test/world_mme_perception"]["passport"]["details"].startswith(
        "perception 1 of 10 categories, at most 200"
    )
    assert "test/world_mme_perception_ceiling" in found
    assert not any("cognition" in name for name in found)
    # All is there: nothing is asked again, and the numbers are shown. More questions are other numbers.
    code, out, _ = vilau(*command)
    assert code == 0
    (line,) = (part for part in out.splitlines() if part.startswith("test/world_mme_perception "))
    assert re.fullmatch(
        r"test/world_mme_perception +[0-9.]+  chance [0-9.]+  blind [0-9.]+  ceiling 200.0000", line
    )
    assert len(asked) == 4
    code, _, err = vilau("eval", "--benchmarks", "world_mme", "--model", larger_model,
                         "--limit", 4, *SETTINGS[2:])  # fmt: skip
    assert code == 0, err
    assert asked[4:] == ["world_mme"]
    assert results(tmp_path)["test/world_mme_perception"]["limit"] == 4


def test_the_twins_ocr_tokens_stand_behind_the_question(
    vilau: Command, larger_model: Path, tmp_path: Path
) -> None:
    command = ("eval", "--benchmarks", "world_textvqa", "--model", larger_model, *SETTINGS)
    code, _, err = vilau(*command, "--ocr")
    assert code == 0, err
    path = tmp_path / "evaluation" / "predictions" / "world_textvqa.jsonl"
    row = json.loads(path.read_text().splitlines()[0])
    question = f"{row['question']}\nReference OCR token: {row['ocr_tokens'][0]}"
    assert row["prompt"] == question
    found = results(tmp_path)
    assert (
        found["test/world_textvqa_accuracy"]["passport"]["details"] == "OCR tokens in the question"
    )
    blind = found["test/world_textvqa_accuracy_blind"]["passport"]["details"]
    assert blind == "baseline: blind; OCR tokens in the question"
    code, _, err = vilau(*command, "--out", "without")
    assert code == 0, err
    assert "Reference" not in (tmp_path / "without/predictions/world_textvqa.jsonl").read_text()


def test_what_is_refused_leaves_no_folder_that_stands_in_the_way(
    vilau: Command, larger_model: Path, tmp_path: Path
) -> None:
    command = ("eval", "--benchmarks", "world_gqa", "--model", larger_model, *SETTINGS)
    for options, message in (
        (("--level", "bsae"), "--level is 'bsae'. Did you mean 'base'?"),
        (
            ("--data", "x"),
            "--data is for the published benchmarks, not for the drawn world's twins",
        ),
    ):
        code, _, err = vilau(*command, *options)
        assert code == 2
        assert message in err
        assert not (tmp_path / "evaluation").exists()
    weights = larger_model / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    assert vilau(*command)[0] == 2
    assert not (tmp_path / "evaluation").exists()
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "notes.txt").write_text("mine")
    assert vilau(*command)[0] == 2
    assert [path.name for path in (tmp_path / "evaluation").iterdir()] == ["notes.txt"]
    (tmp_path / "evaluation" / "notes.txt").unlink()
    (tmp_path / "evaluation" / "eval.json").write_text('{"model": "another"}')  # a killed one's
    weights.write_bytes(whole)
    code, _, err = vilau(*command)
    assert code == 0, err
    assert (tmp_path / "evaluation" / "results.json").exists()
