"""The question families of the drawn world (the kinds of VQAv2 and GQA).

A family asks only what has one undoubted answer: a thing is referred to by words that fit no other
thing, directions hold by a margin, sizes differ by a word. Yes/no questions are put so that both
answers are equally likely in expectation.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import dataclass

from vilau.world.scene import Level, pick
from vilau.world.things import (
    BACKGROUNDS,
    COLOR_NAMES,
    INTERACTIONS,
    OPPOSITE,
    RELATION_MARGIN,
    SHAPES,
    SIGN_WORDS,
    SIZE_NAMES,
    TEXTURES,
    Scene,
    Thing,
    relations,
)
from vilau.world.words import CORNERS, PLURAL, a

FAMILIES = (
    "attribute",
    "identity",
    "location",
    "count",
    "exist",
    "relation",
    "relation_open",
    "compare",
    "scene",
    "knowledge",
    "text",
    "action",
)
YES_NO = ("yes", "no")
DIGITS = ("0", "1", "2", "3", "4", "5", "6")
LOCATIONS = tuple(
    f"{row} {column}"
    for row in ("top", "middle", "bottom")
    for column in ("left", "center", "right")
)
CORNER_COUNTS = tuple(str(number) for number in sorted(set(CORNERS.values())))
ANSWERS = {
    "color": COLOR_NAMES,
    "size": SIZE_NAMES,
    "texture": TEXTURES,
    "shape": SHAPES,
    "location": LOCATIONS,
    "count": DIGITS,
    "yes/no": YES_NO,
    "scene": BACKGROUNDS,
    "knowledge": CORNER_COUNTS,
    "text": SIGN_WORDS,
    "action": INTERACTIONS,
}
"""The closed answer list of every kind of question."""

LOCATION_DEAD_ZONE = 2.0
"""Pixels (of 64) on either side of a boundary between regions where nobody is asked for a place."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its one answer; chance is ``1 / len(choices)``."""

    family: str
    question: str
    answer: str
    choices: tuple[str, ...]


class _View:
    """A scene's counts and the words that single out each thing."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.shapes = Counter(thing.shape for thing in scene.things)
        self.colors = Counter(thing.color for thing in scene.things)
        self.pairs = Counter((thing.color, thing.shape) for thing in scene.things)
        # (thing, "star" or "red star"): the fewest words that fit this thing alone.
        self.named: list[tuple[Thing, str]] = []
        for thing in scene.things:
            if self.shapes[thing.shape] == 1:
                self.named.append((thing, thing.shape))
            elif self.pairs[thing.color, thing.shape] == 1:
                self.named.append((thing, f"{thing.color} {thing.shape}"))


def questions_by_family(
    scene: Scene, rng: random.Random, level: Level
) -> dict[str, list[Question]]:
    """The undoubted questions of a scene, grouped; families with nothing to ask are left out."""
    view = _View(scene)
    found = {
        "attribute": _attribute(view),
        "identity": _identity(view),
        "location": _location(view),
        "count": _count(view, rng, level),
        "exist": _exist(view, rng, level),
        "relation": _relation(view, rng),
        "relation_open": _relation_open(view),
        "compare": _compare(view, rng),
        "scene": [Question("scene", "what is the background ?", scene.background, BACKGROUNDS)],
        "knowledge": _knowledge(view),
        "text": _text(view),
        "action": _action(view),
    }
    return {family: items for family, items in found.items() if items}


def questions_by_thing(scene: Scene) -> list[tuple[Thing, Question]]:
    """The undoubted questions for the colour or the shape of one thing, each with the thing that it means."""
    view = _View(scene)
    colors = [(thing, _color(thing)) for thing, name in view.named if name == thing.shape]
    return colors + [(thing, _shape(thing)) for thing in _alone_in_color(view)]


def _alone_in_color(view: _View) -> list[Thing]:
    return [thing for thing in view.scene.things if view.colors[thing.color] == 1]


def _color(thing: Thing) -> Question:
    return Question("attribute", f"what color is the {thing.shape} ?", thing.color, COLOR_NAMES)


def _shape(thing: Thing) -> Question:
    return Question("identity", f"what shape is the {thing.color} thing ?", thing.shape, SHAPES)


def _attribute(view: _View) -> list[Question]:
    found = []
    for thing, name in view.named:
        if name == thing.shape:
            found.append(_color(thing))
        found.append(Question("attribute", f"what size is the {name} ?", thing.size, SIZE_NAMES))
        if thing.size != "small":  # small things are always solid
            text = f"is the {name} solid , striped , dotted or checked ?"
            found.append(Question("attribute", text, thing.texture, TEXTURES))
        if thing.part is not None:
            text = f"what color is the {thing.part[0]} of the {name} ?"
            found.append(Question("attribute", text, thing.part[1], COLOR_NAMES))
    return found


def _identity(view: _View) -> list[Question]:
    return [_shape(thing) for thing in _alone_in_color(view)]


def _knowledge(view: _View) -> list[Question]:
    # Asked by colour: the shape has to be seen and its corners known.
    found = []
    for thing in _alone_in_color(view):
        text = f"how many corners does the {thing.color} thing have ?"
        found.append(Question("knowledge", text, str(CORNERS[thing.shape]), CORNER_COUNTS))
    return found


def region(thing: Thing, image_size: int) -> str | None:
    """The ninth of the canvas a thing's centre lies in; None within the dead zone of a boundary."""
    words = []
    dead = LOCATION_DEAD_ZONE * image_size / 64.0
    for value, names in (
        (thing.y, ("top", "middle", "bottom")),
        (thing.x, ("left", "center", "right")),
    ):
        thirds = (value + 0.5) * 3.0 / image_size  # pixel centres lie at integers
        if any(abs(thirds - edge) * image_size / 3.0 < dead for edge in (1.0, 2.0)):
            return None
        words.append(names[min(2, max(0, int(thirds)))])
    return " ".join(words)


