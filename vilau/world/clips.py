"""Clips: scenes in which things move, grow, shrink, blink or stay, with captions and questions."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vilau.errors import ConfigError, DataError
from vilau.world.families import DIGITS, Question
from vilau.world.render import render
from vilau.world.scene import (
    LEVELS,
    SPLITS,
    Level,
    lattice_step,
    pick,
    sample_scene,
    stream_rng,
)
from vilau.world.things import COLOR_NAMES, SPACING, Scene, Thing, held_out
from vilau.world.words import a, listing, noun

DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
SPEEDS = {"slow": 1.5, "fast": 4.0}
"""Pixels (of 64) per frame of an 8-frame clip; longer clips move as far in smaller steps."""
KINDS = ("move", "grow", "shrink", "blink", "stay")
MOTIONS = (
    *(f"moving {direction}" for direction in DIRECTIONS),
    "growing",
    "shrinking",
    "blinking",
    "staying",
)
CLIP_FAMILIES = ("motion", "direction", "speed", "speed_compare", "temporal", "number", "attribute")
GROWTH = {"grow": 0.5, "shrink": -0.4}
"""Change of the radius over the whole motion, as a share."""
_MAX_DRAFTS = 500


@dataclass(frozen=True)
class Motion:
    """What one thing does from frame ``start`` until before frame ``end``."""

    kind: str
    direction: str
    speed: str
    start: int
    end: int

    @property
    def gerund(self) -> str:
        """One of MOTIONS."""
        if self.kind == "move":
            return f"moving {self.direction}"
        return {"grow": "growing", "shrink": "shrinking", "blink": "blinking", "stay": "staying"}[
            self.kind
        ]


@dataclass(frozen=True)
class Clip:
    """A scene (the first frame) and one motion per thing."""

    scene: Scene
    motions: tuple[Motion, ...]
    num_frames: int = 8

    def to_json(self) -> str:
        """Compact JSON; ``Clip.from_json`` gives back an equal clip."""
        record = {
            "scene": json.loads(self.scene.to_json()),
            "motions": [astuple(motion) for motion in self.motions],
            "frames": self.num_frames,
        }
        return json.dumps(record, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Clip:
        """Read what ``to_json`` wrote; raises DataError if it is something else."""
        try:
            record = json.loads(text)
            motions = tuple(Motion(*motion) for motion in record["motions"])
            return Clip(Scene.from_json(json.dumps(record["scene"])), motions, record["frames"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"clip {text[:60]!r} is not a clip of the drawn world ({error!r}); "
                "write the string that Clip.to_json() gives."
            ) from error


def thing_at(clip: Clip, index: int, frame: int) -> Thing | None:
    """Thing ``index`` of the clip as it is at ``frame``; None while a blinking thing is off."""
    thing, motion = clip.scene.things[index], clip.motions[index]
    done = min(max(frame - motion.start, 0), motion.end - motion.start)
    if motion.kind == "move":
        distance = SPEEDS[motion.speed] * clip.scene.scale * 8.0 / clip.num_frames * done
        dx, dy = DIRECTIONS[motion.direction]
        return replace(thing, x=thing.x + dx * distance, y=thing.y + dy * distance)
    if motion.kind in GROWTH:
        radius = thing.radius * (1.0 + GROWTH[motion.kind] * done / (motion.end - motion.start))
        step = lattice_step(clip.scene.image_size)
        return replace(thing, radius=max(step, round(radius / step) * step))
    if motion.kind == "blink" and motion.start <= frame < motion.end and (frame - motion.start) % 2:
        return None
    return thing


def frames(clip: Clip) -> Iterator[Scene]:
    """The scene of every frame, with the things that are visible in it."""
    for frame in range(clip.num_frames):
        states = (thing_at(clip, index, frame) for index in range(len(clip.scene.things)))
        yield replace(clip.scene, things=tuple(thing for thing in states if thing is not None))


def sample_clip(
    rng: random.Random,
    level: Level,
    *,
    num_frames: int = 8,
    image_size: int = 64,
    num_objects: tuple[int, int] = (1, 3),
    simple: bool = False,
    accept: Callable[[Scene], bool] | None = None,
) -> Clip:
    """Draw a clip in which nothing leaves the canvas or runs into another thing.

    In a ``simple`` one motions take all the time. First frames that ``accept`` refuses are drawn again.

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
            motions = (_motion(rng, num_frames) for _ in scene.things)
            if simple:
                motions = (replace(motion, start=0, end=num_frames) for motion in motions)
            clip = Clip(scene, tuple(motions), num_frames)
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
    simple: bool = False,
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
        simple=simple,
        accept=lambda scene: held_out(scene) == (split == "comp"),
    )


