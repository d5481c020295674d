"""Scenes drawn at random: levels of difficulty, the sampler, and the splits.

The alphabet and the classes ``Thing`` and ``Scene`` live in ``things.py`` and are offered here too.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

from vilau.errors import ConfigError
from vilau.world.shapes import SHAPES, contact_distance
from vilau.world.things import (
    BACKGROUNDS,
    COLOR_NAMES,
    COLORS,
    HELD_OUT_COLOR_SHAPE,
    HELD_OUT_COUNT_COLOR,
    HELD_OUT_RELATIONS,
    HELD_OUT_TEXTURE_SHAPE,
    INTERACTIONS,
    OPPOSITE,
    PARTS,
    RELATION_MARGIN,
    RELATIONS,
    SIGN_WORDS,
    SIZE_NAMES,
    SIZES,
    SPACING,
    TEXTURES,
    WORLD_VERSION,
    Scene,
    Thing,
    held_out,
    relations,
)

__all__ = [
    "BACKGROUNDS", "COLORS", "COLOR_NAMES", "HELD_OUT_COLOR_SHAPE", "HELD_OUT_COUNT_COLOR",
    "HELD_OUT_RELATIONS", "HELD_OUT_TEXTURE_SHAPE", "INTERACTIONS", "LEVELS", "OPPOSITE",
    "PARTS", "RANKED_PAIRS", "RELATIONS", "RELATION_MARGIN", "SHAPES", "SIGN_WORDS", "SIZES",
    "SIZE_NAMES", "SPACING", "SPLITS", "TEXTURES", "WORLD_VERSION", "Level", "Scene", "Thing",
    "glyph_scale", "held_out", "lattice_step", "pick", "radii", "relations", "sample_scene",
    "scene_at", "sign_box", "stream_rng",
]  # fmt: skip

SPLITS = ("train", "val", "test", "comp")

_MAX_DRAFTS = 5_000
T = TypeVar("T")


@dataclass(frozen=True)
class Level:
    """Difficulty: how many things, from how large an alphabet, and what else may appear."""

    name: str
    num_objects: tuple[int, int] = (1, 4)
    num_shapes: int = 8
    num_colors: int = 8
    sizes: tuple[str, ...] = SIZE_NAMES
    num_textures: int = 4
    num_backgrounds: int = 6
    parts: float = 0.0
    """Probability that a large solid thing carries a border or a dot."""
    signs: float = 0.0
    interactions: float = 0.0
    rough: bool = False
    skew: float = 0.0
    """Zipf exponent of the (colour, shape) pairs; above 0 some pairs also appear together often."""

    @property
    def shapes(self) -> tuple[str, ...]:
        """The shapes this level uses."""
        return SHAPES[: self.num_shapes]

    @property
    def colors(self) -> tuple[str, ...]:
        """The colours this level uses."""
        return COLOR_NAMES[: self.num_colors]


LEVELS = {
    "easy": Level("easy", (1, 2), 5, 6, ("medium", "large"), num_textures=1, num_backgrounds=2),
    "base": Level("base"),
    # `base` with a long-tailed, correlated prior: only there do POPE's three settings differ.
    "skew": Level("skew", skew=0.8),
    "hard": Level("hard", (2, 6), parts=0.7, signs=0.3, interactions=0.35, rough=True),
}

_PAIRS = [(color, shape) for color in COLOR_NAMES for shape in SHAPES]
random.Random(12345).shuffle(_PAIRS)
RANKED_PAIRS = tuple(_PAIRS)
"""(colour, shape) pairs from the most to the least frequent on `skew`."""
_CLIQUE = {pair: tuple(_PAIRS[i::16]) for i in range(16) for pair in _PAIRS[i::16]}


# ------------------------------------------------------------------ the sampler


def pick(rng: random.Random, items: Sequence[T]) -> T:
    """One item, uniformly; several times faster than ``rng.choice``."""
    return items[int(rng.random() * len(items))]


def lattice_step(image_size: int) -> float:
    """Grid of positions in pixels; it widens with the canvas, so few sprites are needed."""
    return 0.25 if image_size <= 64 else 0.5 if image_size <= 128 else 1.0


@lru_cache(maxsize=256)
def radii(size: str, image_size: int) -> tuple[float, ...]:
    """The radii that a size word stands for at this image size."""
    low, high = (bound * image_size / 64.0 for bound in SIZES[size])
    step = 0.25 if image_size < 64 else max(0.5, lattice_step(image_size))
    return tuple(i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1))


def glyph_scale(image_size: int) -> int:
    """Pixels per dot of the sign font."""
    return max(1, round(image_size / 64.0))


def sign_box(sign: str, image_size: int) -> tuple[int, int]:
    """Width and height in pixels of the plate that carries ``sign``."""
    scale = glyph_scale(image_size)
    return (4 * len(sign) + 3) * scale, 9 * scale


class _Draft:
    """A scene in the making: the canvas, the level, and the room already taken."""

    def __init__(self, rng: random.Random, level: Level, image_size: int) -> None:
        self.rng = rng
        self.level = level
        self.image_size = image_size
        self.things: list[Thing] = []
        self.sign: str | None = None
        self.sign_xy: tuple[int, int] | None = None
        self.interaction: tuple[str, int, int] | None = None

    def put_sign(self) -> None:
        self.sign = pick(self.rng, SIGN_WORDS)
        width, height = sign_box(self.sign, self.image_size)
        x = self.rng.randint(0, self.image_size - width - 1)
        self.sign_xy = (x, pick(self.rng, (1, self.image_size - height - 1)))

    def is_free(self, x: float, y: float, radius: float, others: Sequence[Thing]) -> bool:
        gap = self.image_size / 64.0
        for other in others:
            dx, dy, reach = other.x - x, other.y - y, SPACING * (other.radius + radius) + gap
            if dx * dx + dy * dy <= reach * reach:
                return False
        if self.sign is None or self.sign_xy is None:
            return True
        left, top = self.sign_xy
        width, height = sign_box(self.sign, self.image_size)
        dx = max(left - x, 0.0, x - (left + width))
        dy = max(top - y, 0.0, y - (top + height))
        reach = SPACING * radius + gap
        return dx * dx + dy * dy > reach * reach

    def free_spot(self, radius: float) -> tuple[float, float] | None:
        step = lattice_step(self.image_size)
        places = int((self.image_size - 2.0 * radius - 3.0) / step) + 1
        for _ in range(30 if places > 0 else 0):
            x = radius + 1.0 + step * int(self.rng.random() * places)
            y = radius + 1.0 + step * int(self.rng.random() * places)
            if self.is_free(x, y, radius, self.things):
                return x, y
        return None

    def look(self, size: str) -> tuple[str, str, str, tuple[str, str] | None]:
        """Shape, colour, texture and part of the next thing."""
        rng, level = self.rng, self.level
        texture = "solid"
        if size != "small" and level.num_textures > 1 and rng.random() >= 0.4:
            texture = pick(rng, TEXTURES[1 : level.num_textures])
        if level.skew:
            color, shape = self.skewed_pair()
        else:
            color, shape = pick(rng, level.colors), pick(rng, level.shapes)
        part = None
        if level.parts and size == "large" and texture == "solid" and rng.random() < level.parts:
            # The middle of a ring or a moon is empty, so a dot there would be a thing of its own.
            kind = "border" if shape in ("ring", "moon") else pick(rng, PARTS)
            part = (kind, pick(rng, [c for c in level.colors if c != color]))
        return shape, color, texture, part

    def skewed_pair(self) -> tuple[str, str]:
        if self.things and self.rng.random() < 0.5:
            last = self.things[-1]
            return pick(self.rng, _CLIQUE[last.color, last.shape])
        return self.rng.choices(RANKED_PAIRS, cum_weights=_zipf(self.level.skew))[0]

    def interact(self) -> bool:
        """Move the second thing to the first. False if there is no room."""
        kind = pick(self.rng, INTERACTIONS)
        # The larger one lies below, or covering would hide the other whole.
        first, second = sorted(self.things[:2], key=lambda t: -t.radius)
        if kind == "inside":
            first = replace(
                first, shape="ring", size="large", texture="solid", part=None,
                radius=radii("large", self.image_size)[-1],
            )  # fmt: skip
            second = replace(
                second, size="small", texture="solid", part=None, x=first.x, y=first.y,
                radius=radii("small", self.image_size)[0],
            )  # fmt: skip
        else:
            angle = self.rng.uniform(0.0, 2.0 * math.pi)
            distance = 0.55 * (first.radius + second.radius)
            if kind == "touching":
                distance = contact_distance(
                    first.shape, first.radius, second.shape, second.radius, angle
                )
            step = lattice_step(self.image_size)
            x = round((first.x + distance * math.cos(angle)) / step) * step
            y = round((first.y + distance * math.sin(angle)) / step) * step
            second = replace(second, x=x, y=y)
        self.things[:2] = [first, second]
        self.interaction = (kind, 1, 0)
        return all(self.fits(thing) for thing in self.things[:2])

    def fits(self, thing: Thing) -> bool:
        low, high = thing.radius + 1.0, self.image_size - thing.radius - 2.0
        inside = low <= thing.x <= high and low <= thing.y <= high
        return inside and self.is_free(thing.x, thing.y, thing.radius, self.things[2:])


@lru_cache(maxsize=8)
def _zipf(exponent: float) -> tuple[float, ...]:
    weights = [1.0 / (rank + 1) ** exponent for rank in range(len(RANKED_PAIRS))]
    return tuple(itertools.accumulate(weights))


def _draft(
    rng: random.Random, level: Level, image_size: int, count: int, sizes: Sequence[str]
) -> Scene | None:
    draft = _Draft(rng, level, image_size)
    if level.signs and rng.random() < level.signs:
        draft.put_sign()
    for _ in range(count):
        size = pick(rng, sizes)
        radius = pick(rng, radii(size, image_size))
        spot = draft.free_spot(radius)
        if spot is None:
            return None
        shape, color, texture, part = draft.look(size)
        draft.things.append(Thing(shape, color, size, texture, spot[0], spot[1], radius, part))
    wanted = level.interactions and count >= 2 and rng.random() < level.interactions
    if wanted and not draft.interact():
        return None
    return Scene(
        tuple(draft.things), BACKGROUNDS[int(rng.random() * level.num_backgrounds)], image_size,
        draft.sign, draft.sign_xy, draft.interaction, rng.getrandbits(32), level.rough,
    )  # fmt: skip


def sample_scene(
    rng: random.Random,
    level: Level,
    *,
    image_size: int = 64,
    num_objects: tuple[int, int] | None = None,
    sizes: tuple[str, ...] | None = None,
    accept: Callable[[Scene], bool] | None = None,
) -> Scene:
    """Draw a scene of ``level``; the other arguments narrow it.

    Scenes that ``accept`` refuses are drawn again. Raises ConfigError if nothing fits the canvas
    or nothing is accepted.
    """
    low, high = num_objects or level.num_objects
    for _ in range(_MAX_DRAFTS):
        count = rng.randint(low, high)
        scene = _draft(rng, level, image_size, count, sizes or level.sizes)
        if scene is not None and (accept is None or accept(scene)):
            return scene
    raise ConfigError(
        f"level {level.name!r} has no acceptable scene with num_objects {(low, high)} and sizes "
        f"{tuple(sizes or level.sizes)} on {image_size} pixels; write fewer or smaller objects."
    )


def stream_rng(*key: object) -> random.Random:
    """A generator for one item of a stream; the same key gives the same one on every machine."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "big"))


