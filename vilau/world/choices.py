"""Questions with four lettered options: the twins of SEED-Bench, MMBench and ScienceQA."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vilau.world.clip_language import clip_questions, named_motions
from vilau.world.clips import DIRECTIONS, Clip, Motion, thing_at
from vilau.world.families import LOCATIONS, Question, questions_by_family, region
from vilau.world.scene import Level, pick
from vilau.world.things import (
    BACKGROUNDS,
    COLOR_NAMES,
    RELATION_MARGIN,
    RELATIONS,
    TEXTURES,
    Scene,
    relations,
)

OPTIONS = 4
LETTERS = "ABCD"
IMAGE_DIMENSIONS = (
    "scene", "identity", "attribute", "location", "count", "relation", "action", "knowledge", "text",
)  # fmt: skip
"""SEED-Bench's nine about pictures, in its order, named as in `vilau.world.families`."""
VIDEO_DIMENSIONS = ("recognition", "prediction", "procedure")
APART = "none of these"
FRAMES_AHEAD = 3
"""How far ``prediction`` looks beyond the last frame."""
PROPERTIES = ("hot", "cold", "heavy", "light")
"""What ScienceQA's twin says of colours in its hint."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A question with four options, of which one is right."""

    question: Question
    """Its ``choices`` are the options, in order."""
    hint: str = ""

    @property
    def letter(self) -> str:
        """The right option's letter."""
        return self.letter_of(self.question.answer)

    def letter_of(self, option: str) -> str:
        """The letter of an option."""
        return LETTERS[self.question.choices.index(option)]

    def rotated(self, steps: int) -> Choice:
        """The same with the options moved on by so many places, as MMBench's circular evaluation has them."""
        options = self.question.choices
        turned = options[-steps % OPTIONS :] + options[: -steps % OPTIONS]
        asked = self.question
        return Choice(Question(asked.family, asked.question, asked.answer, turned), self.hint)

    def text(self, ending: str = "") -> str:
        """The question with its options a line each, as SEED-Bench is asked."""
        lines = [f"Context: {self.hint}"] if self.hint else []
        lines.append(self.question.question)
        lines += [
            f"{letter}. {o}" for letter, o in zip(LETTERS, self.question.choices, strict=True)
        ]
        return "\n".join(lines) + ending


def possible_dimensions(level: Level) -> tuple[str, ...]:
    """The dimensions about pictures that scenes of a level can be asked about."""
    absent = set() if level.signs else {"text"}
    absent |= set() if level.interactions else {"action"}
    absent |= {"scene"} if level.num_backgrounds < OPTIONS else set()
    return tuple(name for name in IMAGE_DIMENSIONS if name not in absent)


def scene_choice(scene: Scene, rng: random.Random, dimension: str, level: Level) -> Choice | None:
    """Ask about one of IMAGE_DIMENSIONS with four options; None where the scene allows no question."""
    if dimension == "relation":
        found = _relations(scene)
    else:
        found = questions_by_family(scene, rng, level).get(dimension, [])
    if dimension == "action":
        # Three ways to meet are too few for four options.
        found = [
            Question(q.family, f"what does the picture show of this : {q.question}", q.answer, (*q.choices, APART))
            for q in found
        ]  # fmt: skip
    return _offered(found, rng, set(_alphabet(level)))


def _alphabet(level: Level) -> tuple[str, ...]:
    """Words of the kinds that a level may use in part; wrong options are no others."""
    backgrounds = BACKGROUNDS[: level.num_backgrounds]
    return (*level.colors, *level.shapes, *TEXTURES[: level.num_textures], *backgrounds)


def _relations(scene: Scene) -> list[Question]:
    shapes = [thing.shape for thing in scene.things]
    lone = [thing for thing in scene.things if shapes.count(thing.shape) == 1]
    return [
        Question(
            "relation", f"where is the {one.shape} , seen from the {two.shape} ?", truth, RELATIONS
        )
        for one, two in itertools.permutations(lone, 2)
        for truth in relations(one, two, RELATION_MARGIN * scene.scale)
    ]


