"""What the twins of published benchmarks ask about scenes and clips, and how clips are judged."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from vilau.errors import DataError
from vilau.world.annotators import annotate
from vilau.world.choices import (
    OPTIONS,
    VIDEO_DIMENSIONS,
    clip_choice,
    deed,
    hinted_choice,
    possible_dimensions,
    scene_choice,
)
from vilau.world.clip_judge import (
    SEMANTIC,
    ClipPrompt,
    clip_prompt,
    clip_quality,
    clip_total,
    judge_clip,
    tracks,
)
from vilau.world.clip_language import clip_questions, repetition_questions, start_questions
from vilau.world.clip_sampling import clip_at
from vilau.world.clips import Clip, Motion, frames, render_clip, thing_at
from vilau.world.exam import (
    DESCRIBE_CLIP,
    FORMS,
    LETTER_ENDING,
    clip_turns,
    exam_turn,
)
from vilau.world.families import Question, region
from vilau.world.judge import Requirement, requirements_from_json, requirements_to_json, satisfied
from vilau.world.pairs import (
    INVENTED_COLORS,
    PAIR_CATEGORIES,
    invented_facts,
    pair_questions,
    possible_categories,
)
from vilau.world.questions import questions
from vilau.world.scene import LEVELS, Scene, Thing, scene_at
from vilau.world.skill_prompts import can_show, skill_file, skill_prompts
from vilau.world.words import CORNERS, NUMBER_WORDS, PLURAL, noun

SINGULAR = {plural: shape for shape, plural in PLURAL.items()}

# ------------------------------------------------------------------ annotators


def test_annotators_mostly_say_the_truth_and_else_something_near() -> None:
    size = Question("attribute", "what size is the star ?", "medium", ("small", "medium", "large"))
    said = Counter(word for seed in range(300) for word in annotate(size, random.Random(seed)))
    assert (
        0.83 < said["medium"] / said.total() < 0.90
    )  # the first of ten always, the others with 0.85
    assert set(said) == {"small", "medium", "large"}
    count = Question("count", "how many stars are there ?", "0", tuple("0123456"))
    assert {w for seed in range(99) for w in annotate(count, random.Random(seed))} == {"0", "1"}
    color = Question("attribute", "what color is the star ?", "blue", ("red", "blue"))
    words = {w for seed in range(99) for w in annotate(color, random.Random(seed))}
    assert words == {"blue", "dark blue", "light blue", "bright blue"}


# ------------------------------------------------------------------ MME's pairs


def lone(scene: Scene, name: str, word: str) -> Thing:
    (thing,) = [thing for thing in scene.things if getattr(thing, name) == word]
    return thing


def holds(text: str, scene: Scene) -> bool:  # noqa: C901 - a rule per category
    """The answer to a pair's question, found from its words alone."""
    words = text.split()
    if text.startswith("is there a") and words[-2] not in INVENTED_COLORS:
        return any(thing.shape == words[3] for thing in scene.things)
    if "together" in words:
        shapes = [SINGULAR[word] for word in (words[3], words[5])]
        return sum(t.shape in shapes for t in scene.things) == NUMBER_WORDS.index(words[2])
    if text.startswith(("is there", "are there")):
        return sum(
            t.shape == SINGULAR.get(words[3], words[3]) for t in scene.things
        ) == NUMBER_WORDS.index(words[2])
    if text.startswith("if there is"):
        return any(thing.color == words[4] for thing in scene.things)
    if text.startswith("is the background"):
        return scene.background == words[3]
    if text.startswith("does the sign"):
        return scene.sign == words[4]
    if text.startswith("does the"):
        return CORNERS[lone(scene, "color", words[2]).shape] == int(words[5])
    if "thing" in words:
        return lone(scene, "color", words[2]).shape == words[5]
    thing = lone(scene, "shape", words[2])
    if "the" in words[3:] and words[3] != "in":
        other = lone(scene, "shape", words[-2])
        dx, dy = thing.x - other.x, thing.y - other.y
        return {"left": dx < 0, "right": dx > 0, "above": dy < 0, "below": dy > 0}[words[3]]
    if words[3] == "in":
        return region(thing, scene.image_size) == " ".join(words[5:7])
    english = {word: color for color, word in INVENTED_COLORS.items()}
    return english.get(words[3], words[3]) in (thing.color, thing.size, thing.texture)


