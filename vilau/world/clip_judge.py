"""Prompts for clips with what they ask for, and the exact judgement of a clip's frames (twin of VBench).

A judge sees the scene of every frame: the truth behind a drawn clip, or what a parser found in a generated
one. What is still must hold in each frame, and the share of frames where it holds is the score; what moves is
followed from frame to frame, and must be seen in each.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vilau.errors import DataError
from vilau.world.clips import DIRECTIONS, SPEEDS
from vilau.world.judge import (
    Looks,
    Requirement,
    requirements_from_json,
    requirements_to_json,
    satisfied,
)
from vilau.world.scene import Level, pick
from vilau.world.things import BACKGROUNDS, RELATIONS, TEXTURES, Scene, Thing
from vilau.world.words import a

SEMANTIC = (
    "object_class", "multiple_objects", "action", "color", "spatial_relationship", "scene",
    "appearance_style", "temporal_style", "overall_consistency",
)  # fmt: skip
"""VBench's nine by its names but one: ``action`` is what a thing does, as nobody human is drawn."""
QUALITY = (
    "subject_consistency", "background_consistency", "temporal_flickering", "motion_smoothness",
    "dynamic_degree",
)  # fmt: skip
"""Five of VBench's seven: the drawn world has neither beauty nor an imaging quality."""
WEIGHTS = {"dynamic_degree": 0.5}
"""All others weigh 1, as in VBench."""

MOVED = 2.0
"""Pixels (of 64) that a thing must come along to have moved."""
BETWEEN_SPEEDS = math.sqrt(SPEEDS["slow"] * SPEEDS["fast"])
"""Pixels (of 64) per frame that part slow from fast."""
JERK = 1.5
"""Pixels (of 64) by which a thing may miss the middle between its places before and after."""


@dataclass(frozen=True)
class ClipPrompt:
    """A text to draw a clip from, the dimension it belongs to, and what is asked of the clip."""

    text: str
    dimension: str
    still: tuple[Requirement, ...] = ()
    """Must hold in every frame."""
    mover: Looks | None = None
    """What must move ``direction`` (and at ``speed``, if one is said)."""
    direction: str = ""
    speed: str = ""

    def to_json(self) -> str:
        """What a judge needs, as JSON."""
        record = {
            "dimension": self.dimension, "still": json.loads(requirements_to_json(self.still)),
            "mover": self.mover, "direction": self.direction, "speed": self.speed,
        }  # fmt: skip
        return json.dumps(record, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> ClipPrompt:
        """Read what ``to_json`` wrote, without the text; raises DataError if it is something else."""
        try:
            record = json.loads(text)
            record["still"] = requirements_from_json(json.dumps(record["still"]))
            prompt = ClipPrompt("", **record)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"clip requirements {text[:60]!r} cannot be read ({error!r}); write the string that "
                "ClipPrompt.to_json() gives."
            ) from error
        if prompt.dimension not in SEMANTIC or prompt.direction not in ("", *DIRECTIONS):
            raise DataError(
                f"clip requirements: dimension is {prompt.dimension!r} and direction {prompt.direction!r}; "
                f"write one of {', '.join(SEMANTIC)} and of {', '.join(DIRECTIONS)}."
            )
        return prompt


