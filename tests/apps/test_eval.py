"""``vilau eval``: what is missing is named, answers and drawings are kept, twins need nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.apps.conftest import Command
from tests.data import published_files as files
from tests.models import tiny
from vilau.apps.evaluation import asking, suites, twins
from vilau.apps.evaluation.suites import SUITES, known_benchmarks
from vilau.apps.evaluation.zero_shot import spread
from vilau.models.vila_u.model import VilaU
from vilau.study.load import load_study

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "benchmarks"
    for name in ("pope", "mme", "mmvet", "mjhq", "genai", "msvd_qa"):
        files.WRITERS[name](folder / name)
    return folder


def test_what_is_missing_is_named_with_its_place(
    vilau: Command, data: Path, model_folder: Path
) -> None:
    code, out, err = vilau("eval", "--suite", "table2", "--check")
    assert (code, err) == (1, "")
    lines = dict(line.split(": ", 1) for line in out.splitlines())
    assert lines["pope"] == "POPE is there"
    assert lines["gqa"] == (
        "GQA test-dev balanced is missing; put these of its own files there: "
        "data/benchmarks/gqa/testdev_balanced_questions.json, data/benchmarks/gqa/images"
    )
    code, out, _ = vilau("eval", "--suite", "table4", "--check", "--data", data / "none")
    assert code == 1
    assert "mjhq: scored by clean-fid 0.1.35, in an environment of its own" in out
    assert vilau("eval", "--suite", "table5", "--check")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--suite", "tabel2"], "--suite is `tabel2`. Did you mean `table2`?"),
        (["--benchmarks", "popee"], "--benchmarks holds `popee`. Did you mean `pope`?"),
        (
            ["--benchmarks", "world_popp"],
            "--benchmarks holds `world_popp`. Did you mean `world_pope`?",
        ),
        ([], "nothing is asked for; write --suite"),
        (["--benchmarks", "pope"], "--model is missing; give the folder of a trained model"),
        (
            ["--suite", "table1", "--world"],
            "--suite is `table1`, of which the drawn world has no twin",
        ),
        (["--rescore", "x.jsonl", "--suite", "table2"], "--rescore needs the one benchmark"),
        (
            ["--suite", "table3", "--world", "--model", ".", "--dtype", "bfloat16"],
            "--dtype is for the published benchmarks, not for the drawn world's twins; leave it out.",
        ),
        (
            ["--suite", "table3", "--world", "--model", ".", "--allow-pickle"],
            "leave it out; convert the model first (vilau convert).",
        ),
    ],
)
def test_mistakes(vilau: Command, data: Path, arguments: list[str], sentence: str) -> None:
    code, _, err = vilau("eval", *arguments)
    assert code == 2
    assert sentence in err


def test_answers_are_scored_kept_and_scored_again(
    vilau: Command, data: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = ("pope", "mme", "mmvet", "msvd_qa")
    command = (
        "eval",
        "--benchmarks",
        *names,
        "--model",
        model_folder,
        "--batch-size",
        4,
        "--max-new-tokens",
        3,
    )
    code, out, err = vilau(*command)
    assert code == 0, err
    results = json.loads((tmp_path / "evaluation" / "results.json").read_text())
    # No judge was asked, and the names say so.
    known = {"pope", "mme", "mmvet_string_match", "msvd_qa_string_match"}
    assert {name.split("/")[0] for name in results} == known
    code, out_again, _ = vilau(
        "eval", "--rescore", "evaluation/mmvet.jsonl", "--benchmarks", "mmvet"
    )
    assert code == 0
    assert "mmvet_string_match/score" in out_again
    assert "pope/accuracy" in out
    rows = [
        json.loads(line)
        for line in (tmp_path / "evaluation" / "pope.jsonl").read_text().splitlines()
    ]
    assert len(rows) == 6
    assert {"question_id", "question", "answer", "category", "prompt", "prediction"} == set(rows[0])
    assert json.loads(
        (tmp_path / "evaluation" / "mmvet-for-the-judge.json").read_text()
    ).keys() == {"v1_0"}

    # Cut in the middle of an answer, as by a kill: only what is missing is asked.
    path = tmp_path / "evaluation" / "pope.jsonl"
    text = path.read_text()
    kept = text.splitlines(keepends=True)[:4]
    path.unlink()
    Path(f"{path}.part").write_text("".join(kept) + '{"question_id": 9, "pro')
    asked: list[str] = []
    answers = asking.answers
    monkeypatch.setattr(
        asking,
        "answers",
        lambda model, batch, *rest: (
            asked.extend(q.prompt for q in batch),
            answers(model, batch, *rest),
        )[1],
    )
    assert vilau(*command)[0] == 0
    assert len(asked) == 2
    assert path.read_text() == text

    code, out, _ = vilau("eval", "--rescore", path, "--benchmarks", "pope", "--style", "llava")
    assert code == 0
    assert "pope/random_f1" in out
    path.write_text(text[:-30])
    code, _, err = vilau("eval", "--rescore", path, "--benchmarks", "pope")
    assert code == 2
    assert "pope.jsonl, line 6 is cut short" in err


def test_pictures_inside_a_table_are_shown_and_groups_stay_whole(
    vilau: Command, data: Path, model_folder: Path, tmp_path: Path
) -> None:
    for name in ("mmbench", "scienceqa_img", "vizwiz_vqa"):
        files.WRITERS[name](data / name)
    names = ("mmbench", "scienceqa_img", "vizwiz_vqa", "mme")
    code, out, err = vilau(
        "eval", "--benchmarks", *names, "--model", model_folder, "--max-new-tokens", 2, "--limit", 1
    )
    assert code == 0, err
    assert "mmbench/vanilla_accuracy" in out

    def asked(name: str) -> int:
        return len((tmp_path / "evaluation" / f"{name}.jsonl").read_text().splitlines())

    # All four rotations of MMBench's question 3, and both questions about MME's picture.
    assert [asked(name) for name in names] == [4, 1, 1, 2]
    code, out, _ = vilau("eval", "--rescore", "evaluation/mmbench.jsonl", "--benchmarks", "mmbench")
    assert code == 0
    assert "mmbench/accuracy" in out


def test_options_are_ranked_where_the_files_of_letters_lie(
    vilau: Command, model_folder: Path, data: Path, tmp_path: Path
) -> None:
    files.seedbench(data / "seedbench", videos=True)
    code, out, err = vilau("eval", "--benchmarks", "seedbench_ranked", "--model", model_folder)
    assert code == 0, err
    assert "seedbench_ranked/all" in out
    written = (tmp_path / "evaluation" / "seedbench_ranked.jsonl").read_text().splitlines()
    assert [json.loads(line)["prediction"] in "ABCD" for line in written] == [True, True]


def test_the_tables_of_vargpt_say_what_they_lack(vilau: Command, data: Path) -> None:
    for name in ("mmbench", "seedbench"):
        files.WRITERS[name](data / name)
    code, out, _ = vilau("eval", "--suite", "vargpt_table1", "--check")
    assert code == 0
    assert out.splitlines()[0] == (
        "vargpt_table1: the column MMMU stays empty, its data are not read here"
    )
    assert "mmbench: MMBench dev (English) is there (static matcher" in out
    code, out, _ = vilau("eval", "--suite", "vargpt_table3", "--check")
    assert code == 1
    assert (
        "put these of its own files there: data/benchmarks/scienceqa_img/problems.json, "
        "data/benchmarks/scienceqa_img/pid_splits.json, data/benchmarks/scienceqa_img/images/test"
        in out
    )
    assert "data/benchmarks/vizwiz_vqa/val.json, data/benchmarks/vizwiz_vqa/val" in out
    code, out, _ = vilau("eval", "--suite", "vargpt_table3", "--world", "--check")
    assert code == 0
    drawn = [line.split(":")[0] for line in out.splitlines()]
    assert drawn == [
        "world_gqa", "world_textvqa", "world_vqav2", "world_scienceqa", "world_ok_vqa", "world_vizwiz_vqa",
    ]  # fmt: skip


def test_a_style_that_one_of_a_suite_lacks_is_told_before_the_others_are_asked(
    vilau: Command, data: Path, tmp_path: Path
) -> None:
    for name in ("gqa", "ok_vqa"):
        files.WRITERS[name](data / name)
    command = ("eval", "--suite", "vargpt_table3", "--style", "llava", "--model", "none")
    code, _, err = vilau(*command)
    assert code == 2
    assert "OK-VQA soft accuracy is read in style lmms" in err
    assert not (tmp_path / "evaluation").exists()


def test_every_suite_and_every_twin_names_a_known_benchmark() -> None:
    known = known_benchmarks()
    assert {name for suite in SUITES.values() for name in suite} <= set(known)
    assert set(suites.twins().values()) <= set(known)


@pytest.mark.parametrize(
    ("suite", "study", "stage"),
    [
        ("table2", "table2_image_understanding", "image_questions"),
        ("table3", "table3_video_understanding", "video_questions"),
    ],
)
def test_a_suite_asks_what_its_study_asks_at_paper(suite: str, study: str, stage: str) -> None:
    variant = load_study(EXPERIMENTS / f"{study}.yaml").variants["ours"]
    (asked,) = [one.value for one in variant.of(stage, "paper") if one.key == "data.benchmarks"]
    assert tuple(asked) == SUITES[suite]


def test_answers_to_other_questions_or_of_another_model_are_refused(
    vilau: Command, data: Path, model_folder: Path, tmp_path: Path
) -> None:
    command = ("eval", "--benchmarks", "pope", "--model", model_folder, "--max-new-tokens", 2)
    assert vilau(*command)[0] == 0
    code, _, err = vilau(*command, "--limit", 2)
    assert code == 2
    assert "holds 6 answers to other questions than the 2 of this command" in err
    code, _, err = vilau(*command[:-1], 3)
    assert code == 2
    assert "holds an evaluation with max_new_tokens 2, now it is 3" in err
    (data / "pope" / "val2014" / "COCO_val2014_000000000001.jpg").unlink()
    code, _, err = vilau(*command, "--out", "other")
    assert code == 2
    assert "1 of 1 pictures or videos are not in data/benchmarks/pope" in err


def test_drawings_are_finished_and_their_scorers_told(
    vilau: Command, data: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("eval", "--suite", "table4", "--model", model_folder, "--floors", "--batch-size", 2)
    code, out, err = vilau(*command)
    assert code == 0, err
    drawn = sorted(
        path.relative_to(tmp_path).as_posix() for path in (tmp_path / "evaluation").rglob("*.png")
    )
    assert [path for path in drawn if path.startswith("evaluation/mjhq/")] == [
        "evaluation/mjhq/animals/h1.png", "evaluation/mjhq/logo/h0.png",
    ]  # fmt: skip
    assert len(drawn) == 6
    assert "fid.compute_fid" in out
    assert "data/benchmarks/mjhq/mjhq30k_imgs evaluation/mjhq\n" in out
    assert "data/benchmarks/mjhq/mjhq30k_imgs evaluation/mjhq-rebuilt\n" in out
    assert "data/benchmarks/mjhq/mjhq30k_imgs/logo evaluation/mjhq/logo\n" in out
    # One picture is gone: it alone is drawn again, and is the same.
    lost = tmp_path / "evaluation" / "mjhq" / "animals" / "h1.png"
    before = Image.open(lost).tobytes()
    lost.unlink()
    prompts: list[str] = []
    generate = VilaU.generate_images

    def counted(self, asked, **settings):  # type: ignore[no-untyped-def]
        prompts.extend(asked)
        return generate(self, asked, **settings)

    monkeypatch.setattr(VilaU, "generate_images", counted)
    assert vilau(*command)[0] == 0
    assert prompts == ["a cat"]
    assert Image.open(lost).tobytes() == before

    code, out, _ = vilau(
        "eval", "--suite", "table5", "--model", model_folder, "--limit", 2, "--out", "five"
    )
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "five" / "genai").iterdir()) == [
        "00001.png",
        "00002.png",
    ]
    assert "t2v-metrics==3.0" in out
    scored = out.split("python ")[-1].split()
    assert scored[0].endswith("score_genai.py")
    # A stand-in for the scorer, whose score is the length of the text.
    (tmp_path / "t2v_metrics.py").write_text(
        "class VQAScore:\n    def __init__(self, model): pass\n"
        "    def __call__(self, images, texts):\n        return [[len(texts[0])]]\n"
    )
    found = subprocess.run(
        [sys.executable, *scored], env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=True, cwd=tmp_path,
    ).stdout.splitlines()  # fmt: skip
    texts = (data / "genai" / "prompts.txt").read_text().splitlines()
    mean = (len(texts[0]) + len(texts[1])) / 2
    assert found[0] == f"all {mean} of 2 of {len(texts)} prompts"
    assert len(found) > 1


@pytest.fixture
def larger_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of 32 pixels, the least that scenes are drawn on."""
    monkeypatch.setattr(tiny, "SIDE", 32)
    tiny.vila_u().save(tmp_path / "larger")
    return tmp_path / "larger"


