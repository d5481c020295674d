"""The twin of GenAI-Bench: 527 prompts whose skill tags are as many as the real ones'.

A prompt carries one to four tags; those of basic prompts are the five basic skills, those of advanced prompts
the five advanced ones. How many prompts carry which tags together is ours; the counts per tag, of basic (214)
and of advanced (313) prompts are the published file's.
"""

from __future__ import annotations

import random
from dataclasses import replace

from vilau.world.judge import Requirement
from vilau.world.prompts import (
    Pair,
    Prompt,
    counting_prompt,
    differentiation_prompt,
    larger_prompt,
    more_prompt,
    universal_prompt,
)
from vilau.world.scene import Level, pick, stream_rng
from vilau.world.things import BACKGROUNDS, PARTS, RELATIONS
from vilau.world.words import PLURAL, a, relation_phrase

BASIC, ADVANCED = "basic", "advanced"
_BASIC_TAGS = {
    "A": "attribute", "S": "scene", "R": "spatial relation", "T": "action relation", "P": "part relation",
}  # fmt: skip
_ADVANCED_TAGS = {
    "C": "counting", "M": "comparison", "D": "differentiation", "N": "negation", "U": "universal",
}  # fmt: skip
_BASIC_SETS = {
    "A": 11, "S": 9, "R": 7, "T": 7, "P": 2, "AS": 9, "AR": 8, "AT": 24, "AP": 3, "RS": 5, "ST": 12, "RT": 6,
    "PT": 3, "ARS": 14, "ART": 17, "AST": 22, "RST": 13, "APR": 4, "APT": 5, "PRT": 5, "ARST": 16, "APRS": 4,
    "APST": 3, "APRT": 3, "PRST": 2,
}  # fmt: skip
_ADVANCED_SETS = {
    "C": 31, "M": 33, "D": 70, "N": 65, "U": 26, "CD": 25, "CU": 15, "CM": 12, "CN": 14, "DN": 10, "MN": 6,
    "NU": 6,
}  # fmt: skip
NUM_PROMPTS = sum(_BASIC_SETS.values()) + sum(_ADVANCED_SETS.values())


def skill_prompts(level: Level, seed: int = 0) -> list[Prompt]:
    """Return the 527 prompts in the alphabet of a level; ``skills`` ends with ``basic`` or ``advanced``.

    All are asked on every level; `can_show` tells which of them pictures of a level can satisfy.
    """
    prompts = []
    for sets, names, kind, make in (
        (_BASIC_SETS, _BASIC_TAGS, BASIC, _basic),
        (_ADVANCED_SETS, _ADVANCED_TAGS, ADVANCED, _advanced),
    ):
        for tags, number in sets.items():
            for place in range(number):
                rng = stream_rng("skill prompts", seed, level.name, tags, place)
                skills = (*(names[tag] for tag in tags), kind)
                prompts.append(replace(make(rng, tags, level), skills=skills))
    stream_rng("skill prompts", seed, level.name).shuffle(prompts)
    return prompts


def can_show(prompt: Prompt, level: Level) -> bool:
    """Whether scenes of a level show what the prompt asks for: parts and touching are not on every level."""
    missing = set() if level.parts else {"part relation"}
    missing |= set() if level.interactions else {"action relation"}
    return not missing & set(prompt.skills)


def skill_file(prompts: list[Prompt]) -> dict[str, list[str]]:
    """Return the prompts' numbers by tag as GenAI-Bench's ``genai_skills.json`` has them: from 00001 on."""
    found: dict[str, list[str]] = {}
    for number, prompt in enumerate(prompts, start=1):
        for skill in prompt.skills:
            found.setdefault(skill, []).append(f"{number:05d}")
    return found


# ------------------------------------------------------------------ basic