def clip_prompt(rng: random.Random, dimension: str, level: Level) -> ClipPrompt:
    """Draw a prompt of one of SEMANTIC from the alphabet of a level."""
    color, color2 = rng.sample(level.colors, 2)
    shape, shape2 = rng.sample(level.shapes, 2)
    one, two = {"shape": shape}, {"shape": shape2}
    both = (Requirement("has", one), Requirement("has", two))
    if dimension == "object_class":
        return ClipPrompt(a(shape), dimension, both[:1])
    if dimension == "multiple_objects":
        return ClipPrompt(f"{a(shape)} and {a(shape2)}", dimension, both)
    if dimension == "color":
        looks = {"shape": shape, "color": color}
        return ClipPrompt(a(f"{color} {shape}"), dimension, (Requirement("has", looks),))
    if dimension == "spatial_relationship":
        side = pick(rng, RELATIONS)
        relation = Requirement("relation", one, two, word=side)
        return ClipPrompt(f"{a(shape)} {side} {a(shape2)}", dimension, (*both, relation))
    if dimension == "scene":
        background = pick(rng, BACKGROUNDS[: level.num_backgrounds])
        required = (Requirement("background", word=background),)
        return ClipPrompt(f"{a(shape)} on {background}", dimension, required)
    if dimension == "appearance_style":
        texture = pick(rng, TEXTURES[: level.num_textures])
        looks = {"shape": shape, "texture": texture}
        return ClipPrompt(a(f"{texture} {shape}"), dimension, (Requirement("has", looks),))
    direction, speed = pick(rng, tuple(DIRECTIONS)), pick(rng, tuple(SPEEDS))
    manner = "slowly" if speed == "slow" else "fast"
    if dimension == "action":
        return ClipPrompt(f"{a(shape)} moves {direction}", dimension, (), one, direction)
    if dimension == "temporal_style":
        text = f"{a(shape)} moves {direction} {manner}"
        return ClipPrompt(text, dimension, (), one, direction, speed)
    looks = {"shape": shape, "color": color}
    background = pick(rng, BACKGROUNDS[: level.num_backgrounds])
    still = (Requirement("has", looks), Requirement("background", word=background))
    text = f"{a(f'{color} {shape}')} moves {direction} {manner} on {background}"
    return ClipPrompt(text, "overall_consistency", still, looks, direction, speed)


# ------------------------------------------------------------------ judgement


def judge_clip(scenes: Sequence[Scene], prompt: ClipPrompt) -> float:
    """Return how far a clip does what its prompt asks for, in 0..1.

    The share of frames in which all that is still holds, times the share of frames that show what must move, where it
    moves as asked; else 0.
    """
    moved = 1.0 if prompt.mover is None else _moved(scenes, prompt)
    if not moved or not prompt.still:
        return moved
    return moved * float(np.mean([satisfied(scene, prompt.still) for scene in scenes]))


def _moved(scenes: Sequence[Scene], prompt: ClipPrompt) -> float:
    """The largest share of frames that show a thing like the mover going the asked way; 0 if none does."""
    assert prompt.mover is not None
    dx, dy = DIRECTIONS[prompt.direction]
    # Speeds are said of 8 frames; a clip of more goes as far in smaller steps.
    scale = scenes[0].scale * 8.0 / len(scenes)
    shown = 0.0
    for path in _paths(scenes, prompt.mover):
        steps = [(i - h, new.x - old.x, new.y - old.y) for (h, old), (i, new) in pairwise(path)]
        along = [(x * dx + y * dy) / scale for _, x, y in steps]
        across = [abs(x * dy + y * dx) / scale for _, x, y in steps]
        if sum(along) * 8.0 / len(scenes) < MOVED or sum(along) <= sum(across):
            continue
        paces = [way / frames for (frames, _, _), way in zip(steps, along, strict=True)]
        moving = [pace for pace in paces if pace > 0.5 * SPEEDS["slow"]]
        pace = sum(moving) / len(moving) if moving else 0.0
        if prompt.speed in ("", "fast" if pace > BETWEEN_SPEEDS else "slow"):
            shown = max(shown, len(path) / len(scenes))
    return shown