def test_twins_need_no_data(
    vilau: Command, larger_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twins, "PRIOR_SCENES", 5)
    command = ("eval", "--benchmarks", "world_gqa", "world_msvd_qa", "world_genai", "world_mjhq",
               "--model", larger_model, "--limit", 2, "--max-new-tokens", 2, "--device", "cpu")  # fmt: skip
    assert vilau("eval", "--suite", "table3", "--world", "--check")[0] == 0
    code, _, err = vilau(*command)
    assert code == 0, err
    results = json.loads((tmp_path / "evaluation" / "results.json").read_text())
    assert results["test/world_gqa_accuracy"]["passport"]["num_samples"] >= 2
    assert results["test/world_msvd_qa_accuracy_ceiling"]["value"] == 1.0
    assert {
        "test/world_genai",
        "test/world_genai_empty_image",
        "test/world_mjhq_fid_rebuilt",
    } <= set(results)
    assert all(found["passport"] for found in results.values())
    path = tmp_path / "evaluation" / "predictions" / "world_gqa.jsonl"
    code, out, _ = vilau("eval", "--rescore", path, "--benchmarks", "world_gqa")
    assert code == 0
    assert out.split()[-1] == f"{results['test/world_gqa_accuracy']['value']:.4f}"


def test_twins_of_another_level_are_not_mixed_in(
    vilau: Command, larger_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twins, "PRIOR_SCENES", 5)
    command = ("eval", "--benchmarks", "world_gqa", "--model", larger_model, "--limit", 2,
               "--max-new-tokens", 2, "--device", "cpu")  # fmt: skip
    assert vilau(*command)[0] == 0
    assert json.loads((tmp_path / "evaluation" / "eval.json").read_text())["level"] == "base"
    assert vilau(*command)[0] == 0
    code, _, err = vilau(*command, "--level", "hard")
    assert code == 2
    assert "holds an evaluation with level 'base', now it is 'hard'; write another --out" in err