def _location(view: _View) -> list[Question]:
    found = []
    for thing, name in view.named:
        place = region(thing, view.scene.image_size)
        if place is not None:
            found.append(Question("location", f"where is the {name} ?", place, LOCATIONS))
    return found


def _count(view: _View, rng: random.Random, level: Level) -> list[Question]:
    counts = {f"{color} things": number for color, number in view.colors.items()}
    counts |= {PLURAL[shape]: number for shape, number in view.shapes.items()}
    counts |= {f"{c} {PLURAL[s]}": number for (c, s), number in view.pairs.items()}
    absent_color = pick(rng, [c for c in level.colors if c not in view.colors])
    absent_shape = pick(rng, [s for s in level.shapes if s not in view.shapes])
    color, shape = _absent_pair(view, rng, level)
    counts[f"{absent_color} things"] = counts[PLURAL[absent_shape]] = 0
    counts[f"{color} {PLURAL[shape]}"] = 0
    counts["things"] = len(view.scene.things)
    return [
        Question("count", f"how many {what} are there ?", str(number), DIGITS)
        for what, number in counts.items()
    ]


def _absent_pair(view: _View, rng: random.Random, level: Level) -> tuple[str, str]:
    """A pair the scene does not show; half of the time its colour and its shape are there apart."""
    mixed = [(c, s) for c in view.colors for s in view.shapes if (c, s) not in view.pairs]
    if mixed and rng.random() < 0.5:
        return pick(rng, mixed)
    return pick(
        rng, [(c, s) for c in level.colors for s in level.shapes if (c, s) not in view.pairs]
    )


def _exist(view: _View, rng: random.Random, level: Level) -> list[Question]:
    # For everything that is there, something of the same kind that is not.
    present = [f"{color} thing" for color in view.colors] + list(view.shapes)
    present += [f"{color} {shape}" for color, shape in view.pairs]
    absent = _some(
        rng, [f"{c} thing" for c in level.colors if c not in view.colors], len(view.colors)
    )
    absent += _some(rng, [s for s in level.shapes if s not in view.shapes], len(view.shapes))
    pairs = dict.fromkeys(_absent_pair(view, rng, level) for _ in view.pairs)
    absent += [f"{color} {shape}" for color, shape in pairs]
    num = min(len(present), len(absent))
    asked = [(what, "yes") for what in _some(rng, present, num)]
    asked += [(what, "no") for what in _some(rng, absent, num)]
    return [Question("exist", f"is there {a(what)} ?", answer, YES_NO) for what, answer in asked]


