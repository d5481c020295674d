import json

import pytest
import torch
from PIL import Image

from tests.callbacks.toys import Toy, image_batch, loader, trainer
from vilau.callbacks.generation_fid import GenerationFID
from vilau.callbacks.generation_judge import GenerationJudge
from vilau.callbacks.image_grid import ImageGrid
from vilau.callbacks.question_answering import QuestionAnswering
from vilau.callbacks.throughput import Throughput, peak_memory_gb
from vilau.errors import ConfigError, DataError
from vilau.metrics.detector_card import drawn_images
from vilau.types import Document, MultimodalBatch, PromptBatch, QuestionBatch, TextSegment
from vilau.world.scene import Scene


def questions(benchmark: str, *rows: tuple[str, list[str], str], **extra) -> QuestionBatch:
    return QuestionBatch(
        images=torch.randint(0, 256, (len(rows), 3, 32, 32), dtype=torch.uint8),
        questions=[question for question, _, _ in rows],
        answers=[accepted for _, accepted, _ in rows],
        families=[family for _, _, family in rows],
        benchmark=benchmark,
        **extra,
    )


VQA = questions(
    "vqa",
    ("is there a star ?", ["yes"] * 8 + ["no"] * 2, "exist"),
    ("is there a ring ?", ["no"], "exist"),
    ("how many ?", ["2", "2", "2", "3", "3", "4", "5", "6", "7", "yes"], "count"),
    chance=[0.5, 0.5, 0.25],
    blind_answers=["no", "no", "2"],
)


def test_question_answering(tmp_path) -> None:
    callback = QuestionAnswering(num_samples=2)
    comp = questions("vqa_comp", ("is there a moon ?", ["yes"], "exist"))
    (values,) = trainer(tmp_path, callback).test(Toy("Yes."), loader(VQA, comp), verbose=False)
    expected = {
        "test/vqa_accuracy": (1.0 + 0.0 + 0.3) / 3,
        "test/vqa/exist": 0.5,
        "test/vqa/count": 0.3,
        "test/vqa_exact": 2 / 3,
        "test/vqa_chance": (0.5 + 0.5 + 0.25) / 3,
        "test/vqa_chance/count": 0.25,
        "test/vqa_blind": (0.6 + 1.0 + 0.9) / 3,
        "test/vqa_blind/exist": 0.8,
        "test/vqa_ceiling": (1.0 + 1.0 + 0.9) / 3,
        "test/vqa_ceiling/count": 0.9,
        "test/vqa_comp_accuracy": 1.0,
        "test/vqa_comp/exist": 1.0,
    }
    for name, value in expected.items():
        assert values[name] == pytest.approx(value), name
    assert "test/vqa_comp_chance" not in values  # no baselines came with these questions
    assert not any("pope" in name for name in values)
    vqa, comp_passport = (
        callback.passports[f"test/{name}_accuracy"] for name in ("vqa", "vqa_comp")
    )
    assert vqa.num_samples == 3
    assert vqa.reference != comp_passport.reference
    assert callback.passports.keys() == values.keys()
    rows = [json.loads(line) for line in (tmp_path / "predictions/vqa.jsonl").open()]
    assert len(rows) == 3
    assert rows[0]["question"] == "is there a star ?"
    assert rows[0]["answer"] == "Yes."
    assert not list((tmp_path / "predictions").glob("*.part"))
    with Image.open(tmp_path / "images" / "test-vqa_answers-step0000000.png") as sheet:
        assert sheet.width > 2 * 128


@pytest.mark.parametrize(("style", "accuracy"), [("lmms", 0.0), ("llava", 0.5)])
def test_pope_by_setting_and_pooled(tmp_path, style: str, accuracy: float) -> None:
    sets = [
        questions(f"pope_{name}", ("a ?", ["yes"], "exist"), ("b ?", ["no"], "exist"))
        for name in ("random", "popular")
    ]
    sets.append(questions("pope_adversarial", ("c ?", ["yes"], "exist")))
    callback = QuestionAnswering(pope_style=style)
    (values,) = trainer(tmp_path, callback).test(Toy("Yes, it is."), loader(*sets), verbose=False)
    assert values["test/pope_random_accuracy"] == accuracy
    assert values["test/pope_random_f1"] == pytest.approx(2 / 3 if accuracy else 0.0)
    assert values["test/pope_accuracy"] == pytest.approx(3 / 5 if accuracy else 0.0)
    assert values["test/pope_f1"] == pytest.approx(3 / 4 if accuracy else 0.0)
    assert values["test/pope_yes_ratio"] == (1.0 if accuracy else 0.0)
    passport = callback.passports["test/pope_f1"]
    assert passport.num_samples == 5
    assert passport.features == f"parser {style}"
    assert not any("vqa" in name for name in values)


