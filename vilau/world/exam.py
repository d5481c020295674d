"""Questions in the forms of the twins, for training: a model only answers in a form that it was taught."""

from __future__ import annotations

import random

from vilau.errors import DataError
from vilau.world.choices import hinted_choice, possible_dimensions, scene_choice
from vilau.world.pairs import pair_questions, possible_categories
from vilau.world.questions import PairStatistics, pope_questions
from vilau.world.scene import Level, Scene, pick

FORMS = ("probe", "pair", "options", "hint")
LETTER_ENDING = "\nAnswer with the option's letter from the given choices directly."


def exam_turn(scene: Scene, rng: random.Random, level: Level) -> tuple[str, str]:
    """Return a question and its answer in the form of POPE, MME, SEED-Bench or ScienceQA, drawn at random.

    Yes and no, and all letters, are equally likely. Signs and invented words are asked about where the level
    has them; forms that the scene allows no question in are passed over. Raises DataError for a scene without
    things.
    """
    if not scene.things:
        raise DataError("a scene without things was to be asked about; draw at least one thing.")
    turns = (_turn(form, scene, rng, level) for form in rng.sample(FORMS, len(FORMS)))
    return next(turn for turn in turns if turn is not None)  # a probe there always is


def _turn(form: str, scene: Scene, rng: random.Random, level: Level) -> tuple[str, str] | None:
    if form == "probe":
        found = pope_questions(scene, rng, "random", PairStatistics(), per_image=1)
        question = pick(rng, found) if found else None
        return None if question is None else (question.question, question.answer)
    if form == "pair":
        pair = pair_questions(scene, rng, pick(rng, possible_categories(level)), level)
        question = None if pair is None else pick(rng, pair)
        return None if question is None else (question.question, question.answer)
    if form == "options":
        choice = scene_choice(scene, rng, pick(rng, possible_dimensions(level)), level)
    else:
        choice = hinted_choice(scene, rng)
    return None if choice is None else (choice.text(LETTER_ENDING), choice.letter)
