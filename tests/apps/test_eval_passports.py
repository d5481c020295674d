"""What ``vilau eval`` keeps beside a number: the passport of a published benchmark's, and OCR tokens where asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.apps.conftest import Command
from tests.data import published_files as files
from vilau.apps.evaluation.zero_shot import CLEANED_NAMES
from vilau.data.published.ocr import OCR_FILE, read_textvqa_with_tokens, with_tokens
from vilau.data.zero_shot import OPENAI_TEMPLATES, TEMPLATES
from vilau.errors import DataError
from vilau.metrics.passport import text_hash

SHORT = "\nAnswer the question using a single word or phrase."


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data" / "benchmarks"


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def test_a_published_number_says_what_it_measured(
    vilau: Command, data: Path, model_folder: Path, tmp_path: Path
) -> None:
    for name in ("pope", "msvd_qa"):
        files.WRITERS[name](data / name)
    command = ("eval", "--benchmarks", "pope", "msvd_qa", "--model", model_folder,
               "--max-new-tokens", 2, "--fit", "pad")  # fmt: skip
    code, _, err = vilau(*command, "--limit", 3)
    assert code == 0, err
    found = results(tmp_path / "evaluation")
    pope = found["pope/accuracy"]["passport"]
    assert pope["metric"].startswith("POPE")
    assert (pope["features"], pope["num_samples"]) == ("parser lmms", 3)
    assert pope["details"] == "fit pad, at most 2 new tokens, limit 3"
    video = found["msvd_qa_string_match/accuracy"]["passport"]
    assert video["details"] == "fit pad, 8 frames, at most 2 new tokens, limit 3"
    # The same questions elsewhere are the same set; another truth is another set.
    (tmp_path / "other").mkdir()
    data.rename(tmp_path / "other" / "data")
    assert vilau(*command, "--data", "other/data", "--out", "again")[0] == 0
    whole = results(tmp_path / "again")["pope/accuracy"]["passport"]
    assert whole["num_samples"] == 6
    assert whole["details"] == "fit pad, at most 2 new tokens"
    assert whole["reference"] != pope["reference"]
    moved = results(tmp_path / "again")["msvd_qa_string_match/accuracy"]["passport"]
    assert moved["reference"] == video["reference"]
    assert video["reference"].endswith(", media by name")


def test_a_category_that_mme_lacks_is_named(vilau: Command, data: Path) -> None:
    files.mme(data / "mme")
    command = ("eval", "--benchmarks", "mme", "--check")
    assert vilau(*command)[0] == 0
    (data / "mme" / files.MME_FOLDER / "OCR").rename(data / "OCR")
    code, out, _ = vilau(*command)
    assert code == 1
    assert out.endswith(f"own files there: data/benchmarks/mme/{files.MME_FOLDER}/OCR\n")


def test_imagenet_says_whose_prompts_and_names(
    vilau: Command, tower_folder: Path, data: Path, tmp_path: Path
) -> None:
    folder = data / "imagenet"
    files.write(folder / "classnames.json", {"n1": "red circle", "n2": "blue square"})
    for name in ("n1/a.JPEG", "n1/b.png", "n2/c.jpg"):
        files.picture(folder / "val" / name)
    command = ("eval", "--suite", "table1", "--model", tower_folder)
    assert vilau(*command, "--limit", 2)[0] == 0
    passport = results(tmp_path / "evaluation")["imagenet/top1"]["passport"]
    assert passport["num_samples"] == 2
    assert passport["details"] == (
        f"2 classes, names of its own {text_hash(['red circle', 'blue square'])}, "
        "templates openai (80) cd57752aecde, fit crop, limit 2 of 3"
    )
    (tmp_path / "mine.txt").write_text("a {}\n")
    for chosen, said in (
        ("photos", f"photos (8) {text_hash(TEMPLATES)}"),
        ("mine.txt", "mine.txt (1)"),
    ):
        assert vilau(*command, "--templates", chosen)[0] == 0
        details = results(tmp_path / "evaluation")["imagenet/top5"]["passport"]["details"]
        assert f"templates {said}" in details


def test_the_templates_are_clips() -> None:
    # The hashes of open_clip 3.3.0's lists, taken from its wheel.
    assert text_hash(OPENAI_TEMPLATES) == "cd57752aecde"
    assert CLEANED_NAMES == "d3fe6583bf02"
    assert len(set(OPENAI_TEMPLATES)) == 80
    assert all(template.count("{}") == 1 for template in OPENAI_TEMPLATES)
    assert set(TEMPLATES) <= set(OPENAI_TEMPLATES)
    assert len(TEMPLATES) == 8  # what towers in training are measured with


def tokens(folder: Path, *words: str) -> None:
    files.write(folder / OCR_FILE, {"data": [{"image_id": "i", "ocr_tokens": list(words)}]})


def test_ocr_tokens_stand_behind_the_question(
    vilau: Command, data: Path, model_folder: Path, tmp_path: Path
) -> None:
    files.textvqa(data / "textvqa")
    command = ("eval", "--benchmarks", "textvqa", "--model", model_folder, "--max-new-tokens", 2)
    code, out, _ = vilau(*command, "--ocr")
    assert code == 1
    assert f"put these of its own files there: data/benchmarks/textvqa/{OCR_FILE}" in out
    tokens(data / "textvqa", "ACME", "24")
    code, _, err = vilau(*command, "--ocr")
    assert code == 0, err
    (row,) = map(json.loads, (tmp_path / "evaluation" / "textvqa.jsonl").read_text().splitlines())
    assert row["prompt"] == "What brand is it?\nReference OCR token: ACME, 24" + SHORT
    assert row["ocr_tokens"] == ["ACME", "24"]
    found = results(tmp_path / "evaluation")["textvqa/accuracy"]
    assert found["remark"] == "with OCR tokens in the prompt"
    assert ", OCR tokens in the question" in found["passport"]["details"]
    code, _, err = vilau(*command)
    assert code == 2
    assert "holds an evaluation with ocr True, now it is False; write another --out" in err
    assert vilau(*command, "--out", "without")[0] == 0
    plain = results(tmp_path / "without")["textvqa/accuracy"]
    assert plain["remark"] == "without OCR tokens in the prompt"
    assert "OCR" not in plain["passport"]["details"]
    # A folder of before the option was written without tokens.
    record = tmp_path / "without" / "eval.json"
    held = json.loads(record.read_text())
    del held["ocr"]
    record.write_text(json.dumps(held))
    assert vilau(*command, "--out", "without")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--benchmarks", "pope", "gqa", "--ocr"],
            "--ocr puts OCR tokens into the questions of textvqa and world_textvqa, but pope, gqa is asked for; add",
        ),
        (["--suite", "table3", "--world", "--ocr"], "but world_msvd_qa, "),
        (
            ["--rescore", "x", "--benchmarks", "textvqa", "--ocr"],
            "--ocr is for asking; leave it out",
        ),
    ],
)
def test_ocr_where_there_are_no_tokens(vilau: Command, arguments: list[str], sentence: str) -> None:
    code, _, err = vilau("eval", *arguments)
    assert code == 2
    assert sentence in err


def test_broken_tokens_are_named(tmp_path: Path) -> None:
    files.textvqa(tmp_path)
    for rows, sentence in (
        ([], "has no tokens of picture i, which question 3 is about"),
        (
            [{"image_id": "i", "ocr_tokens": "ACME"}],
            "picture i has the ocr_tokens ACME; they must be a list",
        ),
        (
            [{"image_id": "i"}],
            "holds a question with image_id, but image_id, ocr_tokens are wanted",
        ),
    ):
        files.write(tmp_path / OCR_FILE, {"data": rows})
        with pytest.raises(DataError, match=sentence):
            read_textvqa_with_tokens(tmp_path)


def test_the_line_of_tokens_comes_before_the_ending() -> None:
    assert with_tokens("a ?" + SHORT, ["b", "c"]) == "a ?\nReference OCR token: b, c" + SHORT
    assert with_tokens("a ?", []) == "a ?\nReference OCR token: "
