"""Readers of published benchmarks: prompts as published, columns that the scores read, and broken files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.data import published_files as files
from vilau.apps.evaluation.suites import known_benchmarks
from vilau.data.media.pictures import read_images
from vilau.data.published import drawings
from vilau.data.published.catalogue import QUESTION_BENCHMARKS as BENCHMARKS
from vilau.data.published.choices import MMBENCH
from vilau.data.published.questions import EmbeddedPicture, PublishedQuestion
from vilau.errors import DataError
from vilau.metrics.answers import answer_metric, unjudged

LETTER = "\nAnswer with the option's letter from the given choices directly."
SHORT = "\nAnswer the question using a single word or phrase."


def read(name: str, folder: Path) -> list[PublishedQuestion]:
    files.WRITERS[name](folder)
    assert known_benchmarks()[name].missing(folder) == []
    return BENCHMARKS[name].read(folder)


@pytest.mark.parametrize("name", [name for name in files.WRITERS if name in BENCHMARKS])
def test_rows_are_what_the_score_reads_and_media_are_there(name: str, tmp_path: Path) -> None:
    questions = read(name, tmp_path)
    truths = {
        "mmvet": "red and blue", "seedbench": "B", "msvd_qa": "cat", "activitynetqa": "cat", "scienceqa_img": "B",
    }  # fmt: skip
    metric = answer_metric(unjudged(name))
    said = [truths.get(name) or q.row.get("answer", "red") for q in questions]
    metric.update_rows(said, [question.row for question in questions])
    scores = {key: float(value) for key, value in metric.compute().items()}
    key = {"mme": "perception", "seedbench": "image", "mmvet": "score"}.get(name, "accuracy")
    assert scores[key] == (2000.0 if name == "mme" else 1.0)
    files_there = [one for q in questions for one in q.media if isinstance(one, Path)]
    assert all(path.is_file() for path in files_there)
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


def test_ranked_options_stand_beside_the_bare_question(tmp_path: Path) -> None:
    files.seedbench(tmp_path, videos=True)
    shown, ranked = (BENCHMARKS[n].read(tmp_path) for n in ("seedbench", "seedbench_ranked"))
    assert {q.prompt for q in ranked} == {"what?"}
    assert {q.options for q in ranked} == {("a thing", "b thing", "c thing", "d thing")}
    assert [(q.row, q.media, q.video) for q in ranked] == [(q.row, q.media, q.video) for q in shown]
    assert known_benchmarks()["seedbench_ranked"].folder == "seedbench"
    assert known_benchmarks()["seedbench"].folder == "seedbench"


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    missing = known_benchmarks()["gqa"].missing(tmp_path)
    assert [path.name for path in missing] == ["testdev_balanced_questions.json", "images"]


def test_vizwiz_asks_with_the_sentence_of_the_unanswerable(tmp_path: Path) -> None:
    (question,) = read("vizwiz_vqa", tmp_path)
    assert question.prompt == (
        "What color is this? thank you\nWhen the provided information is insufficient, respond with 'Unanswerable'."
        + SHORT
    )
    assert question.row["question_id"] == "VizWiz_val_00000007"
    metric = answer_metric("vizwiz_vqa")
    metric.update_rows(["unanswerable"], [question.row])
    assert float(metric.compute()["accuracy"]) == pytest.approx(0.6)


def test_scienceqa_asks_test_questions_with_a_picture(tmp_path: Path) -> None:
    found = read("scienceqa_img", tmp_path)
    assert [question.row["id"] for question in found] == ["4", "6"]
    options = "Which is it?\nA. a rock\nB. a leaf\nC. a fish" + LETTER
    assert [question.prompt for question in found] == [
        "Context: It grows.\nIt is green.\n" + options, options,
    ]  # fmt: skip
    assert found[0].media == (tmp_path / "images" / "test" / "4" / "image.png",)


def test_mmbench_asks_every_rotation_and_counts_a_question_once(tmp_path: Path) -> None:
    found = read("mmbench", tmp_path)
    steps = [3, 1_000_003, 2_000_003, 3_000_003, 7, 1_000_007]
    assert [question.row["index"] for question in found] == steps
    assert [question.together for question in found] == ["3"] * 4 + ["7"] * 2
    assert found[0].prompt == (
        'Read it.\nThen say. which, 3? There are several options:\nA. 1\nB. 2"\nC. 3\nD. 4\n'
        + LETTER
    )
    assert found[5].prompt == ("which, 7? There are several options:\nA. dog\nB. cat\n" + LETTER)
    metric = answer_metric("mmbench")
    # Question 3 is right wherever its options stand, question 7 only where they were not moved.
    said = ["A", "D", "C", "B", "A", "A"]
    metric.update_rows(said, [json.loads(json.dumps(question.row)) for question in found])
    scores = {name: float(value) for name, value in metric.compute().items()}
    assert scores == {"accuracy": 0.5, "vanilla_accuracy": 1.0}


def test_mmbench_pictures_lie_in_the_table(tmp_path: Path) -> None:
    found = read("mmbench", tmp_path)
    shown = [question.media[0] for question in found]
    assert all(isinstance(one, EmbeddedPicture) for one in shown)
    assert len(set(shown)) == 2
    values = [one.open().getpixel((3, 3))[0] for one in shown]
    assert [round(value, -1) for value in values] == [0] * 4 + [10] * 2
    rows = files.mmbench_rows()
    limit = csv.field_size_limit()
    rows[0]["image"], rows[1]["image"] = "AAAA" * 30, files.encoded(7, padding=limit)
    files.mmbench(tmp_path, rows)
    *_, (long,), (broken,) = [question.media for question in BENCHMARKS["mmbench"].read(tmp_path)]
    assert csv.field_size_limit() == limit
    assert long.open().size == (16, 16)
    with pytest.raises(DataError, match="index 1000007 holds a picture that cannot be read"):
        read_images([broken.open()], 16)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"index": "x"}, "row 1 has the index 'x', which must be a whole number"),
        ({"index": "7"}, "row 2 holds index 7 once more"),
        ({"answer": "C"}, "row 1 offers the options A, B but has the answer 'C'"),
        ({"answer": ""}, "row 1 offers the options A, B but has the answer None"),
        ({"image": ""}, "index 1000007 holds 'nothing' in the place of a picture"),
        ({"image": "99"}, "index 1000007 holds '99' in the place of a picture"),
        ({"image": "?" * 80}, "index 1000007 holds a picture that is no base64"),
    ],
)
def test_broken_rows_of_mmbench_are_named(
    change: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    first, *others = files.mmbench_rows()
    files.mmbench(tmp_path, [first | change, *others])
    with pytest.raises(DataError, match=sentence) as error:
        BENCHMARKS["mmbench"].read(tmp_path)
    assert MMBENCH in str(error.value)


def test_broken_tables_of_mmbench_are_named(tmp_path: Path) -> None:
    path = tmp_path / MMBENCH
    files.mmbench(tmp_path)
    whole = path.read_text()

    def complaint(text: str) -> str:
        path.write_text(text)
        with pytest.raises(DataError) as error:
            BENCHMARKS["mmbench"].read(tmp_path)
        return str(error.value)

    assert "row 6 has not one cell in each column" in complaint(whole.removesuffix("\tdev\n"))
    assert "cannot be read" in complaint(whole.replace('Then say."', "Then say."))
    head, *rows = whole.splitlines(keepends=True)
    assert "answer, category, image are wanted" in complaint(
        head.replace("answer", "truth") + rows[0]
    )
    unturned = [row for row in files.mmbench_rows() if int(row["index"]) < 1_000_000]
    for row in unturned:
        row["image"] = files.encoded(1)
    files.mmbench(tmp_path, unturned)
    assert "holds no rotated questions" in complaint(path.read_text())


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
        (
            "vqav2",
            "v2_mscoco_val2014_annotations.json",
            {"annotations": [{"question_id": 11}]},
            "holds a question with question_id, but question_id, answers are wanted",
        ),
        (
            "vqav2",
            "v2_mscoco_val2014_annotations.json",
            {"annotations": [{"question_id": 11, "answers": [{"reply": "red"}]}]},
            "must be a list of annotators' answers",
        ),
        (
            "vqav2",
            "v2_OpenEnded_mscoco_val2014_questions.json",
            {"questions": [{"question_id": 11, "image_id": "x", "question": "what?"}]},
            "question 11 has the image_id 'x'",
        ),
        ("pope", "coco_pope_random.json", '{"a": 1}\n{', "line 2 is no JSON object"),
        (
            "mme",
            "MME_Benchmark_release_version/color/1.txt",
            "Is it red? Yes\n",
            "has a line that is not question",
        ),
        (
            "mme",
            "MME_Benchmark_release_version/color/1.txt",
            "Is it a caf\xe9?\tYes\n".encode("latin-1"),
            "cannot be read .'utf-8' codec",
        ),
        (
            "vizwiz_vqa",
            "val.json",
            [{"image": 7, "question": "what?", "answers": []}],
            "a question whose image is 7; it must be a text",
        ),
        ("msvd_qa", "test_a.json", [], "has no answer to question q1 of test_q.json"),
        ("vizwiz_vqa", "val.json", {}, "is no list of questions"),
        ("vizwiz_vqa", "val.json", [{"image": "a.jpg"}], "holds a question with image, but"),
        ("scienceqa_img", "pid_splits.json", {"val": []}, "has no list 'test'"),
        ("scienceqa_img", "problems.json", {}, "has no problem 4 of pid_splits.json"),
        (
            "scienceqa_img",
            "problems.json",
            {"4": {"question": "q", "choices": ["a"], "answer": 1, "hint": "", "image": "i"}},
            "problem 4 has the answer 1, which must be the place of one of its choices",
        ),
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
