"""The twins under their callbacks: what is logged, with baselines and passports, and what is written."""

import json

import pytest
import torch
import torch.nn.functional as F

from tests.callbacks.toys import Toy, loader, trainer
from vilau.callbacks.category_fid import CategoryFID
from vilau.callbacks.category_judge import CategoryJudge
from vilau.callbacks.clip_quality import ClipQuality
from vilau.callbacks.generation_judge import GenerationJudge
from vilau.callbacks.question_answering import QuestionAnswering
from vilau.callbacks.skill_scores import SkillScores
from vilau.errors import DataError
from vilau.metrics.answers import answer_metric
from vilau.metrics.category_frechet import CategoryFrechet
from vilau.metrics.frechet import FrechetDistance
from vilau.metrics.predictions import score_predictions
from vilau.types import (
    WITHOUT_IMAGES,
    AnswerOutput,
    ClipOutput,
    ClipPromptBatch,
    DrawingOutput,
    PromptBatch,
    QuestionBatch,
)
from vilau.world.clip_judge import ClipPrompt
from vilau.world.clips import Clip, Motion, render_clip
from vilau.world.judge import Requirement, requirements_to_json
from vilau.world.render import render
from vilau.world.scene import Scene, Thing, scene_at


class Artist(Toy):
    """Answers from a list, draws given pictures and clips, and rebuilds pictures darker."""

    def __init__(self, answers: list[str] | None = None, drawn: torch.Tensor | None = None) -> None:
        super().__init__()
        self.answers, self.drawn = answers, drawn

    def test_step(self, batch, batch_idx: int):
        if isinstance(batch, QuestionBatch):
            return AnswerOutput(self.answers)
        return (
            ClipOutput(self.drawn)
            if isinstance(batch, ClipPromptBatch)
            else DrawingOutput(self.drawn)
        )

    def rebuild(self, images: torch.Tensor) -> torch.Tensor:
        return images // 2


def pictures(*scenes: Scene) -> torch.Tensor:
    return torch.stack([torch.from_numpy(render(scene)).permute(2, 0, 1) for scene in scenes])


def test_a_twin_is_scored_beside_its_guessers_and_can_be_scored_again(tmp_path) -> None:
    rows = [
        {"question_id": f"{n // 2}", "category": "shape", "question": f"{n} ?", "answer": truth}
        for n, truth in enumerate(("Yes", "No", "Yes", "No"))
    ]
    batch = QuestionBatch(
        images=torch.zeros(11, 3, 8, 8, dtype=torch.uint8),
        questions=["a ?", "b ?", "c ?", "d ?"], answers=[["yes"], ["no"]] * 2, families=["shape"] * 4,
        benchmark="world_mme", rows=rows, frames=[1, 8, 1, 1],
        baselines={"chance": [["yes"] * 2, ["yes", "no"], ["yes"] * 2, ["yes"] * 2],
                   "ceiling": [["yes"], ["no"]] * 2},
    )  # fmt: skip
    callback = QuestionAnswering(num_samples=2)
    model = Artist(["yes", "no", "Yes.", "yes"])
    (values,) = trainer(tmp_path, callback).test(model, loader(batch), verbose=False)
    assert values["test/world_mme_perception"] == 75.0 + 50.0
    # One of the two guessers says yes to all; the other is right about the first pair.
    assert values["test/world_mme_perception_chance"] == (50.0 + 125.0) / 2
    assert values["test/world_mme_perception_ceiling"] == 200.0
    assert callback.passports.keys() == values.keys()
    passport = callback.passports["test/world_mme_perception"]
    assert passport.num_samples == 4
    details = {
        kind: callback.passports[f"test/world_mme_perception_{kind}"].details
        for kind in batch.baselines
    }
    assert details == {
        "chance": "baseline: chance, mean of 2 guessers; perception 1 of 10 categories, at most 200",
        "ceiling": "baseline: ceiling; perception 1 of 10 categories, at most 200",
    }
    assert passport.details == "perception 1 of 10 categories, at most 200"
    assert not any("cognition" in name for name in values)  # never asked is not 0 points
    path = tmp_path / "predictions" / "world_mme.jsonl"
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert kept[2] == {**rows[2], "prompt": "c ?", "prediction": "Yes."}
    again = score_predictions([path], answer_metric("world_mme"))
    assert again["perception"] == values["test/world_mme_perception"]
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DataError, match=r"world_mme.jsonl, line 4 is cut short; evaluate again"):
        score_predictions([path], answer_metric("world_mme"))
    path.write_text(json.dumps({"prediction": "yes", "question_id": "1"}) + "\n")
    with pytest.raises(
        DataError, match=r"world_mme.jsonl: A question of MME's rule .* has no 'answer'"
    ):
        score_predictions([path], answer_metric("world_mme"))