def _some(rng: random.Random, items: list[str], num: int) -> list[str]:
    return items if num >= len(items) else rng.sample(items, num)


def _relation(view: _View, rng: random.Random) -> list[Question]:
    found = []
    margin = RELATION_MARGIN * view.scene.scale
    for (first, first_name), (second, second_name) in itertools.permutations(view.named, 2):
        for truth in relations(first, second, margin):
            asked, answer = (truth, "yes") if rng.random() < 0.5 else (OPPOSITE[truth], "no")
            text = f"is the {first_name} {asked} the {second_name} ?"
            found.append(Question("relation", text, answer, YES_NO))
    return found


def _relation_open(view: _View) -> list[Question]:
    found = []
    margin = RELATION_MARGIN * view.scene.scale
    for anchor, name in view.named:
        others = [thing for thing in view.scene.things if thing is not anchor]
        for relation in OPPOSITE:
            # Nothing else may lie on that side at all, or a reader could name it too.
            side = [thing for thing in others if _lies(thing, relation, anchor)]
            if len(side) == 1 and relation in relations(side[0], anchor, margin):
                text = f"what shape is the thing {relation} the {name} ?"
                found.append(Question("relation_open", text, side[0].shape, SHAPES))
                text = f"what color is the thing {relation} the {name} ?"
                found.append(Question("relation_open", text, side[0].color, COLOR_NAMES))
    return found


def _lies(thing: Thing, relation: str, anchor: Thing) -> bool:
    dx, dy = thing.x - anchor.x, thing.y - anchor.y
    return {"left of": dx < 0, "right of": dx > 0, "above": dy < 0, "below": dy > 0}[relation]


def _compare(view: _View, rng: random.Random) -> list[Question]:
    asked: list[tuple[str, str]] = []
    same: dict[tuple[str, str], list[str]] = {}
    for pair in itertools.combinations(view.named, 2):
        (first, first_name), (second, second_name) = rng.sample(pair, 2)
        if first.size != second.size:
            larger = SIZE_NAMES.index(first.size) > SIZE_NAMES.index(second.size)
            text = f"is the {first_name} larger than the {second_name} ?"
            asked.append((text, "yes" if larger else "no"))
        for what, equal in (
            ("color", first.color == second.color),
            ("size", first.size == second.size),
        ):
            text = f"are the {first_name} and the {second_name} the same {what} ?"
            same.setdefault((what, "yes" if equal else "no"), []).append(text)
    # Two things rarely agree, so these are asked only where both answers occur, equally often.
    for what in ("color", "size"):
        agree, differ = same.get((what, "yes"), []), same.get((what, "no"), [])
        num = min(len(agree), len(differ))
        asked += [(text, "yes") for text in _some(rng, agree, num)]
        asked += [(text, "no") for text in _some(rng, differ, num)]
    for shapes in itertools.combinations(sorted(view.shapes), 2):
        one, two = rng.sample(shapes, 2)
        if view.shapes[one] != view.shapes[two]:
            more = view.shapes[one] > view.shapes[two]
            text = f"are there more {PLURAL[one]} than {PLURAL[two]} ?"
            asked.append((text, "yes" if more else "no"))
    return [Question("compare", text, answer, YES_NO) for text, answer in asked]


def _text(view: _View) -> list[Question]:
    if view.scene.sign is None:
        return []
    return [Question("text", "what does the sign say ?", view.scene.sign, SIGN_WORDS)]


def _action(view: _View) -> list[Question]:
    if view.scene.interaction is None:
        return []
    kind, i, j = view.scene.interaction
    first, second = view.scene.things[i], view.scene.things[j]
    names = [f"{thing.color} {thing.shape}" for thing in (first, second)]
    if any(view.pairs[thing.color, thing.shape] > 1 for thing in (first, second)):
        return []
    text = f"is the {names[0]} touching , covering or inside the {names[1]} ?"
    return [Question("action", text, kind, INTERACTIONS)]
