"""The data module of the published benchmarks: what ``vilau eval`` asks and shows, as loaders of a study's stage."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image

from tests.data import published_files as files
from tests.models import tiny
from vilau.apps.evaluation import asking
from vilau.callbacks.question_answering import QuestionAnswering
from vilau.data.published.catalogue import QUESTION_BENCHMARKS
from vilau.data.published_benchmarks import PublishedBenchmarks
from vilau.errors import ConfigError, DataError
from vilau.layers.pixels import to_float, to_uint8
from vilau.study.load import load_study
from vilau.study.plan import Options, make_plan
from vilau.training.evaluate import Evaluation
from vilau.types import QuestionBatch

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
TABLES = {
    "table2_image_understanding": "image_questions",
    "table3_video_understanding": "video_questions",
}
WRITERS = {**files.WRITERS, "msrvtt_qa": files.video_qa, "tgif_qa": files.video_qa}
SIZE = 24
ONE_ULP = 1.2e-7


def written(folder: Path, *names: str) -> Path:
    for own in dict.fromkeys(QUESTION_BENCHMARKS[name].folder for name in names):
        if own == "seedbench":
            files.seedbench(folder / own, videos=True)
        else:
            WRITERS[own](folder / own)
    return folder


def noise(path: Path, mode: str, seed: int = 0) -> None:
    """A portrait in a mode of its own: half transparent, of a palette, or RGB."""
    values = np.random.default_rng(seed).integers(0, 256, (50, 31, 4), dtype=np.uint8)
    Image.fromarray(values, "RGBA").convert(mode).save(path)


def module(folder: Path, *names: str, **settings: object) -> PublishedBenchmarks:
    settings = {"image_size": SIZE, "global_batch_size": 3, **settings}
    return PublishedBenchmarks(str(folder), names, **settings)  # type: ignore[arg-type]


def batches(data: PublishedBenchmarks) -> list[QuestionBatch]:
    data.setup()
    return [batch for loader in data.test_dataloader() for batch in loader]


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
def test_the_model_sees_what_eval_shows_it(tmp_path: Path, fit: str) -> None:
    names = ("scienceqa_img", "vqav2", "mmbench", "seedbench", "msvd_qa")
    written(tmp_path, *names)
    files.seedbench(tmp_path / "seedbench", videos=True)
    noise(tmp_path / "scienceqa_img/images/test/4/image.png", "P")
    noise(tmp_path / "scienceqa_img/images/test/6/image.png", "RGBA")
    noise(tmp_path / "vqav2/val2014/COCO_val2014_000000000001.jpg", "RGB")
    model = SimpleNamespace(reading_size=SIZE)
    args = argparse.Namespace(fit=fit, quirks=None)
    asked = [q for name in names for q in QUESTION_BENCHMARKS[name].read(tmp_path / name)]
    eval_shows = [asking.pictures(model, question, args) for question in asked]
    found = batches(module(tmp_path, *names, fit=fit))
    assert [text for batch in found for text in batch.questions] == [q.prompt for q in asked]
    assert [row for batch in found for row in batch.rows] == [q.row for q in asked]
    assert [count for batch in found for count in batch.frames] == [len(one) for one in eval_shows]
    assert {1, 8} == {count for batch in found for count in batch.frames}
    images, wanted = torch.cat([batch.images for batch in found]), torch.cat(eval_shows)
    assert images.dtype == torch.uint8
    assert images.shape == (len(wanted), 3, SIZE, SIZE)
    assert images.is_contiguous()
    torch.testing.assert_close(images, to_uint8(wanted), rtol=0, atol=0)
    torch.testing.assert_close(to_float(images), wanted, rtol=0, atol=ONE_ULP)


def test_a_limit_keeps_groups_whole_and_a_clip_its_frames(tmp_path: Path) -> None:
    written(tmp_path, "mmbench", "mme", "pope", "msvd_qa")
    data = module(
        tmp_path, "mmbench", "mme", "pope", "msvd_qa", num_questions=1, num_frames=3
    )  # fmt: skip
    found = batches(data)
    counts = dict.fromkeys(data.benchmarks, 0)
    for batch in found:
        counts[batch.benchmark] += len(batch.questions)
    assert counts == {"mmbench": 4, "mme": 2, "pope": 1, "msvd_qa": 1}
    assert found[-1].frames == [3]
    assert all(batch.answers[0] and batch.answers[0][0] for batch in found)


def test_pictures_are_read_when_their_batch_is_made(tmp_path: Path) -> None:
    written(tmp_path, "vqav2")
    data = module(tmp_path, "vqav2", global_batch_size=1)
    data.setup()
    lost = tmp_path / "vqav2/val2014/COCO_val2014_000000000002.jpg"
    lost.unlink()
    (loader,) = data.test_dataloader()
    there = iter(loader)
    assert next(there).answers == [["red"] * 10]
    with pytest.raises(DataError, match="COCO_val2014_000000000002.jpg does not exist"):
        next(there)


def test_what_is_missing_is_named_in_one_sentence(tmp_path: Path) -> None:
    written(tmp_path, "gqa", "pope")
    (tmp_path / "pope/coco_pope_random.json").unlink()
    data = module(tmp_path, "gqa", "pope", "vizwiz_vqa")
    with pytest.raises(DataError) as caught:
        data.setup()
    assert str(caught.value) == (
        f"data.folder is {tmp_path}, which lacks pope/coco_pope_random.json, vizwiz_vqa/val.json, vizwiz_vqa/val; put "
        "the benchmarks' own files there, name the folder that holds them, or leave these benchmarks out of "
        "data.benchmarks."
    )
    (tmp_path / "gqa/images/n7.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 1 pictures or videos are not in .*gqa, the first"):
        module(tmp_path, "gqa").setup()
    (tmp_path / "gqa/testdev_balanced_questions.json").write_text("{}")
    with pytest.raises(DataError, match="gqa holds no questions; put GQA test-dev balanced's"):
        module(tmp_path, "gqa").setup()


@pytest.mark.parametrize(
    ("names", "settings", "told"),
    [
        (("gqaa",), {}, "data.benchmarks holds 'gqaa'. Did you mean 'gqa'?"),
        (("world_gqa",), {}, "holds 'world_gqa', which is drawn; write 'gqa', or data.class_path"),
        (("world_genai",), {}, "holds 'world_genai', which is drawn; write some of vqav2,"),
        (("gqa", "gqa"), {}, "data.benchmarks holds 'gqa' twice; write it once."),
        ((), {}, "data.benchmarks is empty; write some of vqav2, gqa,"),
        (("gqa",), {"num_questions": 0}, "data.num_questions is 0; write at least 1."),
        (("gqa",), {"num_frames": 0}, "data.num_frames is 0; write at least 1."),
        (("gqa",), {"fit": "stretch"}, "data.fit is 'stretch'; write one of squash, pad, crop."),
    ],
)
def test_mistakes(
    tmp_path: Path, names: tuple[str, ...], settings: dict[str, object], told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        module(tmp_path, *names, **settings)
    assert told in str(caught.value)


# ------------------------------------------------------------------ the stages of Tables 2 and 3


def paper_config(study: str) -> dict[str, dict]:
    plan = make_plan(load_study(EXPERIMENTS / f"{study}.yaml"), Options(scale="paper"))
    (run,) = [one for one in plan.runs.values() if one.stage.name == TABLES[study]]
    return run.resolved.config


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "model"
    tiny.vila_u().save(folder)
    return folder


def trainer(folder: Path, callback: QuestionAnswering) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(folder),
        callbacks=[callback],
    )


def test_seedbench_without_its_videos_says_so(tmp_path: Path) -> None:
    files.seedbench(tmp_path / "seedbench", videos=False)
    data = module(tmp_path, "seedbench", image_size=tiny.SIDE)
    with pytest.warns(UserWarning, match="asks about pictures alone, and gives no score of all"):
        data.setup()


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning about loader processes
def test_the_published_benchmarks_fill_the_tables_of_scale_paper(
    tmp_path: Path, model_folder: Path
) -> None:
    for study, stage in TABLES.items():
        config = paper_config(study)
        given = config["data"]["init_args"]
        assert set(given) == {"folder", "image_size", "global_batch_size", "benchmarks"}
        names = given["benchmarks"]
        callback = QuestionAnswering(num_samples=1)
        data = module(written(tmp_path / study, *names), *names, image_size=tiny.SIDE)
        evaluation = Evaluation(str(model_folder), max_new_tokens=2)
        measured: dict[str, float] = {}
        for found in trainer(tmp_path, callback).test(evaluation, data, verbose=False):
            measured |= {key.split("/dataloader_idx")[0]: value for key, value in found.items()}
        columns = load_study(EXPERIMENTS / f"{study}.yaml").at("paper").columns.values()
        assert {column.stage for column in columns} == {stage}
        assert {column.metric for column in columns} <= set(measured)
        assert set(measured) == set(callback.passports)
        judged = {"mmvet", "msvd_qa", "msrvtt_qa", "tgif_qa", "activitynetqa"} & set(names)
        for key, passport in callback.passports.items():
            by_strings = any(key.startswith(f"test/{name}_") for name in judged)
            assert by_strings == ("_string_match_" in key), key
            assert by_strings == ("match" in passport.features), key


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_answers_and_scores_are_those_of_eval(tmp_path: Path, model_folder: Path) -> None:
    names = ("pope", "mme", "msvd_qa", "scienceqa_img", "seedbench_ranked")
    written(tmp_path, *names)
    noise(tmp_path / "scienceqa_img/images/test/4/image.png", "P")
    limits = {"pope": 3, "mme": 5, "msvd_qa": 4, "scienceqa_img": 2, "seedbench_ranked": 1}
    evaluation = Evaluation(str(model_folder), max_new_tokens=limits)
    data = module(tmp_path, *names, image_size=tiny.SIDE, global_batch_size=4)
    measured: dict[str, float] = {}
    for found in trainer(tmp_path, QuestionAnswering(num_samples=0)).test(
        evaluation, data, verbose=False
    ):
        measured |= {key.split("/dataloader_idx")[0]: value for key, value in found.items()}
    for name in names:
        args = argparse.Namespace(
            limit=None,
            style="lmms",
            batch_size=4,
            max_new_tokens=limits[name],
            fit="squash",
            quirks=None,
            dtype=None,
            ocr=False,
            without_images=False,
        )
        out, benchmark = tmp_path / "eval", QUESTION_BENCHMARKS[name]
        scores, passport = asking.ask_benchmark(
            evaluation.model, benchmark, tmp_path / benchmark.folder, out, args
        )
        rows = (out / f"{name}.jsonl", tmp_path / "predictions" / f"{name}.jsonl")
        one, other = ([json.loads(x) for x in path.read_text().splitlines()] for path in rows)
        assert one == other
        assert passport.num_samples == len(one)
        stem = f"{name}_string_match" if name == "msvd_qa" else name
        assert {f"test/{stem}_{key}": value for key, value in scores.items()} == {
            key: value for key, value in measured.items() if key.startswith(f"test/{stem}_")
        }


def test_answers_are_as_long_as_the_benchmarks_let_them(tmp_path: Path, model_folder: Path) -> None:
    for study in TABLES:
        config = paper_config(study)
        longest, names = (
            config["model"]["init_args"]["max_new_tokens"],
            config["data"]["init_args"]["benchmarks"],
        )
        longest = longest if isinstance(longest, dict) else dict.fromkeys(names, longest)
        assert longest == {name: QUESTION_BENCHMARKS[name].max_new_tokens for name in names}
    with pytest.raises(ConfigError, match="model.max_new_tokens is {'gqa': 0}; write 1 or more"):
        Evaluation(str(model_folder), max_new_tokens={"gqa": 0})
    evaluation = Evaluation(str(model_folder), max_new_tokens={"pope": 3})
    told = "model.max_new_tokens names pope, but data.benchmarks holds 'gqa'; write one for it too"
    # The one that is named comes first, and is not asked in vain.
    data, callback = module(written(tmp_path, "pope", "gqa"), "pope", "gqa"), QuestionAnswering()
    with pytest.raises(ConfigError, match=told):
        trainer(tmp_path, callback).test(evaluation, data, verbose=False)
    assert not (tmp_path / "predictions").exists()
