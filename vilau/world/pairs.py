"""Pairs of yes/no questions about one scene, one answer each: the twin of MME.

The ten perception categories replace the real ones that need photographs (posters, celebrities, landmarks,
artwork) with shape, size, texture and relation; cognition asks for knowledge, sums, invented words and rules.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from vilau.world.families import CORNER_COUNTS, LOCATIONS, YES_NO, Question, region
from vilau.world.scene import Level, pick
from vilau.world.things import (
    BACKGROUNDS,
    COLOR_NAMES,
    OPPOSITE,
    RELATION_MARGIN,
    SIGN_WORDS,
    TEXTURES,
    Scene,
    Thing,
    relations,
)
from vilau.world.words import CORNERS, NUMBER_WORDS, PLURAL, a

PAIR_PERCEPTION = (
    "existence", "count", "position", "color", "shape", "size", "texture", "scene", "relation", "OCR",
)  # fmt: skip
PAIR_COGNITION = ("knowledge", "sum", "translation", "rule")
PAIR_CATEGORIES = PAIR_PERCEPTION + PAIR_COGNITION

INVENTED_COLORS = dict(
    zip(COLOR_NAMES, ("zor", "mip", "lun", "tavo", "keb", "sif", "ruda", "olm"), strict=True)
)
"""Words for the colours that only text teaches, see `invented_facts`."""


def invented_facts() -> list[str]:
    """Sentences that teach the invented words; a model that never read them guesses in ``translation``."""
    return [f"{word} means {color}" for color, word in INVENTED_COLORS.items()]


def possible_categories(level: Level) -> tuple[str, ...]:
    """The categories that scenes of a level can be asked about; a sign is needed for OCR."""
    absent = set() if level.signs else {"OCR"}
    if len(level.sizes) < 2:
        absent.add("size")
    if level.num_textures < 2:
        absent.add("texture")
    return tuple(category for category in PAIR_CATEGORIES if category not in absent)


def pair_questions(
    scene: Scene, rng: random.Random, category: str, level: Level
) -> tuple[Question, Question] | None:
    """Return a question whose answer is yes and one whose answer is no; None where the scene allows none."""
    texts = _MAKERS[category](scene, rng, level)
    if texts is None:
        return None
    yes, no = (
        Question(category, text, word, YES_NO) for text, word in zip(texts, YES_NO, strict=True)
    )
    return yes, no


Texts = tuple[str, str] | None


def _lone(scene: Scene, rng: random.Random) -> Thing | None:
    """A thing that its shape alone names."""
    shapes = [thing.shape for thing in scene.things]
    lone = [thing for thing in scene.things if shapes.count(thing.shape) == 1]
    return pick(rng, lone) if lone else None


def _lone_color(scene: Scene, rng: random.Random) -> Thing | None:
    colors = [thing.color for thing in scene.things]
    lone = [thing for thing in scene.things if colors.count(thing.color) == 1]
    return pick(rng, lone) if lone else None


def _other(rng: random.Random, words: Sequence[str], *not_these: str) -> str:
    return pick(rng, [word for word in words if word not in not_these])


def _existence(scene: Scene, rng: random.Random, level: Level) -> Texts:
    shown = [thing.shape for thing in scene.things]
    absent = _other(rng, level.shapes, *shown)
    return f"is there {a(pick(rng, shown))} ?", f"is there {a(absent)} ?"


def _counted(number: int, what: str) -> str:
    return f"{'is' if number == 1 else 'are'} there {NUMBER_WORDS[number]} {what}"


def _noun(shape: str, number: int) -> str:
    return shape if number == 1 else PLURAL[shape]


def _count(scene: Scene, rng: random.Random, level: Level) -> Texts:
    shape = pick(rng, scene.things).shape
    number = sum(thing.shape == shape for thing in scene.things)
    wrong = pick(rng, [n for n in (number - 1, number + 1) if 1 <= n < len(NUMBER_WORDS)])
    right_text, wrong_text = (f"{_counted(n, _noun(shape, n))} ?" for n in (number, wrong))
    return right_text, wrong_text


def _position(scene: Scene, rng: random.Random, level: Level) -> Texts:
    thing = _lone(scene, rng)
    place = None if thing is None else region(thing, scene.image_size)
    if thing is None or place is None:
        return None
    stem = f"is the {thing.shape} in the"
    return f"{stem} {place} ?", f"{stem} {_other(rng, LOCATIONS, place)} ?"


def _looks(attribute: str, words: Callable[[Level], Sequence[str]]) -> Callable[..., Texts]:
    def make(scene: Scene, rng: random.Random, level: Level) -> Texts:
        thing = _lone(scene, rng)
        if thing is None or (attribute == "texture" and thing.size == "small"):
            return None  # small things are always solid
        word = getattr(thing, attribute)
        stem = f"is the {thing.shape}"
        return f"{stem} {word} ?", f"{stem} {_other(rng, words(level), word)} ?"

    return make


def _shape(scene: Scene, rng: random.Random, level: Level) -> Texts:
    thing = _lone_color(scene, rng)
    if thing is None:
        return None
    stem = f"is the {thing.color} thing"
    return f"{stem} {a(thing.shape)} ?", f"{stem} {a(_other(rng, level.shapes, thing.shape))} ?"


def _scene(scene: Scene, rng: random.Random, level: Level) -> Texts:
    wrong = _other(rng, BACKGROUNDS[: level.num_backgrounds], scene.background)
    return f"is the background {scene.background} ?", f"is the background {wrong} ?"


def _relation(scene: Scene, rng: random.Random, level: Level) -> Texts:
    shapes = [thing.shape for thing in scene.things]
    lone = [thing for thing in scene.things if shapes.count(thing.shape) == 1]
    rng.shuffle(lone)
    for first, second in zip(lone, lone[1:], strict=False):
        for truth in relations(first, second, RELATION_MARGIN * scene.scale):
            stem = f"is the {first.shape}"
            return (
                f"{stem} {truth} the {second.shape} ?",
                f"{stem} {OPPOSITE[truth]} the {second.shape} ?",
            )
    return None


def _ocr(scene: Scene, rng: random.Random, level: Level) -> Texts:
    if scene.sign is None:
        return None
    wrong = _other(rng, SIGN_WORDS, scene.sign)
    return f"does the sign say {scene.sign} ?", f"does the sign say {wrong} ?"


def _knowledge(scene: Scene, rng: random.Random, level: Level) -> Texts:
    thing = _lone_color(scene, rng)
    if thing is None:
        return None
    corners = str(CORNERS[thing.shape])
    stem = f"does the {thing.color} thing have"
    return f"{stem} {corners} corners ?", f"{stem} {_other(rng, CORNER_COUNTS, corners)} corners ?"


def _sum(scene: Scene, rng: random.Random, level: Level) -> Texts:
    shapes = sorted({thing.shape for thing in scene.things})
    if len(shapes) < 2:
        return None
    first, second = rng.sample(shapes, 2)
    total = sum(thing.shape in (first, second) for thing in scene.things)
    wrong = pick(rng, [n for n in (total - 1, total + 1) if 1 < n < len(NUMBER_WORDS)])
    things = f"{PLURAL[first]} and {PLURAL[second]} together"
    return (
        f"are there {NUMBER_WORDS[total]} {things} ?",
        f"are there {NUMBER_WORDS[wrong]} {things} ?",
    )


def _translation(scene: Scene, rng: random.Random, level: Level) -> Texts:
    thing = _lone(scene, rng)
    if thing is None:
        return None
    wrong = _other(rng, level.colors, thing.color)
    right, other = (
        f"is the {thing.shape} {INVENTED_COLORS[color]} ?" for color in (thing.color, wrong)
    )
    return right, other


def _rule(scene: Scene, rng: random.Random, level: Level) -> Texts:
    shown = [thing.color for thing in scene.things]
    colors = (pick(rng, shown), _other(rng, level.colors, *shown))
    right, other = (f"if there is {a(color)} thing say yes , else say no ." for color in colors)
    return right, other


_MAKERS: dict[str, Callable[[Scene, random.Random, Level], Texts]] = {
    "existence": _existence,
    "count": _count,
    "position": _position,
    "color": _looks("color", lambda level: level.colors),
    "shape": _shape,
    "size": _looks("size", lambda level: level.sizes),
    "texture": _looks("texture", lambda level: TEXTURES[: level.num_textures]),
    "scene": _scene,
    "relation": _relation,
    "OCR": _ocr,
    "knowledge": _knowledge,
    "sum": _sum,
    "translation": _translation,
    "rule": _rule,
}