def test_pairs_are_one_true_and_one_false_question() -> None:
    asked: Counter[str] = Counter()
    for index in range(60):
        scene = scene_at("test", index, level="hard")
        for category in PAIR_CATEGORIES:
            pair = pair_questions(scene, random.Random(index), category, LEVELS["hard"])
            for question, truth in zip(pair or (), (True, False), strict=False):
                assert holds(question.question, scene) is truth, (question, scene)
                assert question.answer == ("yes" if truth else "no")
                asked[category] += 1
    assert set(asked) == set(PAIR_CATEGORIES)
    assert min(asked.values()) >= 10


def test_levels_without_signs_have_no_ocr() -> None:
    assert "OCR" not in possible_categories(LEVELS["base"])
    assert possible_categories(LEVELS["hard"]) == PAIR_CATEGORIES
    assert {"size", "texture"} & set(possible_categories(LEVELS["easy"])) == {"size"}
    assert len(set(invented_facts())) == 8


# ------------------------------------------------------------------ options


def test_the_right_option_is_the_answer_and_all_four_differ() -> None:
    asked: Counter[str] = Counter()
    for index in range(80):
        scene = scene_at("test", index, level="hard")
        every = {q.question: q.answer for seed in range(6)
                 for q in questions(scene, random.Random(seed), level=LEVELS["hard"])}  # fmt: skip
        for dimension in possible_dimensions(LEVELS["hard"]):
            choice = scene_choice(scene, random.Random(index), dimension, LEVELS["hard"])
            if choice is None:
                continue
            options = choice.question.choices
            assert len(set(options)) == OPTIONS
            assert options["ABCD".index(choice.letter)] == choice.question.answer
            if choice.question.question in every:
                assert every[choice.question.question] == choice.question.answer
                asked[dimension] += 1
    assert set(asked) == set(possible_dimensions(LEVELS["hard"])) - {"relation", "action"}


def test_rotations_move_the_options_and_keep_the_answer() -> None:
    choice = scene_choice(scene_at("test", 3), random.Random(0), "scene", LEVELS["base"])
    assert choice is not None
    turned = [choice.rotated(step) for step in range(OPTIONS)]
    assert turned[0] == choice
    assert [one.letter for one in turned] == [
        "ABCD"[("ABCD".index(choice.letter) + step) % OPTIONS] for step in range(OPTIONS)
    ]
    assert {one.question.answer for one in turned} == {choice.question.answer}
    assert turned[1].text().splitlines()[1] == f"A. {choice.question.choices[-1]}"


def test_a_hint_answers_what_the_picture_alone_does_not() -> None:
    scene = scene_at("test", 3)
    choice = hinted_choice(scene, random.Random(0))
    assert choice is not None
    thing = lone(scene, "shape", choice.question.question.split()[3])
    assert f"{thing.color} things are {choice.question.answer}" in choice.hint.split(" , ")
    assert choice.text().startswith("Context: ")


def test_options_about_clips() -> None:
    asked: Counter[str] = Counter()
    for index in range(150):
        clip = clip_at("test", index)
        for dimension in VIDEO_DIMENSIONS:
            choice = clip_choice(clip, random.Random(index), dimension)
            if choice is None:
                continue
            asked[dimension] += 1
            question = choice.question
            assert len(set(question.choices)) == OPTIONS
            if dimension == "procedure":
                _, color, shape, *rest = question.answer.split()
                number = [noun(t) for t in clip.scene.things].index(f"{color} {shape}")
                assert deed(clip.motions[number]) == " ".join(rest)
                busy = [m for m in clip.motions if m.kind != "stay"]
                assert clip.motions[number].start == min(motion.start for motion in busy)
                assert sum(m.start == clip.motions[number].start for m in busy) == 1
            if dimension == "prediction":
                name = " ".join(question.question.split()[3:5])
                number = [noun(t) for t in clip.scene.things].index(name)
                longer = replace(clip.motions[number], end=100)
                motions = (*clip.motions[:number], longer, *clip.motions[number + 1 :])
                # Three frames further on; `num_frames` stays, since speeds are said of it.
                later = thing_at(replace(clip, motions=motions), number, clip.num_frames - 1 + 3)
                assert later is not None
                assert region(later, 64) == question.answer
    assert min(asked.values()) >= 10


