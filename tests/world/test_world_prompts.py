"""Prompts and the judge of scenes."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from vilau.errors import ConfigError, DataError
from vilau.world.judge import (
    Requirement,
    judge,
    requirements_from_json,
    requirements_to_json,
    satisfied,
)
from vilau.world.prompts import SKILLS, asks_held_out, describe, sample_prompt, true_prompt
from vilau.world.scene import LEVELS, Scene, Thing, scene_at


def thing(color: str, shape: str, x: float, y: float = 30.0, radius: float = 7.0) -> Thing:
    size = "small" if radius < 6 else "medium" if radius < 9 else "large"
    return Thing(shape, color, size, "solid", x, y, radius)


RED_STAR, BLUE_RING = thing("red", "star", 15.0), thing("blue", "ring", 45.0, radius=10.0)
SCENE = Scene((RED_STAR, BLUE_RING), "sea", 64)
RED, RING = {"color": "red", "shape": "star"}, {"color": "blue", "shape": "ring"}


@pytest.mark.parametrize("level", list(LEVELS))
def test_true_prompts_are_satisfied_by_their_scene(level: str) -> None:
    skills: Counter[str] = Counter()
    for index in range(400):
        scene = scene_at("val", index, level=level, held_out="any")
        prompt = describe(scene, random.Random(index))
        assert satisfied(scene, prompt.requirements), (scene, prompt)
        assert true_prompt(scene, random.Random(index)) == prompt.text
        skills[prompt.skills[0]] += 1
    parts = {"part relation", "action relation"} if level != "hard" else set()
    assert set(skills) >= set(SKILLS) - parts - {"universal", "differentiation"}


def test_true_prompts_of_lone_things_are_plain_phrases() -> None:
    texts = set()
    for index in range(200):
        scene = scene_at("val", index, num_objects=(1, 1))
        (one,) = scene.things
        texts.add(true_prompt(scene, random.Random(index)).replace(f"{one.color} {one.shape}", "X"))
    assert {"a X", "an X", "one X", "a large X", "a X on sea"} <= texts


@pytest.mark.parametrize("skill", SKILLS)
def test_random_scenes_and_empty_pictures_rarely_satisfy_a_prompt(skill: str) -> None:
    rng = random.Random(skill)
    right = soft = empty_soft = 0.0
    for index in range(300):
        scene = scene_at("test", index, held_out="any")
        prompt = sample_prompt(rng, skill, LEVELS["base"])
        assert prompt.skills[0] == skill
        assert set(prompt.skills) <= set(SKILLS)
        empty = replace(scene, things=())
        assert not satisfied(empty, prompt.requirements)
        verdicts = judge(scene, prompt.requirements)
        assert all(verdicts) == satisfied(scene, prompt.requirements)
        right += all(verdicts) / 300
        soft += sum(verdicts) / len(verdicts) / 300
        empty_verdicts = judge(empty, prompt.requirements)
        empty_soft += sum(empty_verdicts) / len(empty_verdicts) / 300
    assert right < 0.05
    if skill == "negation":  # half of its requirements hold where nothing is drawn
        assert soft > 0.3
        assert empty_soft == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [
        (Requirement("has", RED), True),
        (Requirement("has", {**RED, "size": "large"}), False),
        (Requirement("count", {"shape": "star"}, op="==", value=1), True),
        (Requirement("count", {}, op=">=", value=3), False),
        (Requirement("count", {"shape": "moon"}, op="==", value=0), True),
        (Requirement("count", {}, op="<=", value=2), True),
        (Requirement("relation", RED, RING, word="left of"), True),
        (Requirement("relation", RING, RED, word="left of"), False),
        (Requirement("relation", RED, RING, word="above"), False),
        (Requirement("touching", RED, RING), False),
        (Requirement("larger", RING, RED), True),
        (Requirement("larger", RED, RING), False),
        (Requirement("more_than", {"shape": "star"}, {"shape": "moon"}), True),
        (Requirement("more_than", {"shape": "star"}, {"shape": "ring"}), False),
        (Requirement("background", word="sea"), True),
        (Requirement("background", word="grass"), False),
        (Requirement("part", RED, {"kind": "dot", "color": "cyan"}), False),
        (Requirement("all_are", {"color": "red"}), False),
        (Requirement("all_are", {}), True),
    ],
)
def test_each_kind_of_requirement(requirement: Requirement, expected: bool) -> None:
    assert judge(SCENE, [requirement]) == [expected]


def test_touching_parts_and_universals() -> None:
    near = replace(SCENE, things=(RED_STAR, replace(BLUE_RING, x=31.0)))
    assert satisfied(near, [Requirement("touching", RED, RING)])
    dotted = replace(SCENE, things=(replace(RED_STAR, part=("dot", "cyan")),))
    assert satisfied(dotted, [Requirement("part", RED, {"kind": "dot", "color": "cyan"})])
    assert not satisfied(dotted, [Requirement("part", RED, {"kind": "border", "color": "cyan"})])
    assert satisfied(dotted, [Requirement("all_are", {"color": "red"})])
    assert not satisfied(replace(SCENE, things=()), [Requirement("all_are", {"color": "red"})])


def test_a_relation_needs_two_things_and_half_the_margin_of_a_truth() -> None:
    alone = replace(SCENE, things=(RED_STAR,))
    assert not satisfied(alone, [Requirement("relation", RED, RED, word="left of")])
    beside = replace(SCENE, things=(RED_STAR, replace(BLUE_RING, x=18.0)))
    assert satisfied(beside, [Requirement("relation", RED, RING, word="left of")])
    assert not satisfied(
        replace(beside, image_size=128), [Requirement("relation", RED, RING, word="left of")]
    )


def test_prompt_texts() -> None:
    texts = {skill: sample_prompt(random.Random(3), skill, LEVELS["base"]).text for skill in SKILLS}
    assert texts["counting"] == "four yellow triangles"
    assert texts["negation"] == "a yellow triangle and no moons"
    assert texts["universal"] == "four things , all of them are yellow"
    expected = "two triangles , one is yellow and the other is purple"
    assert texts["differentiation"] == expected


def test_held_out_prompts_can_be_left_out_or_asked_for() -> None:
    rng = random.Random(0)
    level = LEVELS["base"]
    for skill in ("attribute", "spatial relation", "counting"):
        for _ in range(100):
            assert not asks_held_out(sample_prompt(rng, skill, level, held_out="exclude"))
            assert asks_held_out(sample_prompt(rng, skill, level, held_out="only"))
    assert asks_held_out(sample_prompt(rng, "scene", level, held_out="only"))


def test_requirements_survive_json() -> None:
    rng = random.Random(0)
    for skill in SKILLS:
        for _ in range(30):
            requirements = sample_prompt(rng, skill, LEVELS["hard"]).requirements
            text = requirements_to_json(requirements)
            assert requirements_from_json(text) == requirements
            assert '"op":""' not in text


def test_bad_prompts_and_requirements_are_named() -> None:
    rng, level = random.Random(0), LEVELS["base"]
    with pytest.raises(ConfigError, match="skill is 'counts'; write one of attribute, scene"):
        sample_prompt(rng, "counts", level)
    with pytest.raises(ConfigError, match="held_out is 'some'; write one of exclude, only, any"):
        sample_prompt(rng, "counting", level, held_out="some")
    with pytest.raises(ConfigError, match="held_out is 'only', but 'universal' prompts"):
        sample_prompt(rng, "universal", LEVELS["easy"], held_out="only")
    with pytest.raises(ConfigError, match="the scene is empty"):
        true_prompt(replace(SCENE, things=()), rng)
    for text in ("", "{}]", '[{"colour":"red"}]', "[3]"):
        with pytest.raises(DataError, match="are not a list of requirements"):
            requirements_from_json(text)
    with pytest.raises(DataError, match="kind is 'sees'; write one of has, count"):
        requirements_from_json('[{"kind":"sees"}]')
