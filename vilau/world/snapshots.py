"""Pictures as somebody takes them who does not see them: blurred, dark, or turned away from what is asked (VizWiz)."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from vilau.world.families import Question, questions_by_thing
from vilau.world.render import render
from vilau.world.scene import pick
from vilau.world.things import Scene, Thing

BLURRED, DARK, CROPPED, UNANSWERABLE = "blurred", "dark", "cropped", "unanswerable"
KINDS = (BLURRED, DARK, CROPPED, UNANSWERABLE)
"""What is wrong with a picture; the last one, whose name is also the answer, shows a part of the scene without
the thing that is asked about."""
BLUR_RADIUS = 1.5
"""Standard deviation in pixels (of 64): colours can still be told, and the shapes of all but small things."""
DARKNESS = 0.3
"""Factor of all pixels."""
MARGIN = 2.0
"""Pixels (of 64) around a thing's radius that belong to it."""


@dataclass(frozen=True)
class Snapshot:
    """A picture of a scene with something wrong."""

    scene: Scene
    kind: str
    """One of ``KINDS``."""
    window: tuple[int, int, int]
    """Left, top and side of what it shows, in pixels of the scene's canvas."""

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The picture, uint8 ``(H, W, 3)`` of the scene's size."""
        size = self.scene.image_size
        image = Image.fromarray(render(self.scene))
        if self.kind == BLURRED:
            image = image.filter(ImageFilter.GaussianBlur(BLUR_RADIUS * size / 64))
        elif self.kind == DARK:
            image = image.point(lambda value: round(value * DARKNESS))
        else:
            left, top, side = self.window
            box = (left, top, left + side, top + side)
            image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
        return np.asarray(image)


def snapshot_question(
    scene: Scene, kind: str, rng: random.Random
) -> tuple[Snapshot, Question] | None:
    """Ask for the colour or the shape of a thing in a picture of ``kind``; None where the scene allows no such picture.

    In all but ``unanswerable`` ones the whole thing is seen; in these nothing of it, nor anything else that the
    question could mean.
    """
    asked = [
        (thing, question)
        for thing, question in questions_by_thing(scene)
        if not (kind == BLURRED and question.answer == thing.shape and thing.size == "small")
    ]
    if not asked:
        return None
    thing, question = pick(rng, asked)
    window = (0, 0, scene.image_size)
    if kind in (CROPPED, UNANSWERABLE):
        windows = _windows(scene, thing, seen=kind == CROPPED)
        if not windows:
            return None
        window = pick(rng, windows)
    answer = UNANSWERABLE if kind == UNANSWERABLE else question.answer
    choices = (*question.choices, UNANSWERABLE)
    return Snapshot(scene, kind, window), replace(
        question, family=kind, answer=answer, choices=choices
    )


def _windows(scene: Scene, thing: Thing, *, seen: bool) -> list[tuple[int, int, int]]:
    """Squares of half to three quarters of the canvas that hold the whole thing, or nothing of it."""
    size = scene.image_size
    step = size // 8
    reach = thing.radius + MARGIN * size / 64
    found = []
    for side in (size // 2, size * 5 // 8, size * 3 // 4):
        for left in range(0, size - side + 1, step):
            for top in range(0, size - side + 1, step):
                inside = all(
                    first <= at - reach and at + reach <= first + side - 1
                    for at, first in ((thing.x, left), (thing.y, top))
                )
                outside = any(
                    at + reach < first or at - reach > first + side - 1
                    for at, first in ((thing.x, left), (thing.y, top))
                )
                if inside if seen else outside:
                    found.append((left, top, side))
    return found
