"""What the drawn world's twins of published benchmarks ask: prompts, and rows with the published columns.

A twin's ``ask`` takes the place in the world, how many groups of questions there are so far (so that
categories take turns) and the index of a scene, and returns the questions that belong together, or none
where the scene allows none.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from vilau.data.world_data import WorldSpec, WorldSplit, world_scene
from vilau.world.annotators import annotate
from vilau.world.clip_language import clip_questions, repetition_questions
from vilau.world.clip_sampling import clip_at
from vilau.world.clips import Clip
from vilau.world.families import Question, questions_by_family
from vilau.world.open_questions import open_question
from vilau.world.pairs import pair_questions, possible_categories
from vilau.world.questions import (
    POPE_MODES,
    PairStatistics,
    pope_questions,
    sample_questions,
)
from vilau.world.scene import LEVELS, Level, Scene, pick, stream_rng
from vilau.world.snapshots import KINDS, Snapshot, snapshot_question

GQA_FAMILIES = ("attribute", "exist", "relation", "relation_open", "compare")
GQA_PER_IMAGE = 2


@dataclass(frozen=True)
class Place:
    """Where scenes are drawn."""

    world: WorldSpec
    split: WorldSplit
    image_size: int
    seed: int

    @property
    def level(self) -> Level:
        """The level's settings."""
        return LEVELS[self.world.level]

    def scene(self, index: int) -> Scene:
        """Scene ``index`` of the split."""
        return world_scene(self.world, self.split, index, image_size=self.image_size)

    def clip(self, index: int, num_frames: int, num_objects: tuple[int, int] = (1, 3)) -> Clip:
        """Clip ``index`` of the split."""
        return clip_at(
            self.split, index, level=self.world.level, num_frames=num_frames, image_size=self.image_size,
            num_objects=num_objects, seed=self.world.seed,
        )  # fmt: skip

    def rng(self, name: str, index: int) -> random.Random:
        """What is random about a benchmark's questions on scene ``index``."""
        return stream_rng(self.seed, "twin", name, self.split, index)


@dataclass(frozen=True)
class Asked:
    """One question of a twin."""

    shown: Scene | Clip | Snapshot
    prompt: str
    question: Question
    """Family, truth and the answers of its kind, in words."""
    row: dict[str, Any]
    accepted: tuple[str, ...]
    said: dict[str, str] = field(default_factory=dict)
    """What a model says to mean an answer, where that is not the word itself: an option's letter."""
    options: tuple[str, ...] = ()
    """What the model chooses from by likelihood, without being shown it; empty: it answers."""

    def say(self, answer: str) -> str:
        """What a model would say that means ``answer``."""
        return self.said.get(answer, answer)


Ask = Callable[[Place, int, int], list[Asked]]


# ------------------------------------------------------------------ short answers


def ask_vqav2(place: Place, turn: int, index: int) -> list[Asked]:
    """All families, ten annotators."""
    scene, rng = place.scene(index), place.rng("vqav2", index)
    found = sample_questions(scene, rng, 4, level=place.level)
    return [_annotated(scene, q, rng, f"{index}{n:02d}") for n, q in enumerate(found)]


def ask_okvqa(place: Place, turn: int, index: int) -> list[Asked]:
    """Knowledge that only text tells, ten annotators."""
    scene, rng = place.scene(index), place.rng("okvqa", index)
    found = questions_by_family(scene, rng, place.level).get("knowledge", [])
    return [_annotated(scene, pick(rng, found), rng, f"{index}00")] if found else []


def ask_textvqa(place: Place, turn: int, index: int) -> list[Asked]:
    """Signs, ten annotators; the OCR tokens stand in the row, not in the prompt."""
    scene, rng = place.scene(index), place.rng("textvqa", index)
    found = questions_by_family(scene, rng, place.level).get("text", [])
    asked = [_annotated(scene, question, rng, f"{index}00") for question in found]
    for one in asked:
        one.row["answers"] = list(one.accepted)
        one.row["ocr_tokens"] = [scene.sign]
    return asked


def ask_vizwiz(place: Place, turn: int, index: int) -> list[Asked]:
    """Pictures that are blurred, dark, cropped, or do not show what is asked about, in turn; ten annotators."""
    rng = place.rng("vizwiz", index)
    found = snapshot_question(place.scene(index), KINDS[turn % len(KINDS)], rng)
    return [_annotated(*found, rng, f"{index}00")] if found else []


