"""Evaluation on the drawn world: question answering, object probes and prompts to draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vilau.data.media.images import ImageTransform
from vilau.data.module import StreamedDataModule
from vilau.data.pairs import load_images, stack_images
from vilau.data.shards import ShardSet
from vilau.data.streaming import FixedLoader
from vilau.data.world_data import WORLD, WorldSpec, level_of, world_set
from vilau.data.world_questions import QuestionSet, pope_sets, vqa_set
from vilau.errors import ConfigError
from vilau.types import PromptBatch
from vilau.world.judge import requirements_to_json
from vilau.world.prompts import SKILLS, Prompt, sample_prompt
from vilau.world.scene import Level, stream_rng


@dataclass(frozen=True)
class PromptSet:
    """Prompts to draw, with real images spread over them as FID's reference set."""

    prompts: list[Prompt]
    references: ShardSet
    num_references: int
    image_size: int

    def __len__(self) -> int:
        return len(self.prompts)

    def __call__(self, epoch: int, indices: np.ndarray) -> PromptBatch:
        """Return the batch of the prompts at ``indices`` ``(B,)``, which are consecutive."""
        ends = [i * self.num_references // len(self) for i in (indices[0], indices[-1] + 1)]
        images = load_images(self.references, np.arange(*ends), ImageTransform(self.image_size))
        chosen = [self.prompts[i] for i in indices]
        return PromptBatch(
            prompts=[prompt.text for prompt in chosen],
            requirements=[requirements_to_json(prompt.requirements) for prompt in chosen],
            skills=[list(prompt.skills) for prompt in chosen],
            references=stack_images(images, image_size=self.image_size),
            first_index=int(indices[0]),
        )


class WorldBenchmarks(StreamedDataModule):
    """The drawn world's twins of VQAv2, POPE and GenAI-Bench, as test loaders.

    ``test_dataloader`` gives, in this order and leaving out what has number 0: ``QuestionBatch``
    loaders ``vqa``, ``vqa_comp``, ``pope_random``, ``pope_popular``, ``pope_adversarial``, then one
    of ``PromptBatch``.

    Args:
        image_size: side of the images in pixels.
        global_batch_size: questions or prompts per step over all devices.
        world: the world the model was trained in; its test split is asked about.
        num_questions: questions over the test split.
        num_comp_questions: questions over scenes with combinations that training never showed.
        num_pope_questions: object probes in each of three modes, over scenes of level ``skew``.
        num_prompts: prompts to draw, the skills in turn.
        num_references: real test images, the reference set of FID.
        skills: which skills the prompts ask for; None: all that the world's level can show.
        held_out: ``any``; or ``exclude`` or ``only`` prompts for combinations that training never
            showed.
        num_workers: loader processes per device.
        seed: which questions and prompts.

    Raises:
        ConfigError: a setting makes no sense, or the test split is too small for it.
        DataError: the cache cannot be written.
    """

    def __init__(  # noqa: PLR0913 - a data module's settings are its constructor
        self,
        image_size: int = 64,
        global_batch_size: int = 64,
        world: WorldSpec = WORLD,
        num_questions: int = 2000,
        num_comp_questions: int = 500,
        num_pope_questions: int = 300,
        num_prompts: int = 240,
        num_references: int = 1000,
        skills: tuple[str, ...] | None = None,
        held_out: str = "any",
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            image_size=image_size,
            global_batch_size=global_batch_size,
            num_workers=num_workers,
            seed=seed,
        )
        self.world = world
        self.num_questions, self.num_comp_questions = num_questions, num_comp_questions
        self.num_pope_questions = num_pope_questions
        self.num_prompts, self.num_references = num_prompts, num_references
        self.skills = skills or possible_skills(level_of(world))
        self.held_out = held_out
        if num_prompts and num_references > world.num_test:
            raise ConfigError(
                f"data.num_references is {num_references} but data.world.num_test only "
                f"{world.num_test}; write at most that, or a larger test split."
            )

    def setup(self, stage: str | None = None) -> None:
        """Draw the scenes that are not in the cache, then ask the questions."""
        where = {"image_size": self.image_size, "seed": self.seed}
        self.question_sets: list[QuestionSet] = []
        if self.num_questions:
            self.question_sets.append(vqa_set(self.world, "test", self.num_questions, **where))
        if self.num_comp_questions:
            self.question_sets.append(vqa_set(self.world, "comp", self.num_comp_questions, **where))
        if self.num_pope_questions:
            self.question_sets += pope_sets(self.world, self.num_pope_questions, **where)
        self.prompt_set = self._prompts() if self.num_prompts else None

    def test_dataloader(self) -> list[FixedLoader]:
        """See the class."""
        sets: list[QuestionSet | PromptSet] = [*self.question_sets]
        if self.prompt_set:
            sets.append(self.prompt_set)
        return [self._fixed_loader(questions, np.arange(len(questions))) for questions in sets]

    def baselines(self) -> dict[str, float]:
        """Scores on these questions without a model, ``<benchmark>[/<family>]/<baseline>``.

        ``chance`` guesses among the answers of the question's kind, ``blind`` gives the most
        frequent training answer, ``ceiling`` knows the scene.
        """
        found: dict[str, float] = {}
        for questions in self.question_sets:
            found |= questions.baselines()
        return found

    def _prompts(self) -> PromptSet:
        level = level_of(self.world)
        prompts = [
            sample_prompt(
                stream_rng(self.seed, "prompts", number),
                self.skills[number % len(self.skills)],
                level,
                held_out=self.held_out,
            )
            for number in range(self.num_prompts)
        ]
        test = world_set(self.world, "test", image_size=self.image_size)
        return PromptSet(prompts, test, self.num_references, self.image_size)


def possible_skills(level: Level) -> tuple[str, ...]:
    """Skills whose prompts scenes of ``level`` can show."""
    missing = set()
    if not level.interactions:
        missing.add("action relation")
    if not level.parts:
        missing.add("part relation")
    return tuple(skill for skill in SKILLS if skill not in missing)
