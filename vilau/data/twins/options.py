"""The drawn world's twins with lettered options: SEED-Bench, MMBench and ScienceQA."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vilau.data.published.choices import ROTATION
from vilau.data.twins.questions import Asked, Place
from vilau.world.choices import (
    LETTERS,
    OPTIONS,
    VIDEO_DIMENSIONS,
    Choice,
    clip_choice,
    hinted_choice,
    possible_dimensions,
    scene_choice,
)
from vilau.world.clips import Clip
from vilau.world.exam import LETTER_ENDING
from vilau.world.families import Question
from vilau.world.scene import Scene


def ask_seedbench(place: Place, turn: int, index: int) -> list[Asked]:
    """Twelve dimensions in turn, the last three about clips."""
    images = possible_dimensions(place.level)
    dimension = (images + VIDEO_DIMENSIONS)[turn % (len(images) + len(VIDEO_DIMENSIONS))]
    rng = place.rng("seedbench", index)
    shown: Scene | Clip
    if dimension in images:
        shown = place.scene(index)
        choice = scene_choice(shown, rng, dimension, place.level)
    else:
        shown = place.clip(index, 8)
        choice = clip_choice(shown, rng, dimension)
    if choice is None:
        return []
    row = {
        "question_id": str(index), "question": choice.question.question, "answer": choice.letter,
        "data_type": "image" if dimension in images else "video", "question_type_id": dimension,
        **{f"choice_{letter.lower()}": option for letter, option in _options(choice).items()},
    }  # fmt: skip
    return [_lettered(shown, choice, row, choice.text(LETTER_ENDING), dimension)]


def rank_seedbench(place: Place, turn: int, index: int) -> list[Asked]:
    """The same questions without their options, which are ranked by likelihood."""
    return [
        replace(asked, prompt=asked.question.question, options=asked.question.choices)
        for asked in ask_seedbench(place, turn, index)
    ]


def ask_mmbench(place: Place, turn: int, index: int) -> list[Asked]:
    """A question in all four rotations of its options."""
    dimensions = possible_dimensions(place.level)
    dimension = dimensions[turn % len(dimensions)]
    scene, rng = place.scene(index), place.rng("mmbench", index)
    choice = scene_choice(scene, rng, dimension, place.level)
    asked = []
    for step in range(OPTIONS if choice else 0):
        assert choice is not None
        turned = choice.rotated(step)
        lines = [f"{letter}. {option}" for letter, option in _options(turned).items()]
        prompt = "\n".join([f"{turned.question.question} There are several options:", *lines])
        row = {
            "index": index + step * ROTATION, "question": turned.question.question, "hint": None,
            **_options(turned), "answer": turned.letter, "category": dimension,
            "L2-category": "perception", "source": "drawn world", "split": "test",
        }  # fmt: skip
        asked.append(_lettered(scene, turned, row, prompt + LETTER_ENDING, dimension))
    return asked


def ask_scienceqa(place: Place, turn: int, index: int) -> list[Asked]:
    """A hint to apply to what is seen."""
    scene = place.scene(index)
    choice = hinted_choice(scene, place.rng("scienceqa", index))
    if choice is None:
        return []
    row = {
        "id": str(index), "question": choice.question.question, "choices": list(choice.question.choices),
        "answer": LETTERS.index(choice.letter), "hint": choice.hint,
    }  # fmt: skip
    return [_lettered(scene, choice, row, choice.text(LETTER_ENDING), "hint")]


def _options(choice: Choice) -> dict[str, str]:
    return dict(zip(LETTERS, choice.question.choices, strict=True))


def _lettered(
    shown: Scene | Clip, choice: Choice, row: dict[str, Any], prompt: str, family: str
) -> Asked:
    said = {option: letter for letter, option in _options(choice).items()}
    asked = choice.question
    question = Question(family, asked.question, asked.answer, asked.choices)
    return Asked(shown, prompt, question, row, (choice.letter,), said)
