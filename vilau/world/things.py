"""What a picture of the drawn world may hold: alphabet, things, scenes, and what is true of them.

A scene is the ground truth. Captions, questions, prompts and judgements are computed from it, never
from pixels. Lengths are pixels; the canvas of reference has 64, and everything scales with
``image_size / 64``.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import Any

from vilau.errors import DataError
from vilau.world.shapes import SHAPES

WORLD_VERSION = "1"
"""Part of every hash of a drawn data set: a new value makes all cached sets anew."""

COLORS = {
    "red": (222, 38, 40),
    "green": (52, 190, 66),
    "blue": (62, 92, 240),
    "yellow": (242, 222, 52),
    "purple": (168, 62, 206),
    "cyan": (62, 214, 226),
    "orange": (248, 140, 34),
    "white": (246, 246, 246),
}
COLOR_NAMES = tuple(COLORS)
# Gaps lie between the ranges, so that a size word is never in doubt.
SIZES = {"small": (4.0, 5.0), "medium": (6.5, 7.5), "large": (9.5, 11.0)}
SIZE_NAMES = tuple(SIZES)
TEXTURES = ("solid", "striped", "dotted", "checked")
BACKGROUNDS = ("black", "grey", "dirt", "night", "sea", "grass")
RELATIONS = ("left of", "right of", "above", "below")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
INTERACTIONS = ("touching", "covering", "inside")
PARTS = ("border", "dot")
SIGN_WORDS = (
    "stop", "exit", "open", "shop", "cafe", "taxi", "bus", "bar", "zoo", "park", "bank", "sale",
    "east", "west", "cat", "hat", "bat", "hut", "cup", "cap", "boat", "coat", "ball", "bell",
    "tall", "book", "look", "cook", "pole", "hole", "toy", "boy",
)  # fmt: skip
"""What signs say. Many words differ in one letter, so a reader has to read them all."""

# Combinations that `train`, `val` and `test` never show; every scene of `comp` shows at least one.
# The (colour, shape) pairs form a Latin diagonal: each colour and each shape loses one partner.
HELD_OUT_COLOR_SHAPE = frozenset((COLOR_NAMES[i], SHAPES[(3 * i + 1) % 8]) for i in range(8))
HELD_OUT_TEXTURE_SHAPE = frozenset((TEXTURES[1 + i % 3], SHAPES[(5 * i + 2) % 8]) for i in range(6))
HELD_OUT_COUNT_COLOR = frozenset({(4, "cyan"), (3, "orange"), (2, "purple")})
HELD_OUT_RELATIONS = frozenset(
    {
        ("star", "left of", "cross"),
        ("ring", "above", "moon"),
        ("square", "right of", "triangle"),
        ("diamond", "below", "circle"),
    }
)

RELATION_MARGIN = 4.0
"""Pixels (of 64) by which a stated relation must hold."""
SPACING = 1.15
"""Things that do not interact are further apart than ``SPACING * (r1 + r2) + 1``."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One drawn object, centred at (x, y); ``part`` is ``("border" | "dot", colour)``."""

    shape: str
    color: str
    size: str
    texture: str
    x: float
    y: float
    radius: float
    part: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """Things on a background, drawn in order (a later thing lies over an earlier one).

    ``interaction`` is ``(kind, i, j)``: thing i is touching, covering or inside thing j. ``seed``
    decides the background's grain. ``rough`` scenes have finer textures, jittered colours and
    pixel noise.
    """

    things: tuple[Thing, ...]
    background: str
    image_size: int
    sign: str | None = None
    sign_xy: tuple[int, int] | None = None
    interaction: tuple[str, int, int] | None = None
    seed: int = 0
    rough: bool = False

    @property
    def scale(self) -> float:
        """Pixels per pixel of the 64-pixel canvas."""
        return self.image_size / 64.0

    def to_json(self) -> str:
        """Compact JSON; ``Scene.from_json`` gives back an equal scene."""
        things = [
            [t.shape, t.color, t.size, t.texture, t.x, t.y, t.radius, *(t.part or ())]
            for t in self.things
        ]
        record: dict[str, Any] = {"things": things, "on": self.background, "px": self.image_size}
        if self.sign is not None:
            record["sign"] = [self.sign, *(self.sign_xy or ())]
        if self.interaction is not None:
            record["act"] = self.interaction
        if self.rough:
            record["rough"] = 1
        record["seed"] = self.seed
        return json.dumps(record, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Scene:
        """Read what ``to_json`` wrote; raises DataError if it is something else."""
        try:
            record = json.loads(text)
            things = tuple(_thing_from(fields) for fields in record["things"])
            sign, *xy = record.get("sign", [None])
            act = record.get("act")
            return Scene(
                things=things,
                background=record["on"],
                image_size=record["px"],
                sign=sign,
                sign_xy=(xy[0], xy[1]) if xy else None,
                interaction=(act[0], act[1], act[2]) if act else None,
                seed=record["seed"],
                rough=bool(record.get("rough", 0)),
            )
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise DataError(
                f"scene {text[:60]!r} is not a scene of the drawn world ({error!r}); "
                "write the string that Scene.to_json() gives."
            ) from error


def _thing_from(fields: list[Any]) -> Thing:
    shape, color, size, texture, x, y, radius, *part = fields
    return Thing(shape, color, size, texture, x, y, radius, (part[0], part[1]) if part else None)


# ------------------------------------------------------------------ what holds in a scene


def relations(a: Thing, b: Thing, margin: float = RELATION_MARGIN) -> tuple[str, ...]:
    """Where ``a`` is, seen from ``b``: the one of RELATIONS that holds by ``margin`` pixels, or ().

    Only the axis along which the two are further apart counts, so a stated direction is never in
    doubt.
    """
    dx, dy = b.x - a.x, b.y - a.y
    if abs(dx) > abs(dy):
        if abs(dx) > margin:
            return ("left of",) if dx > 0 else ("right of",)
    elif abs(dy) > margin:
        return ("above",) if dy > 0 else ("below",)
    return ()


def held_out(scene: Scene) -> bool:
    """Whether the scene shows a combination that no training scene shows."""
    counts: dict[str, int] = {}
    for thing in scene.things:
        if (thing.color, thing.shape) in HELD_OUT_COLOR_SHAPE:
            return True
        if (thing.texture, thing.shape) in HELD_OUT_TEXTURE_SHAPE:
            return True
        counts[thing.color] = counts.get(thing.color, 0) + 1
    if any((count, color) in HELD_OUT_COUNT_COLOR for color, count in counts.items()):
        return True
    margin = RELATION_MARGIN * scene.scale
    return any(
        (a.shape, relation, b.shape) in HELD_OUT_RELATIONS
        for a, b in itertools.permutations(scene.things, 2)
        for relation in relations(a, b, margin)
    )
