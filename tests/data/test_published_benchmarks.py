"""Readers of published benchmarks: prompts as published, columns that the scores read, and broken files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data import published_files as files
from vilau.data.published import drawings
from vilau.data.published.images import IMAGE_BENCHMARKS
from vilau.data.published.questions import PublishedQuestion
from vilau.data.published.videos import VIDEO_BENCHMARKS
from vilau.errors import DataError
from vilau.metrics.answers import answer_metric

BENCHMARKS = {one.name: one for one in (*IMAGE_BENCHMARKS, *VIDEO_BENCHMARKS)}
SHORT = "\nAnswer the question using a single word or phrase."


def read(name: str, folder: Path) -> list[PublishedQuestion]:
    files.WRITERS[name](folder)
    assert BENCHMARKS[name].missing(folder) == []
    return BENCHMARKS[name].read(folder)


@pytest.mark.parametrize("name", [name for name in files.WRITERS if name in BENCHMARKS])
def test_rows_are_what_the_score_reads_and_media_are_there(name: str, tmp_path: Path) -> None:
    questions = read(name, tmp_path)
    truths = {"mmvet": "red and blue", "seedbench": "B", "msvd_qa": "cat", "activitynetqa": "cat"}
    metric = answer_metric(BENCHMARKS[name].scored_as)
    said = [truths.get(name) or str(q.row.get("answer", "red")).lower() for q in questions]
    metric.update_rows(said, [question.row for question in questions])
    scores = {key: float(value) for key, value in metric.compute().items()}
    key = {"mme": "perception", "seedbench": "all", "mmvet": "score"}.get(name, "accuracy")
    assert scores[key] == (400.0 if name == "mme" else 1.0)
    assert all(path.is_file() for question in questions for path in question.media)
    json.dumps([question.row for question in questions])


def test_prompts_are_the_published_ones(tmp_path: Path) -> None:
    def first(name: str) -> str:
        return read(name, tmp_path / name)[0].prompt

    assert first("vqav2") == "what is 1?" + SHORT
    assert first("ok_vqa").startswith("what is 1?\nWhen the provided information is insufficient")
    assert first("textvqa") == "What brand is it?" + SHORT
    assert first("mme") == "Is it red?" + SHORT
    assert first("seedbench") == (
        "what?\nA. a thing\nB. b thing\nC. c thing\nD. d thing"
        "\nAnswer with the option's letter from the given choices directly."
    )
    assert first("mmvet").startswith("First please perform reasoning")
    assert first("msvd_qa") == "what moves"
    assert first("activitynetqa") == "What moves?"


def test_seedbench_asks_about_videos_where_they_are(tmp_path: Path) -> None:
    files.seedbench(tmp_path)
    assert [q.row["data_type"] for q in BENCHMARKS["seedbench"].read(tmp_path)] == ["image"]
    files.seedbench(tmp_path, videos=True)
    found = BENCHMARKS["seedbench"].read(tmp_path)
    assert [(q.row["data_type"], q.video) for q in found] == [("image", False), ("video", True)]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    assert BENCHMARKS["gqa"].missing(tmp_path) == ["testdev_balanced_questions.json", "images"]


@pytest.mark.parametrize(
    ("name", "file", "content", "sentence"),
    [
        ("gqa", "testdev_balanced_questions.json", "{", "cannot be read"),
        ("gqa", "testdev_balanced_questions.json", "[]", "is no object of questions by id"),
        (
            "gqa",
            "testdev_balanced_questions.json",
            {"a": {"answer": "x"}},
            "holds a question with answer, but",
        ),
        (
            "vqav2",
            "v2_mscoco_val2014_annotations.json",
            {"annotations": []},
            "has no question 11 of v2_OpenEnded",
        ),
        ("vqav2", "v2_mscoco_val2014_annotations.json", {}, "has no list 'annotations'"),
        ("pope", "coco_pope_random.json", '{"a": 1}\n{', "line 2 is no JSON object"),
        (
            "mme",
            "MME_Benchmark_release_version/color/1.txt",
            "Is it red? Yes\n",
            "has a line that is not question",
        ),
        ("msvd_qa", "test_a.json", [], "has no answer to question q1 of test_q.json"),
    ],
)
def test_broken_files_are_named_in_a_sentence(
    name: str, file: str, content: object, sentence: str, tmp_path: Path
) -> None:
    files.WRITERS[name](tmp_path)
    files.write(tmp_path / file, content)
    with pytest.raises(DataError, match=sentence) as error:
        BENCHMARKS[name].read(tmp_path)
    assert Path(file).name in str(error.value)


# ------------------------------------------------------------------ what is to be drawn


def test_files_are_where_the_scorers_look(tmp_path: Path) -> None:
    files.mjhq(tmp_path)
    assert drawings.read_mjhq(tmp_path) == [
        drawings.Wanted("a logo", "logo/h0.png"), drawings.Wanted("a cat", "animals/h1.png"),
    ]  # fmt: skip
    files.genai(tmp_path)
    found = drawings.read_genai(tmp_path)
    assert (len(found), found[0].file, found[-1]) == (
        527,
        "00001.png",
        drawings.Wanted("prompt 527", "00527.png"),
    )
    files.vbench(tmp_path)
    assert [one.file for one in drawings.read_vbench(tmp_path)] == [
        f"a cat-{n}.mp4" for n in range(5)
    ]


def test_prompts_that_lead_outside_or_are_too_few_are_refused(tmp_path: Path) -> None:
    for name in ("../h", "a/b", ".hidden", "x" * 300):
        files.write(tmp_path / "meta_data.json", {name: {"prompt": "a", "category": "logo"}})
        with pytest.raises(DataError, match="which cannot be a file's name"):
            drawings.read_mjhq(tmp_path)
    files.write(tmp_path / "meta_data.json", {"h": {"prompt": "a", "category": "../logo"}})
    with pytest.raises(DataError, match="which cannot be a file's name"):
        drawings.read_mjhq(tmp_path)
    files.write(tmp_path / "prompts.txt", "a\nb\n")
    with pytest.raises(DataError, match="holds 2 prompts on 2 lines, GenAI-Bench-527 has 527"):
        drawings.read_genai(tmp_path)
    files.write(tmp_path / "VBench_full_info.json", "{}")
    with pytest.raises(DataError, match="is no list of prompts"):
        drawings.read_vbench(tmp_path)
