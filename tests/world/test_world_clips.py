"""Clips: motion as told, pixels, language."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from vilau.errors import ConfigError, DataError
from vilau.world.clip_language import (
    CLIP_FAMILIES,
    clip_caption,
    clip_questions,
    start_questions,
)
from vilau.world.clip_sampling import clip_at, sample_clip
from vilau.world.clips import Clip, Motion, frames, render_clip, thing_at
from vilau.world.render import render
from vilau.world.scene import LEVELS, Scene, Thing, held_out
from vilau.world.words import noun

STAR = Thing("star", "red", "small", "solid", 20.0, 32.0, 4.0)


def clip(
    kind: str, direction: str = "right", speed: str = "fast", start: int = 0, end: int = 8
) -> Clip:
    return Clip(Scene((STAR,), "black", 64), (Motion(kind, direction, speed, start, end),))


def clips(num: int, level: str = "base", **options: Any) -> list[Clip]:
    return [clip_at("test", index, level=level, **options) for index in range(num)]


def test_motions_do_what_they_say() -> None:
    moved = [thing_at(clip("move"), 0, frame) for frame in range(8)]
    assert [thing.x for thing in moved if thing] == [20.0 + 4.0 * frame for frame in range(8)]
    up = thing_at(clip("move", "up", "slow", start=4), 0, 6)
    assert up is not None
    assert (up.x, up.y) == (20.0, 32.0 - 3.0)
    assert thing_at(clip("move", start=4), 0, 4) == STAR
    stopped = [thing_at(clip("move", end=4), 0, frame) for frame in (4, 7)]
    assert stopped[0] == stopped[1]
    radii = {kind: thing_at(clip(kind), 0, 7).radius for kind in ("grow", "shrink", "stay")}  # type: ignore[union-attr]
    assert radii["shrink"] < radii["stay"] == 4.0 < radii["grow"]
    seen = [thing_at(clip("blink"), 0, frame) is not None for frame in range(8)]
    assert seen == [True, False] * 4


def test_longer_clips_cover_the_same_way() -> None:
    long = Clip(clip("move").scene, (Motion("move", "right", "fast", 0, 16),), 16)
    short, last = thing_at(clip("move"), 0, 7), thing_at(long, 0, 15)
    assert short is not None
    assert last is not None
    assert abs(last.x - short.x) <= 2.0


def test_nothing_leaves_the_canvas_or_collides() -> None:
    for one in clips(60) + clips(20, num_frames=16, image_size=128):
        for scene in frames(one):
            size = scene.image_size
            for index, a in enumerate(scene.things):
                assert a.radius <= a.x <= size - 1 - a.radius
                assert a.radius <= a.y <= size - 1 - a.radius
                for b in scene.things[index + 1 :]:
                    assert np.hypot(a.x - b.x, a.y - b.y) > 1.14 * (a.radius + b.radius)


@pytest.mark.parametrize("level", ["base", "hard"])
def test_pixels_agree_with_the_frames(level: str) -> None:
    for one in clips(8, level):
        video = render_clip(one)
        assert video.shape == (8, 64, 64, 3)
        assert video.dtype == np.uint8
        np.testing.assert_array_equal(video, render_clip(Clip.from_json(one.to_json())))
        if level == "base":
            for image, scene in zip(video, frames(one), strict=True):
                np.testing.assert_array_equal(image, render(scene))
    assert render_clip(clip_at("test", 1, num_frames=16, image_size=32)).shape == (16, 32, 32, 3)


def test_json_round_trip() -> None:
    for one in clips(30, "hard"):
        assert Clip.from_json(one.to_json()) == one
    with pytest.raises(DataError, match="is not a clip of the drawn world"):
        Clip.from_json("{}")


def test_splits_are_disjoint_and_deterministic() -> None:
    first = [one.to_json() for one in clips(50)]
    assert first == [one.to_json() for one in clips(50)]
    train = {clip_at("train", index).to_json() for index in range(50)}
    assert not train & set(first)
    assert not any(held_out(one.scene) for one in clips(50))
    assert all(held_out(clip_at("comp", index).scene) for index in range(50))


def test_simple_clips_are_fast_and_mostly_whole() -> None:
    motions = [m for one in clips(200, staging="simple") for m in one.motions]
    assert {motion.speed for motion in motions} == {"fast"}
    whole = sum((motion.start, motion.end) == (0, 8) for motion in motions) / len(motions)
    assert (
        0.5 < whole < 0.7
    )  # half of them and a third of the rest; what then has no room is drawn again
    assert {motion.kind for motion in motions} == {"move", "grow", "shrink", "blink", "stay"}


def test_things_act_in_turn() -> None:
    """Every other thing in one half; which half the first has is even, and half of the things blink."""
    firsts: Counter[int] = Counter()
    alike = blinking = 0
    staged = clips(200, num_objects=(3, 3), staging="in_turn")
    for one in staged:
        starts = [motion.start for motion in one.motions]
        assert starts in ([0, 4, 0], [4, 0, 4])
        assert all(m.end == m.start + 4 and m.speed == "fast" for m in one.motions)
        kinds = [motion.kind for motion in one.motions]
        assert "stay" not in kinds
        firsts[starts[0]] += 1
        alike += len(set(kinds)) == 1
        blinking += kinds.count("blink")
    assert min(firsts[start] for start in (0, 4)) > 75
    assert 90 < alike < 160  # the half that is so, and what chance adds
    assert 0.4 < blinking / 600 < 0.65


def test_when_things_start() -> None:
    """The first frames in which a thing differs from its beginning lie in the half that is told."""
    answers: Counter[str] = Counter()
    for one in clips(150):
        for question in start_questions(one):
            states = thing_states_of(one, name_in(question.question))
            moved = next(frame for frame, state in enumerate(states) if state != states[0])
            assert question.answer == ("first" if moved < 4 else "later")
            assert question.choices == ("first", "later")
            answers[question.answer] += 1
        asked = {name_in(question.question) for question in start_questions(one)}
        names = [noun(thing) for thing in one.scene.things]
        acting = {
            name
            for name, motion in zip(names, one.motions, strict=True)
            if motion.kind != "stay" and names.count(name) == 1
        }
        assert asked == acting
    assert min(answers[half] for half in ("first", "later")) > 50


def name_in(question: str) -> str:
    """Colour and shape, the words after the first ``the``."""
    words = question.split()
    return " ".join(words[words.index("the") + 1 :][:2])


def thing_states_of(one: Clip, name: str) -> list[Thing | None]:
    index = next(i for i, thing in enumerate(one.scene.things) if noun(thing) == name)
    return [thing_at(one, index, frame) for frame in range(one.num_frames)]


def test_captions_tell_every_motion() -> None:
    for number, one in enumerate(clips(150)):
        caption = clip_caption(one, random.Random(number))
        body = caption.removesuffix(f" on {one.scene.background}")
        assert body != caption
        phrases = re.split(r" , | and ", body)
        order = sorted(range(len(one.motions)), key=lambda i: one.scene.things[i].x)
        for phrase, index in zip(phrases, order, strict=True):
            thing, motion = one.scene.things[index], one.motions[index]
            assert f"{thing.color} {thing.shape}" in phrase
            assert ("later" in phrase) == (motion.start > 0 and motion.kind != "stay")
            assert ("first" in phrase) == (motion.end < 8 and motion.kind != "stay")
            if motion.kind == "move":
                manner = {"slow": "slowly", "fast": "fast"}[motion.speed]
                assert f"moves {motion.direction} {manner}" in phrase
            else:
                assert f"{motion.kind}s" in phrase


def test_answers_agree_with_the_pixels_motion() -> None:
    """Answers are checked against positions and radii of the frames, not against the motions."""
    families: Counter[str] = Counter()
    for number, one in enumerate(clips(200)):
        asked = clip_questions(one, random.Random(number))
        assert len({question.question for question in asked}) == len(asked)
        first, last = thing_states(one, 0), thing_states(one, 7)
        for question in asked:
            families[question.family] += 1
            assert question.answer in question.choices
            if question.family in ("motion", "direction"):
                name = name_in(question.question)
                (a, b) = first[name], last[name]
                if question.answer.removeprefix("moving ") in ("left", "right", "up", "down"):
                    towards = {
                        "left": b.x < a.x,
                        "right": b.x > a.x,
                        "up": b.y < a.y,
                        "down": b.y > a.y,
                    }
                    assert towards[question.answer.removeprefix("moving ")]
                else:
                    growth = np.sign(b.radius - a.radius)
                    assert growth == {"growing": 1, "shrinking": -1}.get(question.answer, 0)
            elif question.family == "number":
                moves = sum(
                    (thing_at(one, i, 0) or t).x != (thing_at(one, i, 7) or t).x
                    or (thing_at(one, i, 0) or t).y != (thing_at(one, i, 7) or t).y
                    for i, t in enumerate(one.scene.things)
                )
                assert question.answer == str(moves)
            elif question.family == "temporal":
                starts = {
                    noun(t): m.start for t, m in zip(one.scene.things, one.motions, strict=True)
                }
                other = next(shape for shape in question.choices if shape != question.answer)
                assert starts[question.answer] < starts[other]
            elif question.family == "event_order":
                begins = {
                    event: {m.start for m in one.motions if m.gerund.startswith(event)}
                    for event in question.choices
                }
                other = next(event for event in question.choices if event != question.answer)
                assert max(begins[question.answer]) < min(begins[other])
                assert len(begins[question.answer]) == len(begins[other]) == 1
    assert set(families) == set(CLIP_FAMILIES)


def thing_states(one: Clip, frame: int) -> dict[str, Thing]:
    return {
        noun(thing): thing_at(one, index, frame) or thing
        for index, thing in enumerate(one.scene.things)
    }


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="num_frames is 7; write an even number from 4 on"):
        clip_at("train", 0, num_frames=7)
    with pytest.raises(ConfigError, match="level is 'bse'; write one of easy, base"):
        clip_at("train", 0, level="bse")
    with pytest.raises(ConfigError, match="split is 'dev'; write one of train, val, test, comp"):
        clip_at("dev", 0)
    crowd = replace(LEVELS["base"], sizes=("large",))
    with pytest.raises(ConfigError, match=r"num_objects \(6, 6\).*write fewer"):
        sample_clip(random.Random(0), crowd, image_size=64, num_objects=(6, 6), num_frames=8)