def _annotated(
    shown: Scene | Snapshot, question: Question, rng: random.Random, number: str
) -> Asked:
    accepted = annotate(question, rng)
    row = {
        "question_id": int(number),
        "question": question.question,
        "question_type": question.family,
        "multiple_choice_answer": question.answer,
        # lmms-eval tells annotators apart by whole records: without the id equal answers would be one.
        "answers": [
            {"answer": answer, "answer_confidence": "yes", "answer_id": number + 1}
            for number, answer in enumerate(accepted)
        ],
    }
    return Asked(shown, question.question, question, row, tuple(accepted))


def ask_gqa(place: Place, turn: int, index: int) -> list[Asked]:
    """Relations, attributes, existence and comparisons, in turn, each answer of a family equally likely."""
    scene, rng = place.scene(index), place.rng("gqa", index)
    families = questions_by_family(scene, rng, place.level)
    asked = []
    for number in range(GQA_PER_IMAGE):
        family = GQA_FAMILIES[(turn * GQA_PER_IMAGE + number) % len(GQA_FAMILIES)]
        found = families.get(family, [])
        if not found:
            continue
        answer = pick(rng, sorted({question.answer for question in found}))
        question = pick(rng, [question for question in found if question.answer == answer])
        row = {
            "id": f"{index:07d}{number}", "imageId": str(index), "question": question.question,
            "answer": question.answer, "types": {"semantic": question.family},
        }  # fmt: skip
        asked.append(Asked(scene, question.question, question, row, (question.answer,)))
    return asked


def pope_asker(place: Place, num_prior: int) -> Ask:
    """Object probes in POPE's three settings; what is popular is counted over training scenes."""
    train = Place(place.world, "train", place.image_size, place.seed)
    statistics = PairStatistics.gather(train.scene(index) for index in range(num_prior))

    def ask(place: Place, turn: int, index: int) -> list[Asked]:
        scene = place.scene(index)
        found = []
        for mode in POPE_MODES:
            # The same generator in every setting: only the absent pairs differ.
            probes = pope_questions(scene, place.rng("pope", index), mode, statistics)
            for number, question in enumerate(probes):
                row = {
                    "question_id": f"{mode}-{index}-{number}", "question": question.question,
                    "answer": question.answer, "category": mode, "image_source": f"scene {index}",
                }  # fmt: skip
                found.append(Asked(scene, question.question, question, row, (question.answer,)))
        return found

    return ask


def ask_mme(place: Place, turn: int, index: int) -> list[Asked]:
    """A pair of yes/no questions; the categories take turns."""
    categories = possible_categories(place.level)
    category = categories[turn % len(categories)]
    scene = place.scene(index)
    pair = pair_questions(scene, place.rng("mme", index), category, place.level)
    return [
        Asked(
            scene, question.question, question,
            {"question_id": f"{category}/{index:06d}.png", "category": category,
             "question": question.question, "answer": question.answer.capitalize()},
            (question.answer,),
        )
        for question in pair or ()
    ]  # fmt: skip


# ------------------------------------------------------------------ open answers


def ask_mmvet(place: Place, turn: int, index: int) -> list[Asked]:
    """Questions that want several elements, tagged with what they take (MM-Vet)."""
    scene = place.scene(index)
    asked = open_question(scene, place.rng("mmvet", index))
    row = {
        "question_id": f"v{index}", "question": asked.text, "answer": "<AND>".join(asked.elements),
        "capability": asked.capability,
    }  # fmt: skip
    question = Question(asked.kind, asked.text, asked.spoken, ())
    return [Asked(scene, asked.text, question, row, (asked.spoken,))]


# ------------------------------------------------------------------ clips


def video_asker(
    name: str,
    families: Sequence[str],
    *,
    num_frames: int = 8,
    num_objects: tuple[int, int] = (1, 3),
) -> Ask:
    """Questions of some families about clips; in turn, each answer of a family equally likely."""

    def ask(place: Place, turn: int, index: int) -> list[Asked]:
        clip, rng = place.clip(index, num_frames, num_objects), place.rng(name, index)
        family = families[turn % len(families)]
        asked = [*clip_questions(clip, rng), *repetition_questions(clip)]
        found = [question for question in asked if question.family == family]
        if not found:
            return []
        answer = pick(rng, sorted({question.answer for question in found}))
        question = pick(rng, [question for question in found if question.answer == answer])
        row = {
            "question_id": f"{name}_{index}", "video_name": f"{name}{index}", "question": question.question,
            "answer": question.answer, "type": family, "alternatives": list(question.choices),
        }  # fmt: skip
        return [Asked(clip, question.question, question, row, (question.answer,))]

    return ask
