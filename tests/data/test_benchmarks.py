from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vilau.data.benchmarks import WorldBenchmarks
from vilau.data.media.images import open_rgb
from vilau.data.world_data import WorldSpec, world_set
from vilau.errors import ConfigError
from vilau.types import PromptBatch, QuestionBatch
from vilau.world.judge import requirements_from_json
from vilau.world.questions import questions
from vilau.world.scene import Scene, held_out, stream_rng

ORDER = ["vqa", "vqa_comp", "pope_random", "pope_popular", "pope_adversarial"]


@pytest.fixture(scope="module")
def benchmarks(world: WorldSpec) -> WorldBenchmarks:
    return ready(world)


def ready(world: WorldSpec, **options: object) -> WorldBenchmarks:
    sizes = {
        "num_questions": 120, "num_comp_questions": 40, "num_pope_questions": 60,
        "num_prompts": 21, "num_references": 50, "global_batch_size": 16,
    }  # fmt: skip
    data = WorldBenchmarks(world=world, **(sizes | options))
    data.prepare_data()
    data.setup("test")
    return data


def test_loaders_come_in_order_with_the_asked_numbers(benchmarks: WorldBenchmarks) -> None:
    loaders = benchmarks.test_dataloader()
    batches = [list(loader) for loader in loaders]
    assert [found[0].benchmark for found in batches[:5]] == ORDER
    numbers = [sum(len(b.questions) for b in found) for found in batches[:5]]
    assert numbers == [120, 40, 60, 60, 60]
    for batch in (b for found in batches[:5] for b in found):
        assert isinstance(batch, QuestionBatch)
        sizes = {len(batch.images), len(batch.questions), len(batch.answers), len(batch.families)}
        assert sizes == {len(batch.chance), len(batch.blind_answers)}
        assert all(0 < chance <= 0.5 for chance in batch.chance)
        assert all(batch.blind_answers)


def test_what_has_number_zero_is_left_out(world: WorldSpec) -> None:
    data = ready(world, num_comp_questions=0, num_pope_questions=0, num_prompts=0)
    (loader,) = data.test_dataloader()
    assert next(iter(loader)).benchmark == "vqa"


def test_answers_are_the_truth_about_the_shown_image(
    benchmarks: WorldBenchmarks, world: WorldSpec
) -> None:
    tests = world_set(world, "test", image_size=64)
    truth = {}
    for record in tests.read(range(len(tests))):
        truth[np.asarray(open_rgb(record.image)).tobytes()] = Scene.from_json(record.scene)
    checked = 0
    for batch in benchmarks.test_dataloader()[0]:
        for row, image in enumerate(batch.images):
            scene = truth[image.permute(1, 2, 0).numpy().tobytes()]
            known = {}
            for number in range(20):
                asked = questions(scene, stream_rng("check", number))
                known |= {question.question: question.answer for question in asked}
            if batch.questions[row] in known:
                assert [known[batch.questions[row]]] == batch.answers[row]
                checked += 1
    assert checked > 100


def test_comp_questions_are_about_held_out_combinations(
    benchmarks: WorldBenchmarks, world: WorldSpec
) -> None:
    source = benchmarks.question_sets[1].source
    assert all(held_out(Scene.from_json(record.scene)) for record in source.read(range(5)))


def test_pope_asks_as_often_for_what_is_there(benchmarks: WorldBenchmarks) -> None:
    by_mode = {}
    for loader in benchmarks.test_dataloader()[2:5]:
        pairs = [(q, a) for b in loader for q, (a,) in zip(b.questions, b.answers, strict=True)]
        assert [answer for _, answer in pairs].count("yes") == 30
        by_mode[len(by_mode)] = pairs
    yes = [[q for q, a in pairs if a == "yes"] for pairs in by_mode.values()]
    no = [[q for q, a in pairs if a == "no"] for pairs in by_mode.values()]
    assert yes[0] == yes[1] == yes[2]
    assert no[0] != no[1] != no[2]


def test_prompts_with_requirements_and_references(
    benchmarks: WorldBenchmarks, world: WorldSpec
) -> None:
    batches = list(benchmarks.test_dataloader()[5])
    assert all(isinstance(batch, PromptBatch) for batch in batches)
    assert [batch.first_index for batch in batches] == [0, 11]
    texts = [text for batch in batches for text in batch.prompts]
    assert len(texts) == 21
    skills = {batch.skills[row][0] for batch in batches for row in range(len(batch.prompts))}
    assert "part relation" not in skills  # level base draws no parts
    assert {"attribute", "scene", "spatial relation", "counting", "negation"} <= skills
    for batch in batches:
        assert all(requirements_from_json(text) for text in batch.requirements)
    references = torch.cat([batch.references for batch in batches])
    tests = world_set(world, "test", image_size=64)
    expected = [np.asarray(open_rgb(record.image)) for record in tests.read(range(50))]
    assert (references.permute(0, 2, 3, 1).numpy() == np.stack(expected)).all()


def test_all_is_decided_by_the_seed(benchmarks: WorldBenchmarks, world: WorldSpec) -> None:
    again, other = ready(world), ready(world, seed=1)

    def content(data: WorldBenchmarks) -> list[object]:
        asked = [(s.questions, s.blind_answers) for s in data.question_sets]
        return [*asked, data.prompt_set.prompts]

    assert content(again) == content(benchmarks)
    assert all(a != b for a, b in zip(content(other), content(benchmarks), strict=True))


def test_baselines(benchmarks: WorldBenchmarks) -> None:
    found = benchmarks.baselines()
    for name in ORDER:
        assert found[f"{name}/ceiling"] == 1.0
        assert 0.0 <= found[f"{name}/blind"] <= 1.0
    assert found["vqa/count/chance"] == pytest.approx(1 / 7)
    assert found["pope_random/chance"] == 0.5
    chance = [c for batch in benchmarks.test_dataloader()[0] for c in batch.chance]
    assert found["vqa/chance"] == pytest.approx(np.mean(chance))
    right = [
        guess in answers
        for batch in benchmarks.test_dataloader()[0]
        for guess, answers in zip(batch.blind_answers, batch.answers, strict=True)
    ]
    assert found["vqa/blind"] == pytest.approx(np.mean(right))


def test_the_prior_misleads_in_the_harder_modes_of_pope(world: WorldSpec) -> None:
    found = ready(
        replace(world, num_train=600), num_pope_questions=240, num_questions=0,
        num_comp_questions=0, num_prompts=0,
    ).baselines()  # fmt: skip
    assert found["pope_random/blind"] > 0.58
    assert found["pope_popular/blind"] < 0.45


def test_senseless_settings(world: WorldSpec) -> None:
    with pytest.raises(ConfigError, match=r"num_references is 90 but data.world.num_test only 60"):
        ready(world, num_references=90)
    with pytest.raises(
        ConfigError, match=r"The vqa questions run out at \d+ of 900 over 60 scenes"
    ):
        ready(world, num_questions=900)
    with pytest.raises(ConfigError, match=r"data.world.level is 'odd'; write one of easy"):
        ready(replace(world, level="odd"))
    with pytest.raises(ConfigError, match=r"skill is 'juggling'"):
        ready(world, skills=("juggling",))
