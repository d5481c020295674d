"""The twins' question sets: columns of the originals, guessers, determinism; and the data module."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from vilau.data.twin_benchmarks import TwinBenchmarks
from vilau.data.twins.prompts import genai_set, mjhq_set, vbench_set
from vilau.data.twins.sets import NUM_GUESSERS, TWINS, Prior, TwinSet, twin_set
from vilau.data.world_data import WorldSpec
from vilau.errors import ConfigError
from vilau.metrics.answers import TWINS as SCORED
from vilau.metrics.answers import answer_metric
from vilau.types import ClipPromptBatch, PromptBatch, QuestionBatch
from vilau.world.families import Question
from vilau.world.judge import requirements_from_json, satisfied
from vilau.world.render import render
from vilau.world.snapshots import Snapshot

COLUMNS = {
    "world_vqav2": {"question_id", "question", "answers"},
    "world_gqa": {"id", "question", "answer"},
    "world_textvqa": {"question_id", "question", "answers", "ocr_tokens"},
    "world_pope": {"question_id", "question", "answer", "category"},
    "world_mme": {"question_id", "category", "question", "answer"},
    "world_seedbench": {"question", "choice_a", "choice_d", "answer", "data_type", "question_type_id"},
    "world_seedbench_ranked": {"question", "choice_a", "choice_d", "answer", "data_type", "question_type_id"},
    "world_mmvet": {"question", "answer", "capability"},
    "world_mmbench": {"index", "question", "hint", "A", "B", "C", "D", "answer", "category", "L2-category"},
    "world_scienceqa": {"question", "choices", "answer", "hint"},
    "world_ok_vqa": {"question", "answers"},
    "world_vizwiz_vqa": {"question_id", "question", "answers"},
}  # fmt: skip


def small(name: str, world: WorldSpec, num: int = 36, **options: int) -> TwinSet:
    return twin_set(name, world, num, image_size=64, **({"num_prior": 30} | options))


def scored(twin: TwinSet, said: list[str]) -> dict[str, float]:
    metric = answer_metric(twin.benchmark)
    metric.update_rows(said, [asked.row for asked in twin.asked])
    return {name: float(value) for name, value in metric.compute().items()}


@pytest.mark.parametrize("name", TWINS)
def test_who_sees_all_gets_full_marks_and_guessers_do_not(name: str, world: WorldSpec) -> None:
    twin = small(name, world, 24 if name == "world_textvqa" else 60)
    assert COLUMNS.get(name, {"question", "answer", "type"}) <= set(twin.asked[0].row)
    headlines = {"world_mme": "perception", "world_mmvet": "score"}
    headline = "all" if "seedbench" in name else headlines.get(name, "accuracy")
    best = scored(twin, [said for (said,) in twin.baselines["ceiling"]])[headline]
    assert best == (1800.0 if name == "world_mme" else 1.0)
    assert scored(twin, [said for (said,) in twin.baselines["blind"]])[headline] < 0.8 * best
    guessers = list(zip(*twin.baselines["chance"], strict=True))
    assert len(set(guessers)) == (
        1 if name == "world_mmvet" else NUM_GUESSERS
    )  # no answers to draw from
    assert np.mean([scored(twin, list(said))[headline] for said in guessers]) < 0.8 * best
    again, other = small(name, world, len(twin.asked)), small(name, world, len(twin.asked), seed=1)
    assert [asked.row for asked in again.asked] == [asked.row for asked in twin.asked]
    assert again.baselines == twin.baselines
    if name != "world_msvd_qa":  # about one thing, a clip has one question of each family
        assert [asked.row for asked in other.asked] != [asked.row for asked in twin.asked]


def test_pictures_of_the_blind_are_blurred_dark_cropped_or_show_something_else(
    world: WorldSpec,
) -> None:
    twin = small("world_vizwiz_vqa", world, 80)
    kinds = Counter(asked.question.family for asked in twin.asked)
    assert kinds == {"blurred": 20, "dark": 20, "cropped": 20, "unanswerable": 20}
    for number, asked in enumerate(twin.asked):
        snapshot = asked.shown
        assert isinstance(snapshot, Snapshot)
        picture, sharp = twin.pictures(number)[0], render(snapshot.scene)
        assert picture.shape == sharp.shape
        assert (picture != sharp).any()
        things = snapshot.scene.things
        meant = [
            n
            for n, thing in enumerate(things)
            if asked.prompt
            in (f"what color is the {thing.shape} ?", f"what shape is the {thing.color} thing ?")
        ]
        assert len(meant) == 1  # nothing else can be meant
        without = replace(snapshot.scene, things=things[: meant[0]] + things[meant[0] + 1 :])
        gone = replace(snapshot, scene=without).pixels
        assert (gone == picture).all() == (snapshot.kind == "unanswerable")
        if snapshot.kind == "cropped":  # all of the thing is in the window
            left, top, side = snapshot.window
            rows, columns, _ = (sharp != render(without)).nonzero()
            assert (rows.min(), columns.min()) >= (top, left)
            assert max(rows.max() - top, columns.max() - left) < side
        if snapshot.kind == "blurred" and "shape" in asked.prompt:
            assert things[meant[0]].size != "small"
        truth = "unanswerable" if snapshot.kind == "unanswerable" else things[meant[0]]
        assert asked.question.answer in (
            truth if isinstance(truth, str) else (truth.color, truth.shape)
        )
        assert asked.question.choices[-1] == "unanswerable"
        assert all(" unanswerable" not in one["answer"] for one in asked.row["answers"])


def test_every_twin_has_a_score() -> None:
    assert set(SCORED) == set(TWINS)


def test_batches_show_what_the_questions_are_about(world: WorldSpec) -> None:
    twin = small("world_seedbench", world)
    kinds = [asked.row["data_type"] for asked in twin.asked]
    assert set(kinds) == {"image", "video"}
    batch = twin(0, np.arange(len(twin)))
    assert isinstance(batch, QuestionBatch)
    assert batch.frames == [8 if kind == "video" else 1 for kind in kinds]
    assert len(batch.images) == sum(batch.frames)
    assert batch.rows == [asked.row for asked in twin.asked]
    first = kinds.index("image")
    image = batch.images[sum(batch.frames[:first])].permute(1, 2, 0).numpy()
    assert (image == render(twin.asked[first].shown)).all()  # type: ignore[arg-type]
    assert batch.questions[first].endswith(
        "\nAnswer with the option's letter from the given choices directly."
    )
    # A set without clips says nothing of frames.
    assert small("world_gqa", world)(0, np.arange(4)).frames == []


def test_options_that_are_ranked_are_not_shown(world: WorldSpec) -> None:
    shown, ranked = (small(name, world) for name in ("world_seedbench", "world_seedbench_ranked"))
    assert [one.row for one in ranked.asked] == [one.row for one in shown.asked]
    assert ranked.baselines == shown.baselines
    batch = ranked(0, np.arange(len(ranked)))
    assert batch.questions == [row["question"] for row in batch.rows]
    assert batch.options == [[row[f"choice_{c}"] for c in "abcd"] for row in batch.rows]
    assert shown(0, np.arange(4)).options == []


def test_annotators_are_told_apart_and_pope_asks_in_three_settings(world: WorldSpec) -> None:
    answers = small("world_vqav2", world).asked[0].row["answers"]
    assert [one["answer_id"] for one in answers] == list(range(1, 11))
    settings = Counter(asked.row["category"] for asked in small("world_pope", world).asked)
    assert len(set(settings.values())) == 1
    assert len(settings) == 3
    pairs = Counter(asked.row["question_id"] for asked in small("world_mme", world).asked)
    assert set(pairs.values()) == {2}


def test_what_a_batch_tells_of_clips_does_not_depend_on_its_companions(world: WorldSpec) -> None:
    twin = small("world_seedbench", world)
    still = [n for n in range(len(twin)) if len(twin.pictures(n)) == 1][:2]
    assert twin(0, np.array(still)).frames == [1, 1]
    assert small("world_gqa", world, 4)(0, np.arange(2)).frames == []


def test_longer_clips_are_seen_in_as_many_frames(world: WorldSpec) -> None:
    twin = small("world_activitynetqa", world, 6, num_frames=4)
    assert twin.asked[0].shown.num_frames == 16  # type: ignore[union-attr]
    assert twin(0, np.arange(2)).frames == [4, 4]


def test_the_blind_know_the_text_then_the_family_then_the_alphabet() -> None:
    choices = ("a", "b", "c")
    taught = [
        Question("f", "x ?", "b", choices),
        Question("f", "y ?", "c", choices),
        Question("f", "y ?", "c", choices),
    ]
    prior = Prior(taught)
    assert prior.guess(Question("f", "x ?", "a", choices)) == "b"
    assert prior.guess(Question("f", "z ?", "a", choices)) == "c"
    assert prior.guess(Question("g", "z ?", "b", ("b", "a"))) == "a"
    assert prior.guess(Question("f", "x ?", "a", ("a", "c"))) == "c"


# ------------------------------------------------------------------ what is to be drawn


def test_genai_prompts_with_their_baselines(world: WorldSpec) -> None:
    found = genai_set(world, image_size=64, seed=0)
    assert len(found) + found.left_out == 527
    batch = found(0, np.arange(3, 7))
    assert isinstance(batch, PromptBatch)
    assert (batch.benchmark, batch.first_index, len(batch.baselines["random_scene"])) == (
        "world_genai",
        3,
        4,
    )
    assert all(exact == 0.0 for exact, _ in found.baselines["empty_image"])
    soft = [
        s
        for p, (_, s) in zip(found.prompts, found.baselines["empty_image"], strict=True)
        if "negation" in p.skills
    ]
    assert np.mean(soft) > 0.3  # why the soft score is no headline
    assert 0.0 <= np.mean([exact for exact, _ in found.baselines["random_scene"]]) < 0.05
    full = genai_set(replace(world, level="hard"), image_size=64, seed=0)
    assert (len(full), full.left_out) == (527, 0)


def test_mjhq_prompts_are_true_of_their_real_pictures(world: WorldSpec) -> None:
    found = mjhq_set(
        world, 12, image_size=64, seed=0, categories=("attribute", "counting", "universal")
    )
    for prompt, category, real in zip(found.prompts, found.categories, found.real, strict=True):
        assert category in prompt.skills
        assert satisfied(real, prompt.requirements)
    batch = found(0, np.arange(5))
    assert batch.references is not None
    assert batch.references.shape == (10, 3, 64, 64)
    assert batch.categories == ["attribute", "counting", "universal"]
    assert batch.skills == [["attribute"], ["counting"], ["universal"], ["attribute"], ["counting"]]
    assert (batch.references[5].permute(1, 2, 0).numpy() == render(found.other[0])).all()
    assert all(requirements_from_json(text) for text in batch.requirements)


def test_vbench_prompts_with_real_and_still_clips(world: WorldSpec) -> None:
    found = vbench_set(world, 18, image_size=64, num_frames=8, seed=0)
    batch = found(0, np.arange(9))
    assert isinstance(batch, ClipPromptBatch)
    assert batch.num_frames == 8
    still = found.baselines["still_clip"]
    assert all(
        scores["dynamic_degree"] == 0.0 and scores["temporal_flickering"] == 1.0 for scores in still
    )
    assert any(scores["dynamic_degree"] for scores in found.baselines["random_clip"])
    movers = [n for n, prompt in enumerate(found.prompts) if prompt.mover is not None]
    assert all(still[n][found.prompts[n].dimension] == 0.0 for n in movers)


# ------------------------------------------------------------------ the data module


def test_the_module_gives_a_loader_per_name(world: WorldSpec) -> None:
    names = ("world_gqa", "world_genai", "world_mjhq", "world_vbench")
    data = TwinBenchmarks(names, world=world, num_questions=10, num_prompts=8, genai_prompts=12,
                          num_prior_scenes=5, global_batch_size=4)  # fmt: skip
    data.prepare_data()
    sets = data.sets
    data.setup("test")
    assert data.sets is sets  # asked once
    kinds = [type(next(iter(loader))) for loader in data.test_dataloader()]
    assert kinds == [QuestionBatch, PromptBatch, PromptBatch, ClipPromptBatch]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"benchmarks": ("world_pop",)},
            "data.benchmarks holds 'world_pop'. Did you mean 'world_pope'?",
        ),
        ({"benchmarks": ("world_gqa", "world_gqa")}, "data.benchmarks holds 'world_gqa' twice"),
        ({"benchmarks": ()}, "data.benchmarks is empty; write some of world_vqav2"),
        ({"num_questions": 0}, "data.num_questions is 0; write at least 1"),
    ],
)
def test_senseless_settings(settings: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence.replace("?", r"\?")):
        TwinBenchmarks(**settings)


def test_a_level_without_the_questions_is_refused(
    world: WorldSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vilau.data.twins.sets.MAX_BARREN", 15)
    monkeypatch.setitem(TWINS, "world_textvqa", replace(TWINS["world_textvqa"], level="easy"))
    with pytest.raises(
        ConfigError, match="world_textvqa questions run out at 0 of 36: 15 scenes of level easy"
    ):
        small("world_textvqa", world)
