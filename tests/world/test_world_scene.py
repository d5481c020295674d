"""Scenes: determinism, splits, held-out combinations, spacing, JSON."""

from __future__ import annotations

import hashlib
import itertools
import math
import random

import pytest

from vilau.errors import ConfigError, DataError
from vilau.world.scene import (
    COLOR_NAMES,
    HELD_OUT_COLOR_SHAPE,
    INTERACTIONS,
    LEVELS,
    SHAPES,
    SIZE_NAMES,
    SIZES,
    SPLITS,
    Scene,
    Thing,
    held_out,
    relations,
    sample_scene,
    scene_at,
    sign_box,
)
from vilau.world.shapes import MAX_REACH, contact_distance, signed_distance

GOLDEN = {
    "easy": "1ca322f3aaabd4b4",
    "base": "11568424ca353b17",
    "skew": "038c0ba3b89011d4",
    "hard": "1d65b82e41a33134",
}


def thing(shape: str, x: float, y: float, color: str = "red", texture: str = "solid") -> Thing:
    return Thing(shape, color, "medium", texture, x, y, 7.0)


def scenes(level: str, num: int, split: str = "test", **options: object) -> list[Scene]:
    return [scene_at(split, index, level=level, **options) for index in range(num)]  # type: ignore[arg-type]


@pytest.mark.parametrize("level", list(LEVELS))
def test_scenes_are_the_same_on_every_machine(level: str) -> None:
    # If this changes on purpose, WORLD_VERSION must change too: cached sets would mix two worlds.
    text = "".join(scene.to_json() for scene in scenes(level, 8))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == GOLDEN[level]


@pytest.mark.parametrize("level", list(LEVELS))
def test_json_round_trip_is_exact(level: str) -> None:
    for scene in scenes(level, 200, image_size=96):
        text = scene.to_json()
        assert Scene.from_json(text) == scene
        assert Scene.from_json(text).to_json() == text
        assert len(text) < 500


def test_splits_seeds_and_levels_are_disjoint_streams() -> None:
    seen: set[str] = set()
    for split in SPLITS:
        for seed in (0, 1):
            found = {scene.to_json() for scene in scenes("base", 300, split, seed=seed)}
            assert len(found) == 300
            assert not seen & found
            seen |= found


def test_image_size_only_scales_a_scene() -> None:
    for index in range(20):
        small, large = (
            scene_at("train", index, image_size=size, num_objects=(1, 1)) for size in (64, 256)
        )
        (a,), (b,) = small.things, large.things
        if held_out(small) == held_out(large):
            assert (a.shape, a.color, a.size) == (b.shape, b.color, b.size)
            assert b.radius / a.radius == pytest.approx(4.0, rel=0.2)


def test_comp_shows_held_out_combinations_and_the_others_do_not() -> None:
    for level in LEVELS:
        assert all(held_out(scene) for scene in scenes(level, 100, "comp"))
        for split in ("train", "val", "test"):
            assert not any(held_out(scene) for scene in scenes(level, 100, split))
    assert any(held_out(scene) for scene in scenes("base", 50, held_out="any"))
    assert all(held_out(scene) for scene in scenes("base", 50, held_out="only"))


def test_about_half_of_all_scenes_hold_something_held_out() -> None:
    share = sum(map(held_out, scenes("base", 3000, held_out="any"))) / 3000
    assert 0.44 < share < 0.52


def test_held_out_pairs_are_a_latin_diagonal() -> None:
    assert len({color for color, _ in HELD_OUT_COLOR_SHAPE}) == len(COLOR_NAMES)
    assert len({shape for _, shape in HELD_OUT_COLOR_SHAPE}) == len(SHAPES)


def test_held_out_reasons() -> None:
    def scene(*things: Thing) -> Scene:
        return Scene(things, "black", 64)

    assert held_out(scene(thing("square", 20, 20, "red")))  # colour and shape
    assert held_out(scene(thing("triangle", 20, 20, "red", "striped")))  # texture and shape
    assert held_out(scene(thing("star", 20, 20), thing("cross", 50, 22)))  # relation
    assert not held_out(scene(thing("star", 50, 20), thing("cross", 20, 22)))
    two = [thing("star", 20, 20, "purple"), thing("star", 50, 20, "purple")]
    assert held_out(scene(*two))  # number and colour
    assert not held_out(scene(two[0]))


def test_relations_hold_by_a_margin_on_the_longer_axis() -> None:
    a = thing("star", 20, 20)
    assert relations(a, thing("ring", 30, 25)) == ("left of",)
    assert relations(thing("ring", 30, 25), a) == ("right of",)
    assert relations(a, thing("ring", 22, 40)) == ("above",)
    assert relations(thing("ring", 22, 40), a) == ("below",)
    assert relations(a, thing("ring", 24, 20)) == ()
    assert relations(a, thing("ring", 24, 20), margin=2.0) == ("left of",)


