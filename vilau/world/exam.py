"""Questions in the forms of the twins, for training: a model only answers in a form that it was taught."""

from __future__ import annotations

import random
from collections.abc import Sequence

from vilau.errors import DataError
from vilau.world.choices import (
    VIDEO_DIMENSIONS,
    clip_choice,
    hinted_choice,
    possible_dimensions,
    scene_choice,
)
from vilau.world.clip_language import (
    clip_caption,
    clip_questions,
    repetition_questions,
    start_questions,
)
from vilau.world.clips import Clip
from vilau.world.open_questions import open_question
from vilau.world.pairs import pair_questions, possible_categories
from vilau.world.questions import PairStatistics, pope_questions
from vilau.world.scene import Level, Scene, pick

FORMS = ("probe", "pair", "options", "hint", "open")
CHOICE_SHARE = 0.5
"""How often each of SEED-Bench's dimensions about clips is asked, where the clip allows it."""
BETWEEN_FRAMES = (
    "motion", "direction", "start", "temporal", "event_order", "speed_compare", "repetition",
)  # fmt: skip
"""Families of questions about clips that no single frame answers; but for how fast a thing is, which takes turns."""
DESCRIBE_CLIP = "describe the clip ."
LETTER_ENDING = "\nAnswer with the option's letter from the given choices directly."


def exam_turn(
    scene: Scene, rng: random.Random, level: Level, forms: Sequence[str] = FORMS
) -> tuple[str, str]:
    """Return a question and its answer in the form of POPE, MME, SEED-Bench, ScienceQA or MM-Vet, at random.

    Yes and no, and all letters, are equally likely. Signs and invented words are asked about where the level
    has them; forms that the scene allows no question in are passed over. Raises DataError for a scene without
    things.
    """
    if not scene.things:
        raise DataError("a scene without things was to be asked about; draw at least one thing.")
    turns = (_turn(form, scene, rng, level) for form in (*rng.sample(forms, len(forms)), "open"))
    return next(turn for turn in turns if turn is not None)  # an open question there always is


def clip_turns(clip: Clip, rng: random.Random, num: int) -> list[tuple[str, str]]:
    """Return up to ``num`` questions about a clip, each with its answer, some with lettered options.

    What no single frame tells comes before all else, of every thing. Then the other families take turns, so that what
    every clip allows does not crowd out what few do; to describe the clip is one of them.
    """
    between: list[tuple[str, str]] = []
    # Things that are staged are all fast: asked how fast they are, one would learn to say so.
    speeds_differ = len({motion.speed for motion in clip.motions}) > 1
    families = {"caption": [(DESCRIBE_CLIP, clip_caption(clip, rng))]}
    asked = (*clip_questions(clip, rng), *repetition_questions(clip), *start_questions(clip))
    for question in asked:
        turn = (question.question, question.answer)
        if question.family in BETWEEN_FRAMES:
            between.append(turn)
        elif question.family != "speed" or speeds_differ:
            families.setdefault(question.family, []).append(turn)
    for dimension in VIDEO_DIMENSIONS:
        choice = clip_choice(clip, rng, dimension) if rng.random() < CHOICE_SHARE else None
        if choice is not None:
            families[dimension] = [(choice.text(LETTER_ENDING), choice.letter)]
    order = rng.sample(list(families), len(families))
    rng.shuffle(between)
    turns = [*between, *(pick(rng, families[family]) for family in order)][:num]
    rng.shuffle(turns)
    return turns


def _turn(form: str, scene: Scene, rng: random.Random, level: Level) -> tuple[str, str] | None:
    if form == "probe":
        found = pope_questions(scene, rng, "random", PairStatistics(), per_image=1)
        question = pick(rng, found) if found else None
        return None if question is None else (question.question, question.answer)
    if form == "pair":
        pair = pair_questions(scene, rng, pick(rng, possible_categories(level)), level)
        question = None if pair is None else pick(rng, pair)
        return None if question is None else (question.question, question.answer)
    if form == "open":
        asked = open_question(scene, rng)
        return asked.text, asked.spoken
    if form == "options":
        choice = scene_choice(scene, rng, pick(rng, possible_dimensions(level)), level)
    else:
        choice = hinted_choice(scene, rng)
    return None if choice is None else (choice.text(LETTER_ENDING), choice.letter)
