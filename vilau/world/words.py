"""The small vocabulary that captions, questions and prompts share, and phrases that name things.

Text is lower case; words and punctuation marks are separated by single spaces.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from vilau.world.scene import pick
from vilau.world.things import SHAPES, Scene, Thing

PLURAL = {shape: f"{shape}es" if shape == "cross" else f"{shape}s" for shape in SHAPES}
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six")
CORNERS = {
    "circle": 0,
    "square": 4,
    "triangle": 3,
    "diamond": 4,
    "star": 10,
    "cross": 12,
    "ring": 0,
    "moon": 2,
}
"""Corners of each shape: knowledge that only text tells, no picture says it."""
RELATION_PHRASES = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
INTERACTION_PHRASES = {"touching": "touching", "covering": "covering part of", "inside": "inside"}


def article(word: str) -> str:
    """The indefinite article of a word or phrase: ``a`` or ``an``."""
    return "an" if word[0] in "aeiou" else "a"


def a(phrase: str) -> str:
    """A phrase with its indefinite article: ``an orange star``."""
    return f"{article(phrase)} {phrase}"


def noun(
    thing: Thing,
    *,
    size: bool = False,
    texture: bool = False,
    color: bool = True,
    part: bool = False,
) -> str:
    """Name a thing without article: ``small striped red star``. Solid texture is never said."""
    words = [thing.shape]
    if color:
        words.insert(0, thing.color)
    if texture and thing.texture != "solid":
        words.insert(0, thing.texture)
    if size:
        words.insert(0, thing.size)
    if part and thing.part is not None:
        kind, part_color = thing.part
        words.append(f"with {a(part_color)} {kind}")
    return " ".join(words)


def listing(phrases: Sequence[str]) -> str:
    """Join phrases: ``x``, ``x and y``, ``x , y and z``."""
    if len(phrases) == 1:
        return phrases[0]
    return " , ".join(phrases[:-1]) + " and " + phrases[-1]


def unique_things(scene: Scene) -> list[Thing]:
    """Things whose (colour, shape) no other thing of the scene shares."""
    pairs = [(thing.color, thing.shape) for thing in scene.things]
    return [
        thing for thing, pair in zip(scene.things, pairs, strict=True) if pairs.count(pair) == 1
    ]


def relation_phrase(relation: str, rng: random.Random) -> str:
    """One way to say a spatial relation."""
    return pick(rng, RELATION_PHRASES[relation])