def test_no_sample_questions_no_picture(tmp_path) -> None:
    trainer(tmp_path, QuestionAnswering(num_samples=0)).test(Toy(), loader(VQA), verbose=False)
    assert not (tmp_path / "images").exists()


def test_unfinished_predictions_keep_an_unfinished_name(tmp_path) -> None:
    bad = questions("pope_random", ("a ?", ["red"], "exist"))
    with pytest.raises(DataError, match="must be yes or no"):
        trainer(tmp_path, QuestionAnswering()).test(Toy(), loader(VQA, bad), verbose=False)
    assert [path.name for path in (tmp_path / "predictions").iterdir()] == ["vqa.jsonl.part"]


def prompt_batches(number: int, size: int) -> list[PromptBatch]:
    images, scenes = drawn_images(number, start=900)
    batches = []
    for start in range(0, number, size):
        asked = [Scene.from_json(text) for text in scenes[start : start + size]]
        requirements = [
            json.dumps(
                [
                    {"kind": "has", "a": {"shape": thing.shape, "color": thing.color}}
                    for thing in scene.things
                ]
                + [{"kind": "background", "word": scene.background}]
            )
            for scene in asked
        ]
        batches.append(
            PromptBatch(
                prompts=[f"prompt {start + index}" for index in range(len(asked))],
                requirements=requirements,
                skills=[
                    ["attribute", "spatial relation"] if i % 2 else ["scene"] for i in range(size)
                ],
                references=images[start : start + size],
                first_index=start,
            )
        )
    return batches


class Blank(Toy):
    """Draws black pictures."""

    def draw(self, prompts, *, seed, images=None):
        return torch.zeros(len(prompts), 3, 64, 64, dtype=torch.uint8)


def test_generation_judge(tmp_path) -> None:
    callback = GenerationJudge()
    batches = prompt_batches(24, 8)
    (values,) = trainer(tmp_path, callback).test(Toy(), loader(*batches), verbose=False)
    assert values["test/draw_prompt_exact"] >= 0.95
    assert values["test/draw_soft"] >= 0.95
    assert values["test/draw_color_shape"] >= 0.95
    assert values["test/draw/spatial_relation"] >= 0.9
    assert values["test/draw_chance"] <= 0.1
    assert values["test/draw_color_shape_chance"] <= 0.3
    assert 0 < values["test/draw_soft_chance"] <= 0.5
    passport = callback.passports["test/draw_chance"]
    assert passport.num_samples == 3 * 24
    assert callback.passports["test/draw_prompt_exact"].num_samples == 24
    measures = {
        "draw_prompt_exact": "share of prompts satisfied", "draw_soft_chance": "soft score",
        "draw_color_shape": "share of named things shown", "draw_color_shape_chance": "share of named things shown",
    }  # fmt: skip
    assert {name: callback.passports[f"test/{name}"].metric for name in measures} == measures
    assert "verifier" in passport.features
    (blank,) = trainer(tmp_path, GenerationJudge()).test(Blank(), loader(*batches), verbose=False)
    assert blank["test/draw_prompt_exact"] == 0.0
    assert blank["test/draw_chance"] == values["test/draw_chance"]


def test_chance_takes_other_images_than_the_prompts_own(tmp_path) -> None:
    (batch,) = prompt_batches(2, 2)
    callback = GenerationJudge()
    (values,) = trainer(tmp_path, callback).test(Toy(), loader(batch), verbose=False)
    assert values["test/draw_prompt_exact"] == 1.0
    assert values["test/draw_chance"] == 0.0
    assert callback.passports["test/draw_chance"].num_samples == 2  # one other each


