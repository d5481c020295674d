"""``vilau compare``: alike numbers side by side, unlike ones refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

PASSPORT = {
    "metric": "FrechetInceptionDistance (torchmetrics 1.9.0)",
    "features": "world features abc",
    "reference": "val images 123",
    "num_samples": 5000,
    "details": "",
}


def write_run(folder: Path, numbers: dict[str, float], passports: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    content = {
        "command": "fit",
        "metrics": numbers,
        "train_metrics": {"train/loss": 1.25},
        "passports": passports,
        "steps": 800,
        "versions": {"vilau": "0.1.0"},
    }
    (folder / "metrics.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    psnr = PASSPORT | {"metric": "PSNR"}
    first = write_run(
        tmp_path / "runs" / "study" / "plain" / "tower",
        {"val/rfid": 2.5, "val/psnr": 25.123456, "val/l2_loss": 0.5},
        {"val/rfid": PASSPORT, "val/psnr": psnr},
    )
    second = write_run(
        tmp_path / "runs" / "study" / "aligned" / "tower",
        {"val/rfid": 3.75, "val/psnr": 24.0, "val/l2_loss": 0.25},
        {"val/rfid": PASSPORT | {"num_samples": 1000}, "val/psnr": psnr},
    )
    return first, second


def lines(printed: str) -> list[list[str]]:
    return [line.split() for line in printed.splitlines()]


def test_unlike_passports_are_left_out_and_told(vilau, runs) -> None:
    code, out, err = vilau("compare", *runs)
    assert code == 1
    assert lines(out)[:3] == [["val/psnr"], ["plain", "25.12"], ["aligned", "24"]]
    assert "rfid" not in out
    assert "not compared: val/rfid: num_samples is `5000`, elsewhere `1000`." in err
    assert "l2_loss" not in out + err
    assert f"plain: {runs[0]}/metrics.json (fit, 800 steps, vilau 0.1.0)" in out


def test_allow_unlike_prints_columns_of_their_own(vilau, runs) -> None:
    code, out, err = vilau("compare", "--allow-unlike", *runs, "--metrics", "val/rfid")
    assert (code, err) == (0, "")
    assert lines(out)[:3] == [
        ["val/rfid", "[1]", "val/rfid", "[2]"],
        ["plain", "2.5", "–"],
        ["aligned", "–", "3.75"],
    ]
    assert "val/rfid [2]: metric: FrechetInceptionDistance (torchmetrics 1.9.0); " in out
    assert "num_samples: 1000" in out


def test_nothing_alike_is_an_error(vilau, runs) -> None:
    code, out, err = vilau("compare", *runs, "--metrics", "val/rfid")
    assert (code, out) == (2, "")
    assert "error: these runs measured nothing in the same way: val/rfid: num_samples is" in err
    assert "--allow-unlike" in err


def test_a_number_without_passport_is_not_one_with(vilau, runs, tmp_path) -> None:
    bare = write_run(tmp_path / "runs" / "bare" / "tower", {"val/rfid": 1.0}, {})
    code, _, err = vilau("compare", runs[0], bare, "--metrics", "val/rfid")
    assert code == 2
    assert "one of the numbers has no passport" in err
    code, out, _ = vilau("compare", runs[0], runs[1], "--metrics", "val/l2*", "*loss")
    assert code == 0
    assert lines(out)[1] == ["plain", "0.5000", "1.25"]
    assert (
        "Without a passport, so nothing says that they are alike: val/l2_loss, train/loss." in out
    )
    code, _, err = vilau("compare", bare, bare / ".." / ".." / "bare" / "tower" / "metrics.json")
    assert code == 2
    assert "hold no number with a passport" in err


def test_wide_tables_have_a_line_per_metric(vilau, runs, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    code, out, _ = vilau("compare", *runs, "--allow-unlike")
    assert code == 0
    assert lines(out)[:4] == [
        ["plain", "aligned"],
        ["val/rfid", "[1]", "2.5", "–"],
        ["val/rfid", "[2]", "–", "3.75"],
        ["val/psnr", "25.12", "24"],
    ]


def test_json(vilau, runs) -> None:
    code, out, _ = vilau("compare", *runs, "--json")
    found = json.loads(out)
    assert code == 1
    (column,) = found["columns"]
    assert column["values"] == {"plain": 25.123456, "aligned": 24.0}
    assert column["passport"]["num_samples"] == 5000
    assert list(found["not_compared"]) == ["val/rfid"]


def test_passports_of_older_versions_lack_fields(vilau, tmp_path) -> None:
    short = {name: value for name, value in PASSPORT.items() if name != "details"}
    pair = [
        write_run(tmp_path / name, {"val/rfid": 1.0}, {"val/rfid": passport})
        for name, passport in (("a", PASSPORT), ("b", short))
    ]
    code, out, _ = vilau("compare", *pair)
    assert code == 0
    assert lines(out)[1:3] == [["a", "1"], ["b", "1"]]


def test_what_is_no_run(vilau, runs, tmp_path) -> None:
    study = runs[0].parent.parent
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / "status.json").write_text('{"phase": "train", "step": 30, "max_steps": 800}')
    empty = tmp_path / "empty"
    empty.mkdir()
    broken = tmp_path / "broken.json"
    broken.write_text('{"metrics": [1]}')
    for paths, words in (
        ([runs[0]], "is one run; give two or more to compare"),
        ([runs[0], runs[0]], "is given twice"),
        ([runs[0], tmp_path / "no"], "no does not exist; give the folder of a finished run"),
        (
            [runs[0], study],
            f"holds runs but is none; give some of: {study}/aligned/tower, {runs[0]}",
        ),
        ([runs[0], cut], "cut off at step 30 of 800; start its study again"),
        ([runs[0], empty], "empty holds neither metrics.json nor results.json; give"),
        ([runs[0], broken], "broken.json holds no numbers of a run"),
        (
            [*runs, "--metrics", "val/rfd"],
            "--metrics val/rfd: no run measured it. Did you mean `val/rfid`?",
        ),
    ):
        code, out, err = vilau("compare", *paths)
        assert (code, out) == (2, ""), paths
        assert words in err


def test_runs_keep_their_paths_where_they_share_nothing(vilau, runs, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "500")  # however long the path of this test's own folder is
    here = runs[0].relative_to(tmp_path)  # where the commands of these tests run
    code, out, _ = vilau("compare", here, runs[1], "--metrics", "val/psnr")
    assert code == 0
    assert lines(out)[1:3] == [
        [str(here.parent), "25.12"],
        [str(runs[1].parent), "24"],
    ]


def test_help_says_what_is_compared(vilau, capsys) -> None:
    with pytest.raises(SystemExit):
        vilau("compare", "--help")
    printed = " ".join(capsys.readouterr().out.split())
    assert "only where their passports are alike" in printed
    assert "example: vilau compare runs/" in printed


def test_evaluations_are_compared_as_runs_are(vilau, tmp_path: Path) -> None:
    for name, value, samples in (("one", 0.5, 600), ("two", 0.75, 600), ("three", 0.25, 8)):
        passport = PASSPORT | {"metric": "GQA exact match", "num_samples": samples}
        results = {
            "test/world_gqa_accuracy": {"value": value, "passport": passport, "twin": "world_gqa"},
            "test/said": {"value": 1.0, "passport": None},
        }
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(results))
    code, out, _ = vilau("compare", "one", "two/results.json")
    assert code == 0
    assert lines(out)[:3] == [["test/world_gqa_accuracy"], ["one", "0.5000"], ["two", "0.7500"]]
    code, _, err = vilau("compare", "one", "three", "--metrics", "test/world_gqa_accuracy")
    assert code == 2
    assert "num_samples is `600`, elsewhere `8`" in err
    (tmp_path / "one" / "results.json").write_text('{"a": 1}')
    code, _, err = vilau("compare", "one", "two")
    assert code == 2
    assert (
        "one/results.json holds no numbers of a run (it is another file, or damaged); give" in err
    )
