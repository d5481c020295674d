"""Clips: scenes in which things move, grow, shrink, blink or stay."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vilau.errors import DataError
from vilau.world.render import render
from vilau.world.scene import lattice_step
from vilau.world.things import Scene, Thing

DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
SPEEDS = {"slow": 1.5, "fast": 4.0}
"""Pixels (of 64) per frame of an 8-frame clip; longer clips move as far in smaller steps."""
GERUNDS = {
    "move": "moving", "grow": "growing", "shrink": "shrinking", "blink": "blinking", "stay": "staying",
}  # fmt: skip
KINDS = tuple(GERUNDS)
MOTIONS = (*(f"moving {direction}" for direction in DIRECTIONS), *list(GERUNDS.values())[1:])
GROWTH = {"grow": 0.5, "shrink": -0.4}
"""Change of the radius over the whole motion, as a share."""


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
        return GERUNDS[self.kind]


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
