"""Pixels: exact bytes, sizes, that everything a scene names can be seen."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from vilau.world.render import BACKGROUND_COLORS, draw_sign, render, sprite
from vilau.world.scene import (
    BACKGROUNDS,
    COLORS,
    LEVELS,
    SHAPES,
    SIGN_WORDS,
    TEXTURES,
    Scene,
    Thing,
    scene_at,
    sign_box,
)

GOLDEN = {
    "easy": "96a1a7b1e89b5d83",
    "base": "600ce5be54529185",
    "skew": "4bd7446fc9fdd4be",
    "hard": "5d7d2bd56bc94b7c",
}


@pytest.mark.parametrize("level", list(LEVELS))
def test_bytes_are_the_same_on_every_machine(level: str) -> None:
    images = [render(scene_at("test", index, level=level)) for index in range(8)]
    digest = hashlib.sha256(b"".join(image.tobytes() for image in images)).hexdigest()
    assert digest[:16] == GOLDEN[level]


def test_a_scene_alone_decides_its_picture() -> None:
    scene = scene_at("train", 5, level="hard")
    first = render(scene)
    first_again = first.copy()
    first[:] = 0  # a caller may scribble on what it got
    render(scene_at("train", 6, level="hard"))
    np.testing.assert_array_equal(render(Scene.from_json(scene.to_json())), first_again)
    assert (render(replace(scene, seed=scene.seed + 1)) != first_again).any()


@pytest.mark.parametrize("size", [32, 64, 96, 128, 256])
def test_sizes(size: int) -> None:
    for level in ("base", "hard"):
        for index in range(6):
            scene = scene_at("train", index, level=level, image_size=size)
            image = render(scene)
            assert image.shape == (size, size, 3)
            assert image.dtype == np.uint8
            assert image.flags.c_contiguous
            for thing in scene.things:
                _assert_visible(image, thing, hidden=scene.interaction is not None)


def _assert_visible(image: np.ndarray, thing: Thing, *, hidden: bool) -> None:
    box = image[
        max(0, round(thing.y - thing.radius)) : round(thing.y + thing.radius) + 1,
        max(0, round(thing.x - thing.radius)) : round(thing.x + thing.radius) + 1,
    ].astype(int)
    near = np.abs(box - np.array(COLORS[thing.color])).max(axis=2) < 60
    assert near.sum() >= (1 if hidden else 0.05 * box.shape[0] * box.shape[1])


@pytest.mark.parametrize("size", [64, 128])
def test_larger_canvases_show_the_same_picture(size: int) -> None:
    scene = Scene((Thing("star", "red", "large", "solid", 31.0, 30.0, 10.0),), "black", 64)
    (thing,) = scene.things
    factor = size // 64
    shift = (factor - 1) / 2
    moved = replace(
        thing, x=thing.x * factor + shift, y=thing.y * factor + shift, radius=thing.radius * factor
    )
    large = render(replace(scene, image_size=size, things=(moved,))).astype(float)
    shrunk = large.reshape(64, factor, 64, factor, 3).mean(axis=(1, 3))
    assert np.abs(shrunk - render(scene)).mean() < 0.5


def test_shapes_and_textures_differ() -> None:
    pictures = {}
    for shape in SHAPES:
        for texture in TEXTURES:
            thing = Thing(shape, "white", "medium", texture, 32.0, 32.0, 7.0)
            pictures[shape, texture] = render(Scene((thing,), "black", 64)).astype(int)
    keys = list(pictures)
    for i, one in enumerate(keys):
        for two in keys[i + 1 :]:
            assert (np.abs(pictures[one] - pictures[two]).max(axis=2) > 60).sum() >= 8, (one, two)


def test_sprites_are_anti_aliased_and_never_overflow() -> None:
    for shape in SHAPES:
        for texture in TEXTURES:
            piece = sprite(shape, 7.5, 0.25, 0.5, texture)
            assert int((piece.keep.astype(int) + piece.gain).max()) <= 256
            edge = (piece.keep > 0) & (piece.keep < 256)
            assert edge.any()


def test_things_are_cut_off_at_the_border() -> None:
    for x, y in ((0.0, 0.0), (63.0, 10.0), (30.0, 63.0), (-30.0, 5.0), (200.0, 200.0)):
        thing = Thing("circle", "red", "large", "solid", x, y, 10.0)
        image = render(Scene((thing,), "black", 64))
        inside = 0 <= x < 64 and 0 <= y < 64
        assert ((image == COLORS["red"]).all(axis=2)).any() == inside


def test_later_things_lie_over_earlier_ones() -> None:
    red = Thing("circle", "red", "large", "solid", 32.0, 32.0, 10.0)
    blue = replace(red, color="blue", radius=4.0, size="small")
    image = render(Scene((red, blue), "black", 64))
    assert tuple(image[32, 32]) == COLORS["blue"]
    assert tuple(render(Scene((blue, red), "black", 64))[32, 32]) == COLORS["red"]


def test_parts_show_their_colour() -> None:
    for kind, where in (("dot", (32, 32)), ("border", (32, 42))):
        thing = Thing("circle", "red", "large", "solid", 32.0, 32.0, 11.0, (kind, "cyan"))
        image = render(Scene((thing,), "black", 64))
        assert np.abs(image[where].astype(int) - COLORS["cyan"]).max() < 25, kind
        assert tuple(image[32, 38]) == COLORS["red"]


def test_backgrounds_differ_and_stay_near_their_colour() -> None:
    means = {}
    for name in BACKGROUNDS:
        image = render(Scene((), name, 64, seed=3)).astype(float)
        means[name] = image.mean(axis=(0, 1))
        assert np.abs(means[name] - BACKGROUND_COLORS[name]).max() < 6
        textured = name in ("dirt", "night", "sea", "grass")
        assert (image.std(axis=(0, 1)).max() > 1) == textured
        if textured and name != "sea":
            assert (render(Scene((), name, 64, seed=4)) != image).any()


def test_every_sign_can_be_drawn_and_told_apart() -> None:
    plates = set()
    for word in SIGN_WORDS:
        image = np.zeros((64, 64, 3), dtype=np.uint8)
        draw_sign(image, word, (3, 5))
        width, height = sign_box(word, 64)
        assert image[5 : 5 + height, 3 : 3 + width].all(axis=2).all()
        assert not image[5 + height :].any()
        assert not image[:, 3 + width :].any()
        plates.add(image.tobytes())
    assert len(plates) == len(SIGN_WORDS) == 32


def test_rough_scenes_have_noise_of_the_stated_strength() -> None:
    scene = Scene((), "grey", 64, seed=1, rough=True)
    noise = render(scene).astype(float) - BACKGROUND_COLORS["grey"]
    assert abs(noise.mean()) < 0.2
    assert noise.std() == pytest.approx(3.0, rel=0.05)
