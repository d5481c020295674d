"""The strict judge: analysis by synthesis reads drawn pictures back."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from vilau.errors import DataError
from vilau.world.parse import parse
from vilau.world.render import render
from vilau.world.scene import Scene, scene_at


def full(scene: Scene) -> tuple[str, Counter[tuple[str, ...]]]:
    looks = Counter((t.shape, t.color, t.size, t.texture) for t in scene.things)
    return scene.background, looks


def share_read(level: str, num: int, image_size: int = 64) -> float:
    right = 0
    for index in range(num):
        scene = scene_at("test", index, level=level, image_size=image_size, held_out="any")
        right += full(parse(render(scene))) == full(scene)
    return right / num


def test_clean_pictures_are_read_exactly() -> None:
    assert share_read("base", 100) >= 0.99
    assert share_read("easy", 20) == 1.0


@pytest.mark.parametrize(("size", "least"), [(32, 0.85), (96, 1.0), (128, 1.0)])
def test_other_sizes(size: int, least: float) -> None:
    assert share_read("base", 15, size) >= least


def test_positions_and_radii_are_found() -> None:
    for size in (64, 128):
        for index in range(15):
            scene = scene_at("test", index, image_size=size)
            found = parse(render(scene))
            assert found.image_size == size
            for thing in scene.things:
                near = min(found.things, key=lambda t: abs(t.x - thing.x) + abs(t.y - thing.y))
                slack = 0.6 * size / 64
                assert abs(near.x - thing.x) <= slack
                assert abs(near.y - thing.y) <= slack
                assert abs(near.radius - thing.radius) <= slack


def test_noise_is_tolerated() -> None:
    right = 0
    for index in range(30):
        scene = scene_at("test", index)
        noise = np.random.RandomState(index).normal(0.0, 8.0, (64, 64, 3))
        noisy = np.clip(render(scene) + noise, 0, 255).astype(np.uint8)
        right += full(parse(noisy)) == full(scene)
    assert right >= 27


def test_what_the_renderer_cannot_draw_is_not_accepted() -> None:
    empty = render(Scene((), "black", 64))
    assert parse(empty).things == ()
    bar = empty.copy()
    bar[30:34, 4:60] = (222, 38, 40)
    assert all(thing.size == "small" for thing in parse(bar).things)
    speckles = empty.copy()
    speckles[np.random.RandomState(0).rand(64, 64) < 0.15] = (52, 190, 66)
    assert parse(speckles).things == ()
    blob = empty.copy()
    rows, columns = np.mgrid[:64, :64]
    blob[(np.abs(rows - 30) < 20) & (np.abs(columns - 30) < 26)] = (62, 92, 240)
    assert len(parse(blob).things) == 0


def test_two_things_of_one_colour_side_by_side_are_told_apart() -> None:
    first = scene_at("test", 0, num_objects=(1, 1), sizes=("large",)).things[0]
    pair = (
        replace(first, shape="circle", color="red", texture="solid", x=20.0, y=30.0, radius=10.0),
        replace(first, shape="square", color="red", texture="solid", x=39.0, y=30.0, radius=10.0),
    )
    found = parse(render(Scene(pair, "grey", 64)))
    assert sorted(thing.shape for thing in found.things) == ["circle", "square"]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((64, 64, 3)), r"image is float64 of shape \(64, 64, 3\); give uint8"),
        (np.zeros((3, 64, 64), np.uint8), r"give uint8 of shape \(H, W, 3\)"),
        (np.zeros((64, 32, 3), np.uint8), r"image has \(64, 32\) pixels; give a square one"),
    ],
)
def test_wrong_images_are_named(image: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse(image)
