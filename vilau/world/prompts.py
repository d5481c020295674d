"""Prompts to draw, by skill, each with what a judge must find (the twin of GenAI-Bench)."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from vilau.errors import ConfigError
from vilau.world.judge import Requirement
from vilau.world.scene import Level, pick
from vilau.world.things import (
    BACKGROUNDS,
    HELD_OUT_COLOR_SHAPE,
    HELD_OUT_COUNT_COLOR,
    HELD_OUT_RELATIONS,
    HELD_OUT_TEXTURE_SHAPE,
    PARTS,
    RELATION_MARGIN,
    RELATIONS,
    SHAPES,
    SIZE_NAMES,
    TEXTURES,
    Scene,
    Thing,
    relations,
)
from vilau.world.words import NUMBER_WORDS, PLURAL, a, relation_phrase

BASIC_SKILLS = (
    "attribute",
    "scene",
    "spatial relation",
    "action relation",
    "part relation",
)
ADVANCED_SKILLS = ("counting", "comparison", "differentiation", "negation", "universal")
SKILLS = BASIC_SKILLS + ADVANCED_SKILLS


@dataclass(frozen=True)
class Prompt:
    """A text to draw, the skills it asks for (the first is its own), and its requirements."""

    text: str
    skills: tuple[str, ...]
    requirements: tuple[Requirement, ...]


Pair = tuple[str, str]
"""A colour and a shape."""


def _named(pair: Pair) -> dict[str, str]:
    return {"color": pair[0], "shape": pair[1]}


# ------------------------------------------------------------------ one maker per sentence


def attribute_prompt(pair: Pair, size: str | None = None, texture: str | None = None) -> Prompt:
    """``a large striped red star``; solid texture is not spoken of and not required."""
    spoken = None if texture == "solid" else texture
    words = [word for word in (size, spoken, *pair) if word is not None]
    looks = _named(pair)
    if size is not None:
        looks["size"] = size
    if spoken is not None:
        looks["texture"] = spoken
    return Prompt(a(" ".join(words)), ("attribute",), (Requirement("has", looks),))


def scene_prompt(pair: Pair, background: str) -> Prompt:
    """``a red star on grass``."""
    return Prompt(
        f"{a(' '.join(pair))} on {background}",
        ("scene", "attribute"),
        (Requirement("has", _named(pair)), Requirement("background", word=background)),
    )


def relation_prompt(first: Pair, relation: str, second: Pair, rng: random.Random) -> Prompt:
    """``a red star left of a blue ring``."""
    return Prompt(
        f"{a(' '.join(first))} {relation_phrase(relation, rng)} {a(' '.join(second))}",
        ("spatial relation", "attribute"),
        (
            Requirement("has", _named(first)),
            Requirement("has", _named(second)),
            Requirement("relation", _named(first), _named(second), word=relation),
        ),
    )


def touching_prompt(first: Pair, second: Pair) -> Prompt:
    """``a red star touching a blue ring``."""
    return Prompt(
        f"{a(' '.join(first))} touching {a(' '.join(second))}",
        ("action relation", "attribute"),
        (
            Requirement("has", _named(first)),
            Requirement("has", _named(second)),
            Requirement("touching", _named(first), _named(second)),
        ),
    )


def part_prompt(pair: Pair, kind: str, color: str) -> Prompt:
    """``a large red star with a blue border``."""
    looks = {**_named(pair), "size": "large"}
    return Prompt(
        f"a large {' '.join(pair)} with {a(color)} {kind}",
        ("part relation", "attribute"),
        (
            Requirement("has", looks),
            Requirement("part", looks, {"kind": kind, "color": color}),
        ),
    )


def counting_prompt(pair: Pair, number: int) -> Prompt:
    """``three red stars``: exactly so many."""
    noun = " ".join(pair) if number == 1 else f"{pair[0]} {PLURAL[pair[1]]}"
    requirement = Requirement("count", _named(pair), op="==", value=number)
    return Prompt(f"{NUMBER_WORDS[number]} {noun}", ("counting",), (requirement,))


def larger_prompt(first: Pair, second: Pair) -> Prompt:
    """``a red star larger than a blue ring``."""
    return Prompt(
        f"{a(' '.join(first))} larger than {a(' '.join(second))}",
        ("comparison",),
        (
            Requirement("has", _named(first)),
            Requirement("has", _named(second)),
            Requirement("larger", _named(first), _named(second)),
        ),
    )


def more_prompt(first: str, second: str) -> Prompt:
    """``more stars than rings``: there are some of both."""
    return Prompt(
        f"more {PLURAL[first]} than {PLURAL[second]}",
        ("comparison", "counting"),
        (
            Requirement("has", {"shape": second}),
            Requirement("more_than", {"shape": first}, {"shape": second}),
        ),
    )


def differentiation_prompt(shape: str, first: str, second: str) -> Prompt:
    """``two stars , one is red and the other is blue``."""
    return Prompt(
        f"two {PLURAL[shape]} , one is {first} and the other is {second}",
        ("differentiation", "counting"),
        (
            Requirement("count", {"shape": shape}, op="==", value=2),
            Requirement("has", {"color": first, "shape": shape}),
            Requirement("has", {"color": second, "shape": shape}),
        ),
    )


def negation_prompt(pair: Pair, absent: str) -> Prompt:
    """``a red star and no rings``: an empty picture fails."""
    return Prompt(
        f"{a(' '.join(pair))} and no {PLURAL[absent]}",
        ("negation",),
        (
            Requirement("has", _named(pair)),
            Requirement("count", {"shape": absent}, op="==", value=0),
        ),
    )


def universal_prompt(number: int, color: str) -> Prompt:
    """``three things , all of them are blue``."""
    return Prompt(
        f"{NUMBER_WORDS[number]} things , all of them are {color}",
        ("universal", "counting"),
        (
            Requirement("count", {}, op="==", value=number),
            Requirement("all_are", {"color": color}),
        ),
    )


# ------------------------------------------------------------------ prompts at random


def sample_prompt(rng: random.Random, skill: str, level: Level, *, held_out: str = "any") -> Prompt:
    """Draw a prompt of ``skill`` from the alphabet of ``level``.

    ``held_out``: ``exclude`` leaves out prompts that ask for a combination no training scene shows,
    ``only`` gives nothing else (skills without such combinations cannot), ``any`` does not care.
    Raises ConfigError for an unknown skill or rule, or if the rule leaves nothing.
    """
    if skill not in SKILLS:
        raise ConfigError(f"skill is {skill!r}; write one of {', '.join(SKILLS)}.")
    if held_out not in ("exclude", "only", "any"):
        raise ConfigError(f"held_out is {held_out!r}; write one of exclude, only, any.")
    for _ in range(5_000):
        prompt = _random_prompt(rng, skill, level)
        if held_out == "any" or asks_held_out(prompt) == (held_out == "only"):
            return prompt
    raise ConfigError(
        f"held_out is {held_out!r}, but {skill!r} prompts of level {level.name!r} have none; "
        "write 'any' or another skill."
    )


def _random_prompt(rng: random.Random, skill: str, level: Level) -> Prompt:
    color1, color2 = rng.sample(level.colors, 2)
    shape1, shape2 = rng.sample(level.shapes, 2)
    first, second = (color1, shape1), (color2, shape2)
    number = rng.randint(2, min(4, level.num_objects[1]))
    makers: dict[str, Callable[[], Prompt]] = {
        "attribute": lambda: attribute_prompt(first, *_size_and_texture(rng, level)),
        "scene": lambda: scene_prompt(first, pick(rng, BACKGROUNDS[: level.num_backgrounds])),
        "spatial relation": lambda: relation_prompt(first, pick(rng, RELATIONS), second, rng),
        "action relation": lambda: touching_prompt(first, second),
        "part relation": lambda: _random_part_prompt(rng, first, color2),
        "counting": lambda: counting_prompt(first, number),
        "comparison": lambda: (
            larger_prompt(first, second) if rng.random() < 0.5 else more_prompt(shape1, shape2)
        ),
        "differentiation": lambda: differentiation_prompt(shape1, color1, color2),
        "negation": lambda: negation_prompt(first, shape2),
        "universal": lambda: universal_prompt(number, color1),
    }
    return makers[skill]()


def _random_part_prompt(rng: random.Random, pair: Pair, color: str) -> Prompt:
    kind = "border" if pair[1] in ("ring", "moon") else pick(rng, PARTS)
    return part_prompt(pair, kind, color)


def _size_and_texture(rng: random.Random, level: Level) -> tuple[str, str]:
    size = pick(rng, level.sizes)
    textures = TEXTURES[:1] if size == "small" else TEXTURES[: level.num_textures]
    return size, pick(rng, textures)


def asks_held_out(prompt: Prompt) -> bool:
    """Whether the prompt names a combination that no training scene shows."""
    return any(_asks_held_out(requirement) for requirement in prompt.requirements)


def _asks_held_out(requirement: Requirement) -> bool:
    for looks in (requirement.a, requirement.b):
        shape = looks.get("shape", "")
        if (looks.get("color", ""), shape) in HELD_OUT_COLOR_SHAPE:
            return True
        if (looks.get("texture", ""), shape) in HELD_OUT_TEXTURE_SHAPE:
            return True
    color, shape = requirement.a.get("color", ""), requirement.a.get("shape", "")
    if requirement.kind == "count" and (requirement.value, color) in HELD_OUT_COUNT_COLOR:
        return True
    return (shape, requirement.word, requirement.b.get("shape", "")) in HELD_OUT_RELATIONS


# ------------------------------------------------------------------ prompts that are true


def true_prompt(scene: Scene, rng: random.Random) -> str:
    """A prompt of a random skill that is true of the scene, for training a model to draw."""
    return describe(scene, rng).text


def describe(scene: Scene, rng: random.Random) -> Prompt:
    """The same with skills and requirements: a random skill that fits, then one of its prompts."""
    makers = list(_TRUE_PROMPTS.values())
    rng.shuffle(makers)
    for maker in makers:
        found = maker(scene, rng)
        if found:
            return pick(rng, found)
    raise ConfigError("the scene is empty: no prompt is true of it; draw at least one object.")


def true_prompts(scene: Scene, rng: random.Random, skill: str) -> list[Prompt]:
    """All prompts of one skill that are true of the scene; none where it shows nothing of the kind."""
    return _TRUE_PROMPTS[skill](scene, rng)


def _pair(thing: Thing) -> Pair:
    return thing.color, thing.shape


def _true_attribute(scene: Scene, rng: random.Random) -> list[Prompt]:
    return [
        attribute_prompt(
            _pair(thing),
            thing.size if rng.random() < 0.5 else None,
            thing.texture if rng.random() < 0.5 else None,
        )
        for thing in scene.things
    ]


def _true_scene(scene: Scene, rng: random.Random) -> list[Prompt]:
    return [scene_prompt(_pair(thing), scene.background) for thing in scene.things]


def _true_relation(scene: Scene, rng: random.Random) -> list[Prompt]:
    margin = RELATION_MARGIN * scene.scale
    return [
        relation_prompt(_pair(first), relation, _pair(second), rng)
        for first, second in itertools.permutations(scene.things, 2)
        for relation in relations(first, second, margin)
        if _pair(first) != _pair(second)
    ]


def _true_action(scene: Scene, rng: random.Random) -> list[Prompt]:
    if scene.interaction is None or scene.interaction[0] != "touching":
        return []
    first, second = (_pair(scene.things[i]) for i in scene.interaction[1:])
    return [touching_prompt(first, second), touching_prompt(second, first)] * (first != second)


def _true_part(scene: Scene, rng: random.Random) -> list[Prompt]:
    return [part_prompt(_pair(thing), *thing.part) for thing in scene.things if thing.part]


def _true_counting(scene: Scene, rng: random.Random) -> list[Prompt]:
    numbers = Counter(map(_pair, scene.things))
    return [counting_prompt(pair, number) for pair, number in numbers.items()]


def _true_comparison(scene: Scene, rng: random.Random) -> list[Prompt]:
    found = [
        larger_prompt(_pair(first), _pair(second))
        for first, second in itertools.permutations(scene.things, 2)
        if SIZE_NAMES.index(first.size) > SIZE_NAMES.index(second.size)
        if _pair(first) != _pair(second)
    ]
    numbers = Counter(thing.shape for thing in scene.things)
    found += [
        more_prompt(first, second)
        for first, second in itertools.permutations(numbers, 2)
        if numbers[first] > numbers[second]
    ]
    return found


def _true_differentiation(scene: Scene, rng: random.Random) -> list[Prompt]:
    numbers = Counter(thing.shape for thing in scene.things)
    return [
        differentiation_prompt(first.shape, first.color, second.color)
        for first, second in itertools.permutations(scene.things, 2)
        if first.shape == second.shape and first.color != second.color
        if numbers[first.shape] == 2
    ]


def _true_negation(scene: Scene, rng: random.Random) -> list[Prompt]:
    shown = {thing.shape for thing in scene.things}
    absent = pick(rng, [shape for shape in SHAPES if shape not in shown])
    return [negation_prompt(_pair(thing), absent) for thing in scene.things]


def _true_universal(scene: Scene, rng: random.Random) -> list[Prompt]:
    colors = {thing.color for thing in scene.things}
    if len(colors) != 1 or len(scene.things) < 2:
        return []
    return [universal_prompt(len(scene.things), colors.pop())]


_TRUE_PROMPTS: dict[str, Callable[[Scene, random.Random], list[Prompt]]] = {
    "attribute": _true_attribute,
    "scene": _true_scene,
    "spatial relation": _true_relation,
    "action relation": _true_action,
    "part relation": _true_part,
    "counting": _true_counting,
    "comparison": _true_comparison,
    "differentiation": _true_differentiation,
    "negation": _true_negation,
    "universal": _true_universal,
}
