"""Which clips there are: things act at random, or as is easiest to learn from."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from vilau.errors import ConfigError
from vilau.world.clips import DIRECTIONS, KINDS, SPEEDS, Clip, Motion, frames
from vilau.world.scene import LEVELS, SPLITS, Level, pick, sample_scene, stream_rng
from vilau.world.things import SPACING, Scene, held_out

Staging = Literal["free", "simple", "in_turn"]
"""How the things of a clip act: see ``sample_clip``."""
_MAX_DRAFTS = 500


def sample_clip(
    rng: random.Random,
    level: Level,
    *,
    num_frames: int = 8,
    image_size: int = 64,
    num_objects: tuple[int, int] = (1, 3),
    staging: Staging = "free",
    accept: Callable[[Scene], bool] | None = None,
) -> Clip:
    """Draw a clip in which nothing leaves the canvas or runs into another thing.

    How its things act is decided by the ``staging``:

    - ``free``: each in its own way, through the whole clip or one half of it;
    - ``simple``: half of the motions take the whole clip, and what moves is fast;
    - ``in_turn``: every other thing acts in the first half and the rest in the second, fast; in half of the clips all
      do the same.

    First frames that ``accept`` refuses are drawn again.

    Raises ConfigError if ``num_frames`` is odd or below 4, or if so many things find no room.
    """
    if num_frames < 4 or num_frames % 2:
        raise ConfigError(f"num_frames is {num_frames}; write an even number from 4 on, such as 8.")
    still = replace(level, signs=0.0, interactions=0.0)
    for _ in range(_MAX_DRAFTS):
        scene = sample_scene(
            rng, still, image_size=image_size, num_objects=num_objects, accept=accept
        )
        for _ in range(12):
            motions = _STAGINGS[staging](rng, len(scene.things), num_frames)
            clip = Clip(scene, motions, num_frames)
            if _has_room(clip):
                return clip
    raise ConfigError(
        f"level {level.name!r} has no clip with num_objects {num_objects} on {image_size} pixels "
        "in which nothing collides; write fewer objects."
    )


def clip_at(
    split: str,
    index: int,
    *,
    level: str = "base",
    num_frames: int = 8,
    image_size: int = 64,
    num_objects: tuple[int, int] = (1, 3),
    staging: Staging = "free",
    seed: int = 0,
) -> Clip:
    """Clip ``index`` of a split; the same arguments give the same clip on every machine (see ``sample_clip``).

    The first frames of ``comp`` show held-out combinations, those of the other splits do not.
    Raises ConfigError.
    """
    if split not in SPLITS:
        raise ConfigError(f"split is {split!r}; write one of {', '.join(SPLITS)}.")
    if level not in LEVELS:
        raise ConfigError(f"level is {level!r}; write one of {', '.join(LEVELS)}.")
    return sample_clip(
        stream_rng("clip", seed, split, level, index),
        LEVELS[level],
        num_frames=num_frames,
        image_size=image_size,
        num_objects=num_objects,
        staging=staging,
        accept=lambda scene: held_out(scene) == (split == "comp"),
    )


def _motion(rng: random.Random, num_frames: int) -> Motion:
    start, end = pick(rng, ((0, num_frames), (0, num_frames // 2), (num_frames // 2, num_frames)))
    kind = "move" if rng.random() < 1.0 / 3.0 else pick(rng, KINDS)
    return Motion(kind, pick(rng, tuple(DIRECTIONS)), pick(rng, tuple(SPEEDS)), start, end)


def _free(rng: random.Random, num_things: int, num_frames: int) -> tuple[Motion, ...]:
    return tuple(_motion(rng, num_frames) for _ in range(num_things))


def _simple(rng: random.Random, num_things: int, num_frames: int) -> tuple[Motion, ...]:
    motions = []
    for motion in _free(rng, num_things, num_frames):
        whole = rng.random() < 0.5
        start, end = (0, num_frames) if whole else (motion.start, motion.end)
        motions.append(replace(motion, speed="fast", start=start, end=end))
    return tuple(motions)


def _in_turn(rng: random.Random, num_things: int, num_frames: int) -> tuple[Motion, ...]:
    alike = rng.random() < 0.5
    shared = _acting(rng)
    later = rng.random() < 0.5
    half = num_frames // 2
    motions = []
    for index in range(num_things):
        start = half if (index % 2 == 0) == later else 0
        kind = shared if alike else _acting(rng)
        motions.append(Motion(kind, pick(rng, tuple(DIRECTIONS)), "fast", start, start + half))
    return tuple(motions)


def _acting(rng: random.Random) -> str:
    # That a thing blinks any two frames tell: when it begins is learnt of such things first, so half of them are.
    return "blink" if rng.random() < 0.5 else pick(rng, ("move", "grow", "shrink"))


_STAGINGS: dict[Staging, Callable[[random.Random, int, int], tuple[Motion, ...]]] = {
    "free": _free,
    "simple": _simple,
    "in_turn": _in_turn,
}


def _has_room(clip: Clip) -> bool:
    size, gap = clip.scene.image_size, clip.scene.scale
    # Motions are monotonous, but two things may meet halfway: look at every frame.
    for scene in frames(clip):
        for thing in scene.things:
            low, high = thing.radius + 1.0, size - thing.radius - 2.0
            if not (low <= thing.x <= high and low <= thing.y <= high):
                return False
        for one, two in itertools.combinations(scene.things, 2):
            reach = SPACING * (one.radius + two.radius) + gap
            if (one.x - two.x) ** 2 + (one.y - two.y) ** 2 <= reach * reach:
                return False
    return True