def test_a_part_of_imagenet_is_of_all_classes() -> None:
    every = [(Path(f"{label}-{n}.jpg"), label) for label in range(10) for n in range(5)]
    assert [label for _, label in spread(every, 10)] == list(range(10))
    assert {label for _, label in spread(every, 30)} == set(range(10))
    assert len(spread(every, 30)) == 30
    assert spread(every, 99) == every


def test_tasks_for_lmms_eval(
    vilau: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twins, "PRIOR_SCENES", 5)
    code, out, err = vilau(
        "eval", "--write-lmms-tasks", "tasks", "--benchmarks", "world_gqa", "--limit", 3
    )
    assert code == 0, err
    assert out.endswith("--include_path tasks --tasks world_gqa\n")
    assert (tmp_path / "tasks" / "world_gqa.yaml").exists()


def test_imagenet_is_classified_by_names(
    vilau: Command, model_folder: Path, tower_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data" / "benchmarks" / "imagenet"
    files.write(folder / "classnames.json", {"n1": "red circle", "n2": "blue square"})
    for name, value in (("n1/a.JPEG", 250), ("n1/b.png", 200), ("n2/c.jpg", 5)):
        files.picture(folder / "val" / name, value)
    code, out, err = vilau("eval", "--suite", "table1", "--model", tower_folder)
    assert code == 0, err
    found = json.loads((tmp_path / "evaluation" / "results.json").read_text())
    assert found["imagenet/top1"]["value"] in (pytest.approx(n / 3) for n in range(4))
    (folder / "val" / "n2" / "c.jpg").unlink()
    code, _, err = vilau("eval", "--suite", "table1", "--model", tower_folder)
    assert code == 2
    assert "holds no pictures; put class n2" in err