def _paths(scenes: Sequence[Scene], looks: Mapping[str, str]) -> list[list[tuple[int, Thing]]]:
    """Follow the things that look like ``looks`` from the first frame that shows one, over frames that show none.

    Returns (number of the frame, thing) for each frame in which it was found.
    """
    found: list[list[tuple[int, Thing]]] = []
    for index, scene in enumerate(scenes):
        like = [t for t in scene.things if all(getattr(t, k) == v for k, v in looks.items())]
        if not found:
            found = [[(index, thing)] for thing in like]
            continue
        for path in found:
            last = path[-1][1]
            same = [t for t in scene.things if (t.shape, t.color) == (last.shape, last.color)]
            if same:
                path.append(
                    (index, min(same, key=lambda t: math.hypot(t.x - last.x, t.y - last.y)))
                )
    return found


def tracks(scenes: Sequence[Scene]) -> list[list[Thing]]:
    """Follow the things of the first frame to the nearest of their shape and colour in each next one; a track ends
    where there is none."""
    found = []
    for thing in scenes[0].things if scenes else ():
        track = [thing]
        for scene in scenes[1:]:
            like = [t for t in scene.things if (t.shape, t.color) == (thing.shape, thing.color)]
            if not like:
                break
            last = track[-1]
            track.append(min(like, key=lambda t: math.hypot(t.x - last.x, t.y - last.y)))
        found.append(track)
    return found


# ------------------------------------------------------------------ quality


def clip_quality(frames: NDArray[np.uint8], scenes: Sequence[Scene]) -> dict[str, float]:
    """Return the scores QUALITY of one clip, uint8 ``(F, H, W, 3)`` with the scene of each frame, in 0..1.

    * ``subject_consistency``: mean over the later frames of the share of (shape, colour) things that the frame
      has in common with the first (intersection over union of multisets);
    * ``background_consistency``: share of later frames with the first one's background;
    * ``temporal_flickering``: (255 - mean absolute difference of neighbouring frames) / 255, VBench's formula;
    * ``motion_smoothness``: share of followed places within 1.5 pixels (of 64) of the middle between the places
      before and after; 1 where nothing can be followed over three frames, 0 where nothing is there at all;
    * ``dynamic_degree``: 1 if any thing comes further than 2 pixels (of 64).
    """
    counts = [Counter((thing.shape, thing.color) for thing in scene.things) for scene in scenes]
    first, scale = counts[0], scenes[0].scale
    both = [(first & other).total() / max(1, (first | other).total()) for other in counts[1:]]
    same = [scene.background == scenes[0].background for scene in scenes[1:]]
    difference = np.abs(np.diff(frames.astype(np.int16), axis=0)).mean() if len(frames) > 1 else 0.0
    ways, misses = [], []
    for track in tracks(scenes):
        ways.append(math.hypot(track[-1].x - track[0].x, track[-1].y - track[0].y) / scale)
        for before, here, after in zip(track, track[1:], track[2:], strict=False):
            x, y = (before.x + after.x) / 2, (before.y + after.y) / 2
            misses.append(math.hypot(here.x - x, here.y - y) / scale <= JERK)
    return {
        "subject_consistency": float(np.mean(both)) if both and first else 0.0,
        "background_consistency": float(np.mean(same)) if same else 0.0,
        "temporal_flickering": float(255.0 - difference) / 255.0,
        "motion_smoothness": float(np.mean(misses)) if misses else float(bool(ways)),
        "dynamic_degree": float(max(ways, default=0.0) > MOVED),
    }


def clip_total(scores: Mapping[str, float]) -> dict[str, float]:
    """Return ``quality``, ``semantic`` and ``total`` = (4 quality + semantic) / 5 of mean scores by dimension.

    VBench's weights without its published ranges, which belong to its own networks. Dimensions without a score
    are left out of the means; a total needs some of both.
    """
    found = {}
    for name, dimensions in (("quality", QUALITY), ("semantic", SEMANTIC)):
        held = {one: WEIGHTS.get(one, 1.0) for one in dimensions if one in scores}
        if held:
            found[name] = sum(scores[one] * w for one, w in held.items()) / sum(held.values())
    if len(found) == 2:
        found["total"] = (4.0 * found["quality"] + found["semantic"]) / 5.0
    return found
