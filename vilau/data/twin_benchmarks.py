"""The data module of the drawn world's twins: any of them by name."""

from __future__ import annotations

import numpy as np

from vilau.data.benchmarks import possible_skills
from vilau.data.module import StreamedDataModule
from vilau.data.names import check_benchmarks
from vilau.data.streaming import FixedLoader
from vilau.data.twins.prompts import (
    DRAWN,
    GENAI,
    MJHQ,
    CategorySet,
    ClipPromptSet,
    SkillSet,
    genai_set,
    mjhq_set,
    vbench_set,
)
from vilau.data.twins.sets import NUM_PRIOR_SCENES, TWINS, TwinSet, twin_set
from vilau.data.world_data import WORLD, WorldSpec, level_of
from vilau.errors import ConfigError

TABLE2 = ("world_vqav2", "world_gqa", "world_pope", "world_mme", "world_seedbench", "world_mmvet")
"""The twins of Table 2's columns that every level has."""

AnySet = TwinSet | SkillSet | CategorySet | ClipPromptSet


class TwinBenchmarks(StreamedDataModule):
    """Twins of published benchmarks by name, as test loaders.

    Questions come as ``QuestionBatch`` (for `QuestionAnswering`), prompts to draw as ``PromptBatch``:
    ``world_genai`` for `SkillScores`, ``world_mjhq`` for `CategoryFID` and `CategoryJudge`; ``world_vbench`` as
    ``ClipPromptBatch`` for `ClipQuality`.

    Args:
        benchmarks: names of `vilau.data.twins.sets.TWINS` and `vilau.data.twins.prompts.DRAWN`.
        image_size: side of the images in pixels.
        global_batch_size: questions or prompts per step over all devices.
        world: the world the model was trained in; its test split is asked about. POPE's twin takes level
            ``skew`` and TextVQA's level ``hard`` of it.
        num_questions: questions per benchmark; a few more where questions belong together.
        num_prompts: prompts of ``world_mjhq`` and ``world_vbench`` each; ``world_genai`` has 527, or with
            ``genai_prompts`` the first so many of them.
        genai_prompts: see above.
        num_frames: frames of a clip that the model sees or draws.
        num_prior_scenes: training scenes that tell the blind what is frequent.
        num_workers: loader processes per device.
        seed: which questions and prompts.

    Raises:
        ConfigError: a benchmark is unknown or asked twice, or a number makes no sense.
    """

    def __init__(  # noqa: PLR0913 - a data module's settings are its constructor
        self,
        benchmarks: tuple[str, ...] = TABLE2,
        image_size: int = 64,
        global_batch_size: int = 64,
        world: WorldSpec = WORLD,
        num_questions: int = 400,
        num_prompts: int = 200,
        genai_prompts: int | None = None,
        num_frames: int = 8,
        num_prior_scenes: int = NUM_PRIOR_SCENES,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            image_size=image_size,
            global_batch_size=global_batch_size,
            num_workers=num_workers,
            seed=seed,
        )
        check_benchmarks(benchmarks, (*TWINS, *DRAWN))
        for key, value in (
            ("num_questions", num_questions), ("num_prompts", num_prompts), ("num_frames", num_frames),
            ("num_prior_scenes", num_prior_scenes),
            ("genai_prompts", 1 if genai_prompts is None else genai_prompts),
        ):  # fmt: skip
            if value < 1:
                raise ConfigError(f"data.{key} is {value}; write at least 1.")
        self.benchmarks, self.world = tuple(benchmarks), world
        self.num_questions, self.num_prompts = num_questions, num_prompts
        self.genai_prompts, self.num_frames = genai_prompts, num_frames
        self.num_prior_scenes = num_prior_scenes
        self.sets: list[AnySet] = []

    def setup(self, stage: str | None = None) -> None:
        """Ask the questions; a second call has nothing to do."""
        self.sets = self.sets or [self._set(name) for name in self.benchmarks]

    def test_dataloader(self) -> list[FixedLoader]:
        """One loader per benchmark, in the order of ``benchmarks``."""
        return [self._fixed_loader(found, np.arange(len(found))) for found in self.sets]

    def _set(self, name: str) -> AnySet:
        size, seed = self.image_size, self.seed
        if name in TWINS:
            return twin_set(
                name, self.world, self.num_questions, image_size=size, num_frames=self.num_frames,
                num_prior=self.num_prior_scenes, seed=seed,
            )  # fmt: skip
        if name == GENAI:
            return genai_set(self.world, image_size=size, seed=seed, num=self.genai_prompts)
        if name == MJHQ:
            skills = possible_skills(level_of(self.world))
            return mjhq_set(
                self.world, self.num_prompts, image_size=size, seed=seed, categories=skills
            )
        return vbench_set(
            self.world, self.num_prompts, image_size=size, num_frames=self.num_frames, seed=seed
        )