def test_what_was_asked_without_images_says_so(tmp_path, monkeypatch) -> None:
    def batch(name: str, **more) -> QuestionBatch:
        images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
        return QuestionBatch(
            images, ["a ?", "b ?"], [["yes"], ["no"]], ["shape"] * 2, benchmark=name, **more
        )

    class Blind(Artist):
        def test_step(self, batch, batch_idx: int):
            return AnswerOutput(["yes", "no"], images_shown=False)

    rows = [
        {"question_id": "0", "category": "shape", "question": "?", "answer": truth}
        for truth in ("Yes", "No")
    ]
    batches = [
        batch("vqa", chance=[0.5, 0.5]),
        *(batch(f"pope_{setting}") for setting in ("random", "popular", "adversarial")),
        batch("world_mme", rows=rows, baselines={"ceiling": [["yes"], ["no"]]}),
    ]
    captions = []
    monkeypatch.setattr(
        "vilau.callbacks.question_answering.captioned",
        lambda images, texts, columns: (
            captions.append(texts) or torch.zeros(3, 8, 8, dtype=torch.uint8)
        ),
    )
    callback = QuestionAnswering()
    trainer(tmp_path, callback).test(Blind(), loader(*batches), verbose=False)
    details = {
        name: callback.passports[f"test/{name}"].details
        for name in (
            "vqa_accuracy", "vqa_exact", "vqa_chance", "pope_random_f1", "pope_mean_f1", "world_mme_perception",
            "world_mme_perception_ceiling",
        )
    }  # fmt: skip
    part = "perception 1 of 10 categories, at most 200"
    assert details == {
        "vqa_accuracy": WITHOUT_IMAGES,
        "vqa_exact": WITHOUT_IMAGES,
        "vqa_chance": "baseline: chance",
        "pope_random_f1": WITHOUT_IMAGES,
        "pope_mean_f1": f"{WITHOUT_IMAGES}, mean over the settings",
        "world_mme_perception": f"{WITHOUT_IMAGES}; {part}",
        "world_mme_perception_ceiling": f"baseline: ceiling; {part}",
    }
    assert captions[0][1] == "b ?\ntruth: no\nanswer without the image: no"
    (first, _) = (tmp_path / "predictions" / "world_mme.jsonl").read_text().splitlines()
    assert json.loads(first)["images_shown"] is False
    # The callback forgets it with the next model.
    trainer(tmp_path, callback).test(Artist(["yes", "no"]), loader(batches[0]), verbose=False)
    assert callback.passports["test/vqa_accuracy"].details == ""
    assert "images_shown" not in (tmp_path / "predictions" / "vqa.jsonl").read_text()


def test_clips_with_other_frames_are_other_questions(tmp_path) -> None:
    found = []
    for last in (0, 9):
        images = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
        images[2] += last
        batch = QuestionBatch(
            images,
            ["a ?"],
            [["left"]],
            ["direction"],
            "world_msvd_qa",
            rows=[{"answer": "left", "type": "direction"}],
            frames=[3],
        )
        callback = QuestionAnswering(num_samples=0)
        trainer(tmp_path, callback).test(Artist(["left"]), loader(batch), verbose=False)
        found.append(callback.passports["test/world_msvd_qa_accuracy"])
    assert found[0].reference != found[1].reference
    assert found[0].num_samples == 1


def red_star(x: float = 32.0) -> Scene:
    return Scene((Thing("star", "red", "large", "solid", x, 32.0, 10.0),), "grass", 64)


def test_skills_are_judged_beside_random_and_empty_pictures(tmp_path) -> None:
    has = Requirement("has", {"shape": "star", "color": "red"})
    none = Requirement("count", {"shape": "ring"}, op="==", value=0)
    part = Requirement("part", {"shape": "star"}, {"kind": "dot", "color": "blue"})
    wrong = Requirement("has", {"shape": "moon"})
    batch = PromptBatch(
        prompts=["a", "b", "c"],
        requirements=[requirements_to_json(r) for r in ((has, none), (wrong, none), (has, part))],
        skills=[["negation", "advanced"], ["negation", "advanced"], ["part relation", "basic"]],
        benchmark="world_genai",
        baselines={"random_scene": [(0.1, 0.5)] * 3, "empty_image": [(0.0, 0.5)] * 3},
    )
    callback = SkillScores()
    model = Artist(drawn=pictures(red_star(), red_star(), red_star()))
    (values,) = trainer(tmp_path, callback).test(model, loader(batch), verbose=False)
    assert values["test/world_genai"] == values["test/world_genai/advanced"] == 0.5
    assert values["test/world_genai_soft/negation"] == 0.75
    assert values["test/world_genai_random_scene"] == pytest.approx(0.1)
    assert values["test/world_genai_empty_image"] == 0.0
    assert values["test/world_genai_empty_image_soft"] == 0.5
    assert values["test/world_genai_unjudged"] == pytest.approx(1 / 3)
    assert "test/world_genai/basic" not in values  # the only basic prompt could not be judged
    assert callback.passports.keys() == values.keys()
    assert callback.passports["test/world_genai"].num_samples == 2
    assert callback.passports["test/world_genai_empty_image"].details == "baseline: empty image"
    assert callback.passports["test/world_genai"].features.startswith("drawn-world verifier")
    # Clean pictures: the strict judge says the same.
    assert values["test/world_genai_strict"] == values["test/world_genai_strict/advanced"] == 0.5
    assert values["test/world_genai_strict_soft/negation"] == 0.75
    assert values["test/world_genai_agreement"] == 1.0
    assert callback.passports["test/world_genai_strict"].features == (
        "analysis by synthesis, residual below 0.35"
    )