def test_training_turns_come_in_all_forms_with_balanced_answers() -> None:
    answers: Counter[str] = Counter()
    forms: Counter[str] = Counter()
    for index in range(400):
        scene = scene_at("train", index % 40)
        text, answer = exam_turn(scene, random.Random(index), LEVELS["base"])
        marks = (
            ("hint", "Context"), ("options", "\nA. "), ("probe", "in the image"),
            ("open", "what is in the picture"), ("open", "name the colors"), ("pair", ""),
        )  # fmt: skip
        form = next(name for name, mark in marks if mark in text)
        forms[form] += 1
        if form == "pair":
            assert holds(text, scene) is (answer == "yes")
        if form == "probe":
            color, shape = text.split()[3:5]
            there = any((thing.color, thing.shape) == (color, shape) for thing in scene.things)
            assert there is (answer == "yes")
        if form == "open":
            said = answer.split(" and ")
            shown = [f"{thing.color} {thing.shape}" for thing in scene.things]
            assert set(said) & {*shown, *(thing.color for thing in scene.things)}
        else:
            answers[answer] += 1
    assert set(answers) == {"yes", "no", *"ABCD"}
    assert min(forms[name] for name in FORMS) > 50
    assert abs(answers["yes"] - answers["no"]) < 50
    with pytest.raises(DataError, match="a scene without things"):
        exam_turn(replace(scene, things=()), random.Random(0), LEVELS["base"])


def test_training_turns_about_clips_are_true() -> None:
    """Every turn is a question that the clip can be asked, with its answer; what takes several frames comes first."""
    letters = described = 0
    for index in range(60):
        clip = clip_at("train", index)
        rng = random.Random(index)
        turns = clip_turns(clip, rng, 8)
        assert 1 <= len(turns) <= 8
        told = [
            question
            for question in (
                *clip_questions(clip, random.Random(0)),
                *repetition_questions(clip),
                *start_questions(clip),
            )
            if question.family not in ("speed", "number", "attribute")
        ]
        asked = [text for text, _ in turns]
        every = [q.question for q in told if q.family in ("motion", "direction", "start")]
        assert set(every) <= set(asked) or len(told) > 8
        truths = {
            question.question: question.answer
            for seed in range(8)  # which of two things comes first in a comparison is drawn
            for question in (
                *clip_questions(clip, random.Random(seed)),
                *repetition_questions(clip),
                *start_questions(clip),
            )
        }
        for text, answer in turns:
            if text.endswith(LETTER_ENDING):
                letters += 1
                lines = text.split("\n")
                option = next(line[3:] for line in lines if line.startswith(f"{answer}. "))
                assert truths.get(lines[0], option) == option
            elif text == DESCRIBE_CLIP:
                described += 1
                assert answer.endswith(f" on {clip.scene.background}")
                for thing, motion in zip(clip.scene.things, clip.motions, strict=True):
                    assert f"{thing.color} {thing.shape} " in answer
                    assert (f"moves {motion.direction}" in answer) or motion.kind != "move"
            else:
                assert truths[text] == answer
        assert len({text for text, _ in turns}) == len(turns)
    assert letters > 15
    assert described > 15


def test_speed_is_asked_where_speeds_differ() -> None:
    asked: Counter[str] = Counter()
    for index in range(240):
        clip = clip_at("train", index)
        differ = len({motion.speed for motion in clip.motions}) > 1
        for text, answer in clip_turns(clip, random.Random(index), 20):
            if text.endswith("move fast or slow ?"):
                assert differ
                asked[answer] += 1
    assert min(asked[speed] for speed in ("fast", "slow")) > 8


def test_only_the_asked_forms() -> None:
    for index in range(40):
        text, answer = exam_turn(
            scene_at("train", index), random.Random(index), LEVELS["base"], ("pair", "probe")
        )
        assert answer in ("yes", "no")
        assert "\n" not in text