def test_generation_judge_without_enough_real_images(tmp_path) -> None:
    for references in (None, prompt_batches(1, 1)[0].references):
        batch = prompt_batches(2, 2)[0]
        batch.references = references
        (values,) = trainer(tmp_path, GenerationJudge()).test(Blank(), loader(batch), verbose=False)
        assert values["test/draw_prompt_exact"] == 0.0
        assert "test/draw_chance" not in values


def test_generation_fid(tmp_path) -> None:
    batches = prompt_batches(120, 40)
    callback = GenerationFID()
    (values,) = trainer(tmp_path, callback).test(Toy(), loader(*batches), verbose=False)
    assert values["test/fid"] == pytest.approx(0.0, abs=1e-2)
    assert values["test/fid_floor"] > 0.1
    assert callback.passports["test/fid"].num_samples == 120
    assert callback.passports["test/fid_floor"].num_samples == 60
    assert int(callback.floor.fake_features_num_samples) == 60
    assert int(callback.floor.real_features_num_samples) == 60
    (blank,) = trainer(tmp_path, GenerationFID()).test(Blank(), loader(*batches), verbose=False)
    assert blank["test/fid"] > 10 * blank["test/fid_floor"]
    assert blank["test/fid_floor"] == pytest.approx(values["test/fid_floor"], rel=1e-4)
    few = prompt_batches(40, 40)[0]
    few.prompts, few.requirements, few.skills = (
        few.prompts[:8],
        few.requirements[:8],
        few.skills[:8],
    )
    callback = GenerationFID()
    trainer(tmp_path, callback).test(Blank(), loader(few), verbose=False)
    assert callback.passports["test/fid"].num_samples == 8
    assert int(callback.floor.fake_features_num_samples) == 8  # as many real ones as drawings
    assert int(callback.floor.real_features_num_samples) == 32
    batches[0].references = None
    with pytest.raises(DataError, match="prompts came without real images"):
        trainer(tmp_path, GenerationFID()).test(Blank(), loader(batches[0]), verbose=False)


def test_test_drawings_are_shown_with_their_prompts(tmp_path) -> None:
    run = trainer(tmp_path, ImageGrid(num_images=5))
    run.test(Toy(), loader(*prompt_batches(8, 4)), verbose=False)
    with Image.open(tmp_path / "images" / "test-drawings-step0000000.png") as sheet:
        assert sheet.width == 4 * 132 + 4
        assert sheet.height > 2 * 132


def test_throughput(tmp_path) -> None:
    logged = []

    class Watch(Throughput):
        def on_train_batch_end(self, trainer, pl_module, *arguments):
            super().on_train_batch_end(trainer, pl_module, *arguments)
            logged.append("train/samples_per_s" in trainer.callback_metrics)

    images = torch.zeros(6, 3, 8, 8, dtype=torch.uint8)
    run = trainer(tmp_path, Watch(every_n_steps=2), max_steps=5)
    run.fit(Toy(), loader(*[image_batch(images)] * 5))
    assert logged[0] is False
    assert run.callback_metrics["train/samples_per_s"] > 0
    rate, seconds = (
        float(run.callback_metrics[f"train/{name}"]) for name in ("samples_per_s", "step_time_s")
    )
    assert rate * seconds == pytest.approx(6.0, rel=1e-3)
    assert 0.05 < peak_memory_gb(torch.device("cpu")) < 100


def test_throughput_counts_documents(tmp_path) -> None:
    documents = [Document((TextSegment("a"),))] * 3
    batch = MultimodalBatch(torch.zeros(7, 3, 8, 8, dtype=torch.uint8), documents)
    run = trainer(tmp_path, Throughput(every_n_steps=1), max_steps=2)
    run.fit(Toy(), loader(batch, batch))
    metrics = run.callback_metrics
    assert float(metrics["train/samples_per_s"] * metrics["train/step_time_s"]) == pytest.approx(
        3.0
    )
    with pytest.raises(ConfigError, match="every_n_steps is 0"):
        Throughput(every_n_steps=0)