def blurred(images: torch.Tensor) -> torch.Tensor:
    """What the verifier was trained to see through, and the renderer would not draw."""
    padded = F.pad(images.float(), [3] * 4, mode="replicate")
    return F.conv2d(padded, torch.ones(3, 1, 7, 7) / 49, groups=3).round().to(torch.uint8)


def test_the_strict_judge_takes_nothing_malformed(tmp_path) -> None:
    star = requirements_to_json([Requirement("has", {"shape": "star", "color": "red"})])
    sharp = pictures(red_star(), red_star())
    drawn = torch.cat([sharp[:1], blurred(sharp[1:])])
    world = {"prompts": ["a", "b"], "requirements": [star, star], "skills": [["attribute"]] * 2}
    genai = PromptBatch(**world, benchmark="world_genai")
    mjhq = PromptBatch(
        **world, benchmark="world_mjhq", categories=["attribute"], references=torch.cat([sharp, blurred(sharp)])
    )  # fmt: skip

    class Blurring(Artist):
        def rebuild(self, images: torch.Tensor) -> torch.Tensor:
            return blurred(images)

    callbacks = SkillScores(), CategoryJudge(), GenerationJudge()
    values = {}
    for batch in (genai, mjhq):
        found = trainer(tmp_path, *callbacks).test(
            Blurring(drawn=drawn), loader(batch), verbose=False
        )
        values |= found[0]
    for name in ("world_genai", "world_mjhq_followed", "world_mjhq_followed_reconstruction"):
        assert values[f"test/{name}"] == 1.0
    assert values["test/draw_prompt_exact"] == 1.0
    assert values["test/world_genai_strict"] == values["test/world_genai_agreement"] == 0.5
    assert values["test/draw_strict"] == values["test/draw_agreement"] == 0.5
    assert values["test/world_mjhq_followed_strict/attribute"] == 0.5
    assert values["test/world_mjhq_followed_real_strict"] == 1.0
    assert values["test/world_mjhq_followed_real_agreement/attribute"] == 1.0
    assert values["test/world_mjhq_followed_reconstruction_strict"] == 0.0
    assert values["test/world_mjhq_followed_random_scene_strict"] == 0.0
    passport = callbacks[1].passports["test/world_mjhq_followed_reconstruction_strict/attribute"]
    assert passport.features.startswith("analysis by synthesis")
    assert passport.details.startswith("ceiling")
    both = callbacks[2].passports["test/draw_agreement"].features
    assert both.startswith("drawn-world verifier")
    assert both.endswith("residual below 0.35")


def test_fid_by_category_stands_beside_both_floors(tmp_path) -> None:
    real = pictures(*(scene_at("test", index) for index in range(12)))
    other = pictures(*(scene_at("val", index) for index in range(12)))
    batches = [
        PromptBatch(
            prompts=["a"] * 6, requirements=["[]"] * 6, skills=[["x y"], ["z"]] * 3, categories=["x y", "z"],
            references=torch.cat([real[six], other[six]]), benchmark="world_mjhq", first_index=six.start,
        )
        for six in (slice(0, 6), slice(6, 12))
    ]  # fmt: skip

    class Copies(Artist):
        def test_step(self, batch, batch_idx: int):
            return DrawingOutput(batch.references[: len(batch.prompts)])

    callback = CategoryFID()
    (values,) = trainer(tmp_path, callback).test(Copies(), loader(*batches), verbose=False)
    for tail in ("", "/x_y", "/z"):
        assert values[f"test/world_mjhq_fid{tail}"] == pytest.approx(0.0, abs=1e-3)
        assert values[f"test/world_mjhq_fid_floor{tail}"] > 0.1
        assert values[f"test/world_mjhq_fid_rebuilt{tail}"] > 0.1
    assert callback.passports["test/world_mjhq_fid"].num_samples == 12
    assert callback.passports["test/world_mjhq_fid/z"].num_samples == 6
    assert callback.passports["test/world_mjhq_fid_floor"].details.startswith("floor: other real")
    for tail, number in (("", 12), ("/z", 6)):
        details = callback.passports[f"test/world_mjhq_fid{tail}"].details
        assert f"covariance lacks rank: {number} images for" in details

    with pytest.raises(DataError, match="Toy has no `rebuild`, which CategoryFID asks for"):
        trainer(tmp_path, CategoryFID()).test(Toy(), loader(batches[0]), verbose=False)
    batches[0].references = real[:6]
    with pytest.raises(DataError, match="came without two real pictures for each prompt"):
        trainer(tmp_path, CategoryFID()).test(Copies(), loader(batches[0]), verbose=False)


