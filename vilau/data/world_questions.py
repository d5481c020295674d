"""Question sets of the drawn world's benchmarks, with the answers of one who cannot see."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from vilau.data.media.images import ImageTransform
from vilau.data.pairs import load_images, stack_images
from vilau.data.shards import ShardSet
from vilau.data.world_data import WorldSpec, WorldSplit, level_of, world_scene, world_set
from vilau.errors import ConfigError
from vilau.types import QuestionBatch
from vilau.world.questions import (
    POPE_MODES,
    BlindBaseline,
    PairStatistics,
    Question,
    pope_questions,
    sample_questions,
)
from vilau.world.scene import Scene, stream_rng

QUESTIONS_PER_IMAGE = 4
POPE_PER_IMAGE = 6
"""Three present and three absent pairs."""
NUM_PRIOR_SCENES = 2000
"""Training scenes from which frequencies are counted."""

Ask = Callable[[Scene, int], list[Question]]
"""Takes a scene and its index, returns questions."""


@dataclass(frozen=True)
class QuestionSet:
    """Questions over stored images; also builds their batches.

    Question i is about image ``image_indices[i]`` of ``source``.
    """

    benchmark: str
    source: ShardSet
    image_indices: np.ndarray
    questions: list[Question]
    blind_answers: list[str]
    image_size: int

    def __len__(self) -> int:
        return len(self.questions)

    def __call__(self, epoch: int, indices: np.ndarray) -> QuestionBatch:
        """Return the batch of the questions at ``indices`` ``(B,)``."""
        images = load_images(
            self.source, self.image_indices[indices], ImageTransform(self.image_size)
        )
        asked = [self.questions[i] for i in indices]
        return QuestionBatch(
            images=stack_images(images, image_size=self.image_size),
            questions=[question.question for question in asked],
            answers=[[question.answer] for question in asked],
            families=[question.family for question in asked],
            benchmark=self.benchmark,
            chance=[1.0 / len(question.choices) for question in asked],
            blind_answers=[self.blind_answers[i] for i in indices],
        )

    def baselines(self) -> dict[str, float]:
        """What needs no model: ``<benchmark>/chance``, ``/blind``, ``/ceiling`` and per family."""
        groups: defaultdict[str, list[tuple[float, bool]]] = defaultdict(list)
        for question, blind in zip(self.questions, self.blind_answers, strict=True):
            scores = 1.0 / len(question.choices), blind == question.answer
            groups[self.benchmark].append(scores)
            groups[f"{self.benchmark}/{question.family}"].append(scores)
        found = {}
        for group, both in groups.items():
            found[f"{group}/chance"], found[f"{group}/blind"] = np.mean(both, axis=0).tolist()
            # The answers are computed from the scene: whoever sees it whole makes no mistake.
            found[f"{group}/ceiling"] = 1.0
        return found


def vqa_set(
    spec: WorldSpec, split: WorldSplit, num: int, *, image_size: int, seed: int
) -> QuestionSet:
    """``num`` balanced questions over a split (``test``, or ``comp`` for held-out combinations).

    Raises:
        ConfigError: the split has too few scenes for so many questions.
    """
    benchmark = "vqa_comp" if split == "comp" else "vqa"
    level = level_of(spec)

    def ask(scene: Scene, index: int) -> list[Question]:
        rng = stream_rng(seed, benchmark, index)
        return sample_questions(scene, rng, QUESTIONS_PER_IMAGE, level=level)

    if split == "comp":
        spec = replace(spec, num_test=-(-num // 2))
    source = world_set(spec, split, image_size=image_size)
    blind = BlindBaseline(
        question
        for index in range(min(NUM_PRIOR_SCENES, spec.num_train))
        for question in ask(world_scene(spec, "train", index, image_size=image_size), -index - 1)
    )
    return _collect(benchmark, source, ask, num, blind, image_size)


def pope_sets(spec: WorldSpec, num: int, *, image_size: int, seed: int) -> list[QuestionSet]:
    """``num`` object probes in each of POPE's three modes, over scenes with a skewed prior."""
    spec = replace(spec, level="skew", num_test=-(-num // 2))
    source = world_set(spec, "test", image_size=image_size)
    seen = [
        world_scene(spec, "train", index, image_size=image_size)
        for index in range(min(NUM_PRIOR_SCENES, spec.num_train))
    ]
    statistics = PairStatistics.gather(seen)

    def asks(mode: str) -> Ask:
        # The same generator in every mode: present pairs are the same, only absent ones differ.
        return lambda scene, index: pope_questions(
            scene, stream_rng(seed, "pope", index), mode, statistics, per_image=POPE_PER_IMAGE // 2
        )

    ask_random = asks("random")
    blind = BlindBaseline(q for i, scene in enumerate(seen) for q in ask_random(scene, -i - 1))
    return [
        _collect(f"pope_{mode}", source, asks(mode), num, blind, image_size) for mode in POPE_MODES
    ]


def _collect(
    benchmark: str, source: ShardSet, ask: Ask, num: int, blind: BlindBaseline, image_size: int
) -> QuestionSet:
    images: list[int] = []
    asked: list[Question] = []
    for index in range(len(source)):
        if len(asked) >= num:
            break
        found = ask(Scene.from_json(source.read([index])[0].scene), index)
        asked += found
        images += [index] * len(found)
    if len(asked) < num:
        raise ConfigError(
            f"The {benchmark} questions run out at {len(asked)} of {num} over {len(source)} "
            "scenes; ask for fewer, or raise data.world.num_test."
        )
    del asked[num:], images[num:]
    guesses = [blind.answer(question) for question in asked]
    return QuestionSet(benchmark, source, np.array(images), asked, guesses, image_size)
