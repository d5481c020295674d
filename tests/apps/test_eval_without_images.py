"""``vilau eval --without-images``: the blind baseline of a benchmark, by the same model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.apps.conftest import Command
from tests.data import published_files as files
from tests.models import tiny
from vilau.apps.evaluation import asking, twins
from vilau.types import WITHOUT_IMAGES


def test_published_questions_are_asked_without_their_pictures_and_videos(
    vilau: Command, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data" / "benchmarks"
    for name in ("pope", "msvd_qa"):
        files.WRITERS[name](data / name)
    files.seedbench(data / "seedbench", videos=True)
    names = ("pope", "msvd_qa", "seedbench_ranked")
    for picture in (data / "pope").rglob("*.jpg"):
        picture.unlink()  # what is not shown need not be there
    monkeypatch.setattr(asking, "pictures", lambda *_: pytest.fail("a picture was read"))
    command = ("eval", "--benchmarks", *names, "--model", model_folder, "--max-new-tokens", 2)
    code, _, err = vilau(*command, "--without-images")
    assert code == 0, err
    out = tmp_path / "evaluation"
    found = json.loads((out / "results.json").read_text(encoding="utf-8"))
    limited = f"{WITHOUT_IMAGES}, at most 2 new tokens"
    for score, details in (
        ("pope/accuracy", limited),
        ("msvd_qa_string_match/accuracy", limited),
        ("seedbench_ranked/all", f"{WITHOUT_IMAGES}, options ranked"),
    ):
        assert found[score]["passport"]["details"] == details
    rows = [json.loads(line) for line in (out / "pope.jsonl").read_text().splitlines()]
    model = tiny.vila_u()  # the fixture's
    asked = [row["prompt"] for row in rows]
    assert all(row["images_shown"] is False for row in rows)
    assert [row["prediction"] for row in rows] == model.answer(None, asked, max_new_tokens=2)
    code, _, err = vilau(*command)
    assert code == 2
    assert "holds an evaluation with without_images True, now it is False; write another" in err


def test_twins_are_asked_without_their_pictures_too(
    vilau: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "SIDE", 32)
    monkeypatch.setattr(twins, "PRIOR_SCENES", 5)
    tiny.vila_u().save(tmp_path / "larger")
    code, _, err = vilau(
        "eval", "--benchmarks", "world_pope", "--model", tmp_path / "larger", "--limit", 2,
        "--max-new-tokens", 2, "--device", "cpu", "--without-images",
    )  # fmt: skip
    assert code == 0, err
    found = json.loads((tmp_path / "evaluation" / "results.json").read_text(encoding="utf-8"))
    assert found["test/world_pope_accuracy"]["passport"]["details"] == WITHOUT_IMAGES
    assert found["test/world_pope_accuracy_blind"]["passport"]["details"] == "baseline: blind"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--benchmarks", "pope", "genai", "--without-images"],
            "--without-images is for questions about images, but genai is asked for; leave out one of the two",
        ),
        (
            ["--benchmarks", "pope", "--fit", "pad", "--without-images"],
            "--fit tells what is in images, or how they are shown, and --without-images shows none; leave out one",
        ),
        (["--benchmarks", "pope", "--quirks", "published", "--without-images"], "--quirks tells"),
        (["--benchmarks", "textvqa", "--ocr", "--without-images"], "--ocr tells what is in images"),
        (["--suite", "table1", "--without-images"], "but imagenet is asked for"),
        (["--benchmarks", "world_mjhq", "--without-images"], "but world_mjhq is asked for"),
        (
            ["--rescore", "x", "--benchmarks", "pope", "--without-images"],
            "--without-images is for asking; leave it out with --rescore and --write-lmms-tasks",
        ),
    ],
)
def test_where_no_images_could_be_hidden(
    vilau: Command, arguments: list[str], sentence: str
) -> None:
    code, _, err = vilau("eval", *arguments)
    assert code == 2
    assert sentence in err