def _motion(rng: random.Random, num_frames: int) -> Motion:
    start, end = pick(rng, ((0, num_frames), (0, num_frames // 2), (num_frames // 2, num_frames)))
    kind = "move" if rng.random() < 1.0 / 3.0 else pick(rng, KINDS)
    return Motion(kind, pick(rng, tuple(DIRECTIONS)), pick(rng, tuple(SPEEDS)), start, end)


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


def render_clip(clip: Clip) -> NDArray[np.uint8]:
    """Draw a clip: uint8 ``(F, H, W, 3)``."""
    away = -4.0 * clip.scene.image_size
    images = []
    for frame in range(clip.num_frames):
        things = []
        for index, thing in enumerate(clip.scene.things):
            # A thing that is off waits outside the canvas, so that the others keep their tints.
            things.append(thing_at(clip, index, frame) or replace(thing, x=away))
        images.append(render(replace(clip.scene, things=tuple(things))))
    return np.stack(images)


# ------------------------------------------------------------------ language


def clip_caption(clip: Clip, rng: random.Random) -> str:
    """Tell what every thing does, from left to right, and where."""
    order = sorted(range(len(clip.motions)), key=lambda index: clip.scene.things[index].x)
    phrases = []
    for index in order:
        name = a(
            noun(clip.scene.things[index], size=rng.random() < 0.5, texture=rng.random() < 0.5)
        )
        phrases.append(f"{name} {_does(clip.motions[index], clip.num_frames)}")
    return f"{listing(phrases)} on {clip.scene.background}"


def _does(motion: Motion, num_frames: int) -> str:
    if motion.kind == "stay":
        return "stays"
    verb = f"{motion.kind}s"
    if motion.kind == "move":
        manner = "slowly" if motion.speed == "slow" else "fast"
        verb = f"moves {motion.direction} {manner}"
    if motion.start > 0:
        return f"later {verb}"
    return f"first {verb}" if motion.end < num_frames else verb


def clip_questions(clip: Clip, rng: random.Random) -> list[Question]:
    """All questions about the clip that have one undoubted answer."""
    shapes = [thing.shape for thing in clip.scene.things]
    named = [
        (thing, motion)
        for thing, motion in zip(clip.scene.things, clip.motions, strict=True)
        if shapes.count(thing.shape) == 1
    ]
    found = []
    for thing, motion in named:
        name = thing.shape
        found.append(Question("motion", f"what is the {name} doing ?", motion.gerund, MOTIONS))
        if motion.kind == "move":
            text = f"which way does the {name} move ?"
            found.append(Question("direction", text, motion.direction, tuple(DIRECTIONS)))
            text = f"does the {name} move fast or slow ?"
            found.append(Question("speed", text, motion.speed, tuple(SPEEDS)))
        found.append(Question("attribute", f"what color is the {name} ?", thing.color, COLOR_NAMES))
    moving = sum(motion.kind == "move" for motion in clip.motions)
    found.append(Question("number", "how many things move ?", str(moving), DIGITS[:4]))
    for pair in itertools.combinations(named, 2):
        found += _comparisons(rng.sample(pair, 2))
    return found


def _comparisons(pair: list[tuple[Thing, Motion]]) -> list[Question]:
    (first, motion1), (second, motion2) = pair
    choices, found = (first.shape, second.shape), []
    if "stay" not in (motion1.kind, motion2.kind) and motion1.start != motion2.start:
        text = f"which starts first , the {first.shape} or the {second.shape} ?"
        answer = choices[int(motion2.start < motion1.start)]
        found.append(Question("temporal", text, answer, choices))
    if motion1.kind == motion2.kind == "move" and motion1.speed != motion2.speed:
        text = f"which is faster , the {first.shape} or the {second.shape} ?"
        answer = choices[int(motion2.speed == "fast")]
        found.append(Question("speed_compare", text, answer, choices))
    return found


def repetition_questions(clip: Clip) -> list[Question]:
    """How often things that blink vanish: counts over the frames (TGIF-QA's repetition count)."""
    shapes = [thing.shape for thing in clip.scene.things]
    return [
        Question(
            "repetition",
            f"how many times does the {thing.shape} vanish ?",
            str((motion.end - motion.start) // 2),
            DIGITS,
        )
        for thing, motion in zip(clip.scene.things, clip.motions, strict=True)
        if motion.kind == "blink" and shapes.count(thing.shape) == 1
    ]