def scene_at(
    split: str,
    index: int,
    *,
    level: str = "base",
    image_size: int = 64,
    num_objects: tuple[int, int] | None = None,
    sizes: tuple[str, ...] | None = None,
    held_out: str | None = None,
    seed: int = 0,
) -> Scene:
    """Scene ``index`` of a split; the same arguments give the same scene on every machine.

    ``held_out`` says what becomes of scenes with held-out combinations: ``exclude``, ``only`` or
    ``any``; None means ``only`` for the split ``comp`` and ``exclude`` for the others.
    Raises ConfigError.
    """
    _check_choice("split", split, SPLITS)
    _check_choice("level", level, tuple(LEVELS))
    _check_choice("held_out", held_out, (None, "exclude", "only", "any"))
    if not 32 <= image_size <= 1024:
        raise ConfigError(f"image_size is {image_size}; write a number of pixels from 32 to 1024.")
    rule = held_out or ("only" if split == "comp" else "exclude")
    accept = {"any": None, "only": _shows_held_out, "exclude": _shows_no_held_out}[rule]
    return sample_scene(
        stream_rng(seed, split, level, index), LEVELS[level],
        image_size=image_size, num_objects=num_objects, sizes=sizes, accept=accept,
    )  # fmt: skip


# `scene_at` has an argument named like the function `held_out`.
_shows_held_out = held_out


def _shows_no_held_out(scene: Scene) -> bool:
    return not held_out(scene)


def _check_choice(key: str, value: str | None, choices: tuple[str | None, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{key} is {value!r}; write one of {', '.join(map(str, choices))}.")