def test_a_form_that_is_named_more_often_is_asked_more_often() -> None:
    scene = scene_at("train", 0)
    forms = ("probe", "probe", "probe", "options")
    asked = [exam_turn(scene, random.Random(n), LEVELS["base"], forms)[0] for n in range(200)]
    lettered = sum(text.endswith(LETTER_ENDING) for text in asked)
    assert 30 < lettered < 70


def test_how_often_a_thing_vanishes() -> None:
    found = 0
    for index in range(60):
        clip = clip_at("test", index)
        for question in repetition_questions(clip):
            name = " ".join(question.question.split()[5:7])
            seen = [any(noun(t) == name for t in scene.things) for scene in frames(clip)]
            gone = sum(before and not after for before, after in zip(seen, seen[1:], strict=False))
            assert question.answer == str(gone)
            found += 1
    assert found >= 5


# ------------------------------------------------------------------ GenAI-Bench's tags


def test_tags_are_as_many_as_the_published_ones() -> None:
    for level in ("easy", "base", "hard"):
        prompts = skill_prompts(LEVELS[level])
        assert len(prompts) == 527
        tags = {skill: len(numbers) for skill, numbers in skill_file(prompts).items()}
        assert tags == {
            "basic": 214, "advanced": 313, "attribute": 143, "scene": 109, "spatial relation": 104,
            "action relation": 138, "part relation": 34, "counting": 97, "comparison": 51,
            "differentiation": 105, "negation": 101, "universal": 47,
        }  # fmt: skip
    assert skill_file(prompts)[prompts[0].skills[-1]][0] == "00001"
    assert len({prompt.text for prompt in prompts}) > 400


def test_prompts_can_be_satisfied_and_no_empty_picture_satisfies_one() -> None:
    prompts = skill_prompts(LEVELS["hard"], seed=3)
    empties = [
        Scene((), background, 64)
        for background in ("black", "grey", "dirt", "night", "sea", "grass")
    ]
    assert not any(satisfied(empty, p.requirements) for empty in empties for p in prompts)
    scenes = [scene_at("test", i, level="hard", held_out="any") for i in range(150)]
    reached = {
        s
        for p in prompts
        for s in p.skills
        if any(satisfied(scene, p.requirements) for scene in scenes)
    }
    assert {
        "attribute",
        "scene",
        "spatial relation",
        "counting",
        "comparison",
        "negation",
    } <= reached
    for prompt in prompts:
        assert (
            requirements_from_json(requirements_to_json(prompt.requirements)) == prompt.requirements
        )
        assert all(can_show(prompt, LEVELS["hard"]) for prompt in prompts)
    shown = [prompt for prompt in prompts if can_show(prompt, LEVELS["base"])]
    assert {"action relation", "part relation"}.isdisjoint(s for p in shown for s in p.skills)


# ------------------------------------------------------------------ clips judged


def moving(direction: str, speed: str, num_frames: int = 8, **looks: str) -> Clip:
    thing = Thing(
        looks.get("shape", "star"), looks.get("color", "red"), "small", "solid", 32.0, 32.0, 4.0
    )
    motion = Motion("move", direction, speed, 0, num_frames)
    return Clip(Scene((thing,), "grass", 64), (motion,), num_frames)


@pytest.mark.parametrize("num_frames", [8, 16])
def test_movements_are_judged_by_direction_and_speed(num_frames: int) -> None:
    for direction in ("left", "right", "up", "down"):
        for speed in ("slow", "fast"):
            shown = list(frames(moving(direction, speed, num_frames)))
            for asked in ("left", "right", "up", "down"):
                for manner in ("", "slow", "fast"):
                    prompt = ClipPrompt("", "action", (), {"shape": "star"}, asked, manner)
                    right = asked == direction and manner in ("", speed)
                    assert judge_clip(shown, prompt) == float(right), (
                        direction,
                        speed,
                        asked,
                        manner,
                    )
    thing = moving("left", "slow").scene.things[0]
    falling = [
        Scene((replace(thing, x=32.0 - frame, y=20.0 + 3 * frame),), "grass", 64)
        for frame in range(8)
    ]
    assert judge_clip(falling, ClipPrompt("", "action", (), {"shape": "star"}, "down")) == 1.0
    assert judge_clip(falling, ClipPrompt("", "action", (), {"shape": "star"}, "left")) == 0.0
    other = ClipPrompt("", "action", (), {"shape": "ring"}, "left", "")
    assert judge_clip(list(frames(moving("left", "slow"))), other) == 0.0