def _basic(rng: random.Random, tags: str, level: Level) -> Prompt:
    """Compose ``a large red star with a blue dot touching a ring and left of it on grass`` as far as tagged."""
    colors, shapes = rng.sample(level.colors, 2), rng.sample(level.shapes, 2)
    first, words = _thing(rng, colors[0], shapes[0], tags, level)
    required = []
    text = a(" ".join(words))
    if "P" in tags:
        kind = "border" if shapes[0] in ("ring", "moon") else pick(rng, PARTS)
        part = pick(rng, [color for color in level.colors if color != colors[0]])
        text += f" with {a(part)} {kind}"
        required.append(Requirement("part", first, {"kind": kind, "color": part}))
    required.insert(0, Requirement("has", first))
    if "R" in tags or "T" in tags:
        second = {"shape": shapes[1]} | ({"color": colors[1]} if "A" in tags else {})
        other = a(" ".join([*([colors[1]] if "A" in tags else []), shapes[1]]))
        relation = pick(rng, RELATIONS)
        required.append(Requirement("has", second))
        if "T" in tags:
            text += f" touching {other}"
            required.append(Requirement("touching", first, second))
        if "R" in tags:
            phrase = relation_phrase(relation, rng)
            text += f" and {phrase} it" if "T" in tags else f" {phrase} {other}"
            required.append(Requirement("relation", first, second, word=relation))
    if "S" in tags:
        background = pick(rng, BACKGROUNDS[: level.num_backgrounds])
        text += f" on {background}"
        required.append(Requirement("background", word=background))
    return Prompt(text, (), tuple(required))


def _thing(
    rng: random.Random, color: str, shape: str, tags: str, level: Level
) -> tuple[dict[str, str], list[str]]:
    """Looks of the first thing, and the words for them: attributes only where tagged; parts need a large one."""
    looks = {"shape": shape}
    if "A" in tags:
        looks["color"] = color
    if "P" in tags:
        looks["size"] = "large"
    elif "A" in tags and rng.random() < 0.5:
        looks["size"] = pick(rng, level.sizes)
    return looks, [looks[name] for name in ("size", "color", "shape") if name in looks]


# ------------------------------------------------------------------ advanced


def _advanced(rng: random.Random, tags: str, level: Level) -> Prompt:
    main = tags.replace("N", "") or "N"
    prompt = _clause(rng, main, level)
    if "N" not in tags or main == "N":
        return prompt
    absent = pick(rng, [shape for shape in level.shapes if shape not in _shapes(prompt)])
    return Prompt(
        f"{prompt.text} and no {PLURAL[absent]}", (), (*prompt.requirements, _none(absent))
    )


def _clause(rng: random.Random, tags: str, level: Level) -> Prompt:
    color1, color2 = rng.sample(level.colors, 2)
    shape1, shape2 = rng.sample(level.shapes, 2)
    number = rng.randint(2, min(4, level.num_objects[1]))
    first, second = (color1, shape1), (color2, shape2)
    if tags == "C":
        return counting_prompt(first, number)
    if tags == "M":
        return larger_prompt(first, second)
    if tags == "CM":
        return more_prompt(shape1, shape2)
    if tags == "CD":
        return differentiation_prompt(shape1, color1, color2)
    if tags == "D":
        return _two_unlike(shape1, color1, color2)
    if tags == "CU":
        return universal_prompt(number, color1)
    if tags == "U":
        text = f"some things , all of them are {color1}"
        return Prompt(text, (), (Requirement("all_are", {"color": color1}),))
    return _negation(first, shape2)


def _two_unlike(shape: str, first: str, second: str) -> Prompt:
    text = f"{a(f'{first} {shape}')} and another {shape} that is {second}"
    looks = [{"color": color, "shape": shape} for color in (first, second)]
    return Prompt(text, (), tuple(Requirement("has", one) for one in looks))


def _negation(pair: Pair, absent: str) -> Prompt:
    looks = {"color": pair[0], "shape": pair[1]}
    text = f"{a(' '.join(pair))} and no {PLURAL[absent]}"
    return Prompt(text, (), (Requirement("has", looks), _none(absent)))


def _none(shape: str) -> Requirement:
    return Requirement("count", {"shape": shape}, op="==", value=0)


def _shapes(prompt: Prompt) -> set[str]:
    return {looks.get("shape", "") for r in prompt.requirements for looks in (r.a, r.b)}