def _offered(
    found: Sequence[Question], rng: random.Random, known: set[str] | None = None
) -> Choice | None:
    """Offer the answer of one of the questions among three wrong ones of its kind.

    Where ``known`` holds enough words of the kind, the wrong ones are among them.
    """
    found = [question for question in found if len(question.choices) >= OPTIONS]
    if not found:
        return None
    answer = pick(
        rng, sorted({question.answer for question in found})
    )  # else most counts are 0 or 1
    question = pick(rng, [question for question in found if question.answer == answer])
    wrong = [word for word in question.choices if word != answer]
    likely = [word for word in wrong if known and word in known]
    options = [answer, *rng.sample(likely if len(likely) >= OPTIONS - 1 else wrong, OPTIONS - 1)]
    rng.shuffle(options)
    return Choice(Question(question.family, question.question, answer, tuple(options)))


# ------------------------------------------------------------------ clips


def clip_choice(clip: Clip, rng: random.Random, dimension: str) -> Choice | None:
    """Ask about one of VIDEO_DIMENSIONS with four options; None where the clip allows no question."""
    if dimension == "recognition":
        found = [question for question in clip_questions(clip, rng) if question.family == "motion"]
        return _offered(found, rng)
    return _offered(_predictions(clip), rng) if dimension == "prediction" else _procedure(clip, rng)


def _predictions(clip: Clip) -> list[Question]:
    """Where things are that still move at the end, FRAMES_AHEAD frames later."""
    found = []
    size = clip.scene.image_size
    for index, name, motion in named_motions(clip):
        if motion.kind != "move" or motion.end < clip.num_frames:
            continue
        last, before = (thing_at(clip, index, clip.num_frames - back) for back in (1, 2))
        assert last is not None
        assert before is not None
        x, y = (new + FRAMES_AHEAD * (new - old)
                for new, old in ((last.x, before.x), (last.y, before.y)))  # fmt: skip
        inside = all(last.radius <= value <= size - 1 - last.radius for value in (x, y))
        place = region(replace(last, x=x, y=y), size) if inside else None
        if place is not None:
            text = f"where will the {name} be next ?"
            found.append(Question("prediction", text, place, LOCATIONS))
    return found


def _procedure(clip: Clip, rng: random.Random) -> Choice | None:
    """What happens first: a thing's deed, against what others do later and what nobody does."""
    busy = [one for one in named_motions(clip) if one[2].kind != "stay"]
    others = sum(motion.kind != "stay" for motion in clip.motions) - len(busy)
    starts = sorted(motion.start for _, _, motion in busy)
    if others or len(busy) < 2 or starts[0] == starts[1]:
        return None
    busy.sort(key=lambda one: one[2].start)
    (_, first, motion), (_, second, later) = busy[:2]
    done = {deed(motion), deed(later)}
    wrong = rng.sample([verb for verb in _DEEDS if verb not in done], OPTIONS - 2)
    options = [f"the {first} {deed(motion)}", f"the {second} {deed(later)}"]
    options += [f"the {name} {verb}" for name, verb in zip((first, second), wrong, strict=True)]
    answer = options[0]
    rng.shuffle(options)
    return Choice(Question("procedure", "what happens first ?", answer, tuple(options)))


def deed(motion: Motion) -> str:
    """What a thing does, in two words: ``moves left``, ``grows``."""
    return f"moves {motion.direction}" if motion.kind == "move" else f"{motion.kind}s"


_DEEDS = (*(f"moves {direction}" for direction in DIRECTIONS), "grows", "shrinks", "blinks")


# ------------------------------------------------------------------ a hint to apply


def hinted_choice(scene: Scene, rng: random.Random) -> Choice | None:
    """Give a rule about colours and ask which property a shape then has, as ScienceQA gives its lectures.

    Without the hint the question cannot be answered, without the picture neither.
    """
    shapes = [thing.shape for thing in scene.things]
    lone = [thing for thing in scene.things if shapes.count(thing.shape) == 1]
    if not lone:
        return None
    thing = pick(rng, lone)
    others = rng.sample([color for color in COLOR_NAMES if color != thing.color], OPTIONS - 1)
    colors = [thing.color, *others]
    words = rng.sample(PROPERTIES, OPTIONS)
    rules = [f"{color} things are {word}" for color, word in zip(colors, words, strict=True)]
    rng.shuffle(rules)
    options = rng.sample(PROPERTIES, OPTIONS)
    asked = Question("hint", f"what is the {thing.shape} like ?", words[0], tuple(options))
    return Choice(asked, hint=" , ".join(rules))