def test_prompts_of_categories_are_judged(tmp_path) -> None:
    star = requirements_to_json([Requirement("has", {"shape": "star", "color": "red"})])
    grass = requirements_to_json([Requirement("background", word="grass")])
    real = pictures(red_star(), red_star(), red_star(), red_star())
    batch = PromptBatch(
        prompts=["a", "b", "c", "d"], requirements=[star, star, grass, star],
        skills=[["attribute"], ["attribute"], ["spatial relation"], ["attribute"]],
        references=torch.cat([real, pictures(*(scene_at("val", i, level="easy") for i in range(4)))]),
        benchmark="world_mjhq", categories=["attribute", "spatial relation"],
    )  # fmt: skip
    nothing = pictures(Scene((), "black", 64))

    class Faithful(Artist):
        def rebuild(self, images: torch.Tensor) -> torch.Tensor:
            return images

    callback = CategoryJudge()
    model = Faithful(drawn=torch.cat([real[:1], nothing, real[:2]]))
    other = SkillScores()  # of another twin
    (values,) = trainer(tmp_path, callback, other).test(model, loader(batch), verbose=False)
    assert not other.passports
    assert values["test/world_mjhq_followed"] == 0.75
    assert values["test/world_mjhq_followed/attribute"] == pytest.approx(2 / 3)
    assert values["test/world_mjhq_followed/spatial_relation"] == 1.0
    assert values["test/world_mjhq_followed_random_scene"] < 0.5
    assert values["test/world_mjhq_followed_reconstruction/attribute"] == 1.0
    assert callback.passports.keys() == values.keys()
    assert callback.passports["test/world_mjhq_followed/attribute"].num_samples == 3
    ceiling = callback.passports["test/world_mjhq_followed_reconstruction"]
    assert ceiling.details.startswith("ceiling: the tower's reconstructions")
    with pytest.raises(DataError, match="Toy has no `rebuild`, which CategoryJudge asks for"):
        trainer(tmp_path, CategoryJudge()).test(Toy(), loader(batch), verbose=False)


def test_the_distance_equals_torchmetrics() -> None:
    one, two = (pictures(*(scene_at(split, i) for i in range(8))) for split in ("test", "val"))
    ours, theirs = CategoryFrechet(("a", "b"), ["x", "y"]), FrechetDistance()
    ours.update(one, ["x"] * 5 + ["y"] * 3, "a")
    ours.update(two, ["y"] * 8, "b")
    theirs.update(one, real=True)
    theirs.update(two, real=False)
    assert float(ours.distance("b", "a")) == pytest.approx(float(theirs.compute()), rel=1e-4)
    assert ours.distance("b", "a", "x") is None
    with pytest.raises(DataError, match="of category 'w'; write one of x, y"):
        ours.update(one[:1], ["w"], "a")


def test_clips_are_judged_frame_by_frame(tmp_path) -> None:
    thing = red_star(22.0).things[0]
    clip = Clip(Scene((thing,), "grass", 64), (Motion("move", "right", "slow", 0, 8),), 8)
    moving = torch.from_numpy(render_clip(clip)).permute(0, 3, 1, 2)
    prompts = [ClipPrompt("", "action", (), {"shape": "star"}, way) for way in ("right", "left")]
    batch = ClipPromptBatch(
        ["a", "b"], [prompt.to_json() for prompt in prompts],
        baselines={"still_clip": [{"dynamic_degree": 0.0, "action": 0.0}] * 2},
    )  # fmt: skip
    callback = ClipQuality()
    model = Artist(drawn=torch.stack([moving, moving]))
    (values,) = trainer(tmp_path, callback).test(model, loader(batch), verbose=False)
    assert values["test/world_vbench/action"] == 0.5
    assert values["test/world_vbench/dynamic_degree"] == 1.0
    assert values["test/world_vbench/subject_consistency"] == 1.0
    assert values["test/world_vbench_still_clip/dynamic_degree"] == 0.0
    assert values["test/world_vbench_total"] == pytest.approx(
        (4 * values["test/world_vbench_quality"] + values["test/world_vbench_semantic"]) / 5
    )
    assert callback.passports.keys() == values.keys()