def test_what_moves_must_be_seen_in_every_frame() -> None:
    right = ClipPrompt("", "action", (), {"shape": "star"}, "right", "slow")
    shown = list(frames(moving("right", "slow")))
    empty = [replace(scene, things=()) for scene in shown]
    assert judge_clip(shown, right) == 1.0
    # Three steps, then nothing; nothing, then five frames of motion; a gap, over which the pace is a frame's.
    assert judge_clip([*shown[:4], *empty[4:]], right) == 0.5
    assert judge_clip([*empty[:3], *shown[3:]], right) == 5 / 8
    assert judge_clip([*shown[:3], *empty[3:6], *shown[6:]], right) == 5 / 8
    assert judge_clip(empty, right) == 0.0
    # What is still counts beside it.
    grass = replace(right, still=(Requirement("background", word="grass"),))
    sea = [*shown[:4], *(replace(scene, background="sea") for scene in shown[4:])]
    assert judge_clip([*sea[:6], *empty[6:]], grass) == 6 / 8 * 6 / 8


def test_what_stands_still_must_hold_in_every_frame() -> None:
    shown = list(frames(moving("left", "slow")))
    prompt = clip_prompt(random.Random(0), "scene", LEVELS["base"])
    prompt = replace(prompt, still=(replace(prompt.still[0], word="grass"),))
    half = [*shown[:4], *(replace(scene, background="sea") for scene in shown[4:])]
    assert judge_clip(shown, prompt) == 1.0
    assert judge_clip(half, prompt) == 0.5


def test_quality_of_good_and_of_broken_clips() -> None:
    clip = moving("right", "fast")
    shown, pixels = list(frames(clip)), render_clip(clip)
    good = clip_quality(pixels, shown)
    assert good["subject_consistency"] == good["background_consistency"] == 1.0
    assert good["motion_smoothness"] == good["dynamic_degree"] == 1.0
    flicker = np.abs(np.diff(pixels.astype(float), axis=0)).mean()
    assert good["temporal_flickering"] == pytest.approx((255 - flicker) / 255)
    still = clip_quality(np.repeat(pixels[:1], 8, axis=0), [shown[0]] * 8)
    assert (still["dynamic_degree"], still["temporal_flickering"]) == (0.0, 1.0)
    jumping = [shown[0], shown[5], shown[1], shown[6], shown[2], shown[7]]
    assert clip_quality(pixels[:6], jumping)["motion_smoothness"] == 0.0
    blue = [replace(s, things=tuple(replace(t, color="blue") for t in s.things)) for s in shown]
    assert clip_quality(pixels, [*shown[:1], *blue[1:]])["subject_consistency"] == 0.0
    empty = [replace(scene, things=()) for scene in shown]
    assert clip_quality(pixels, empty)["subject_consistency"] == 0.0
    assert clip_quality(pixels, empty)["motion_smoothness"] == 0.0
    assert [len(track) for track in tracks([shown[0], *empty])] == [1]


def test_the_total_weighs_quality_four_times() -> None:
    quality = {"subject_consistency": 1.0, "background_consistency": 1.0, "dynamic_degree": 0.0}
    assert clip_total(quality) == {"quality": pytest.approx(2 / 2.5)}
    both = clip_total({**quality, "scene": 0.5, "color": 1.0})
    assert both["semantic"] == pytest.approx(0.75)
    assert both["total"] == pytest.approx((4 * 0.8 + 0.75) / 5)


def test_clip_requirements_survive_json_and_others_are_refused() -> None:
    for dimension in SEMANTIC:
        prompt = clip_prompt(random.Random(1), dimension, LEVELS["base"])
        assert prompt.dimension == dimension
        assert ClipPrompt.from_json(prompt.to_json()) == replace(prompt, text="")
    with pytest.raises(DataError, match="clip requirements '{}' cannot be read"):
        ClipPrompt.from_json("{}")
    with pytest.raises(DataError, match="dimension is 'beauty'"):
        ClipPrompt.from_json(replace(prompt, dimension="beauty").to_json())