@pytest.mark.parametrize("image_size", [32, 64, 128])
def test_things_lie_apart_and_inside_and_signs_cover_nothing(image_size: int) -> None:
    signs = 0
    for scene in scenes("hard", 150, image_size=image_size):
        joined = set(scene.interaction[1:]) if scene.interaction else set()
        for i, j in itertools.combinations(range(len(scene.things)), 2):
            a, b = scene.things[i], scene.things[j]
            if {i, j} != joined:
                assert math.hypot(a.x - b.x, a.y - b.y) > MAX_REACH * (a.radius + b.radius)
        for one in scene.things:
            assert one.radius <= one.x <= image_size - 1 - one.radius
            assert one.radius <= one.y <= image_size - 1 - one.radius
        if scene.sign is not None and scene.sign_xy is not None:
            signs += 1
            (left, top), (width, height) = scene.sign_xy, sign_box(scene.sign, image_size)
            assert 0 <= left <= image_size - width
            assert 0 <= top <= image_size - height
            for one in scene.things:
                dx = max(left - one.x, 0, one.x - left - width)
                dy = max(top - one.y, 0, one.y - top - height)
                assert math.hypot(dx, dy) > MAX_REACH * one.radius
    assert signs > 15


def test_interactions_are_what_they_say() -> None:
    kinds = set()
    for scene in scenes("hard", 250):
        if scene.interaction is None:
            continue
        kind, i, j = scene.interaction
        kinds.add(kind)
        a, b = scene.things[i], scene.things[j]
        distance = math.hypot(a.x - b.x, a.y - b.y)
        if kind == "touching":
            assert distance < 1.15 * (a.radius + b.radius)
            exact = contact_distance(
                b.shape, b.radius, a.shape, a.radius, math.atan2(a.y - b.y, a.x - b.x)
            )
            assert abs(distance - exact) < 2.0
        elif kind == "covering":
            assert i > j
            assert distance < 0.65 * (a.radius + b.radius)
        else:
            assert (b.shape, b.size, distance) == ("ring", "large", 0.0)
            assert a.radius * MAX_REACH < 0.48 * b.radius
    assert kinds == set(INTERACTIONS)


def test_levels_narrow_the_alphabet() -> None:
    level = LEVELS["easy"]
    for scene in scenes("easy", 200):
        assert 1 <= len(scene.things) <= 2
        for one in scene.things:
            assert one.shape in level.shapes
            assert one.color in level.colors
            assert one.size in ("medium", "large")
            assert one.texture == "solid"
    numbers = {len(scene.things) for scene in scenes("hard", 200)}
    assert numbers == {2, 3, 4, 5, 6}


def test_radii_follow_the_size_words_and_small_things_are_solid() -> None:
    for scene in scenes("base", 300):
        for one in scene.things:
            low, high = SIZES[one.size]
            assert low <= one.radius <= high
            assert one.size != "small" or one.texture == "solid"
    ordered = [SIZES[name] for name in SIZE_NAMES]
    assert all(a[1] < b[0] for a, b in itertools.pairwise(ordered))


def test_skew_has_a_long_tailed_prior() -> None:
    counts: dict[tuple[str, str], int] = {}
    for scene in scenes("skew", 1500, held_out="any"):
        for pair in {(one.color, one.shape) for one in scene.things}:
            counts[pair] = counts.get(pair, 0) + 1
    ranked = sorted(counts.values(), reverse=True)
    assert ranked[0] > 0.15 * 1500
    assert ranked[0] > 6 * ranked[len(ranked) // 2]


def test_arguments_narrow_a_scene() -> None:
    for index in range(50):
        scene = scene_at("train", index, num_objects=(1, 1), sizes=("large",))
        assert [one.size for one in scene.things] == ["large"]
    scene = sample_scene(
        random.Random(0), LEVELS["base"], accept=lambda scene: scene.background == "sea"
    )
    assert scene.background == "sea"


def test_the_reach_of_shapes_bounds_them() -> None:
    import numpy as np

    angles = np.linspace(0.0, 2.0 * math.pi, 720)
    for shape in SHAPES:
        x, y = np.cos(angles) * MAX_REACH * 10.0, np.sin(angles) * MAX_REACH * 10.0
        assert (signed_distance(shape, x, y, 10.0) > 0.0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "dev"}, r"split is 'dev'; write one of train, val, test, comp"),
        ({"level": "bsae"}, r"level is 'bsae'; write one of easy, base, skew, hard"),
        ({"held_out": "no"}, r"held_out is 'no'; write one of None, exclude, only, any"),
        ({"image_size": 16}, r"image_size is 16; write a number of pixels from 32"),
        ({"num_objects": (30, 30)}, r"num_objects \(30, 30\).*write fewer or smaller objects"),
    ],
)
def test_wrong_settings_are_named(arguments: dict[str, object], message: str) -> None:
    settings = {"split": "train", "index": 0, **arguments}
    with pytest.raises(ConfigError, match=message):
        scene_at(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "[]", '{"things":[]}', '{"things":[["star"]],"on":"sea"}'])
def test_broken_json_is_named(text: str) -> None:
    with pytest.raises(DataError, match="is not a scene of the drawn world"):
        Scene.from_json(text)
