"""How much an evaluation asks and has drawn."""

from __future__ import annotations

from dataclasses import dataclass

from vilau.costs.config import Config, argument, arguments, class_of

POPE_MODES = 3
CAPTION_PROMPTS = 1000
"""Default of ``CaptionPrompts.num_prompts``."""
TWIN_QUESTIONS, TWIN_PROMPTS = 400, 200
"""Defaults of ``TwinBenchmarks.num_questions`` and ``num_prompts``."""
GENAI_PROMPTS = 376
"""Prompts of GenAI-Bench's twin that levels without parts can show."""
ABOUT_CLIPS = ("world_msvd_qa", "world_msrvtt_qa", "world_tgif_qa", "world_activitynetqa")


@dataclass(frozen=True)
class Asked:
    """Numbers of questions and of prompts to draw."""

    questions: int = 0
    clip_questions: int = 0
    prompts: int = 0
    clip_prompts: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.questions + self.clip_questions + self.prompts + self.clip_prompts


def asked(config: Config) -> Asked:
    """Return what an evaluation's data module asks; nothing for unknown data."""
    data, given = class_of(config, "data"), arguments(config, "data")
    if data.endswith("CaptionPrompts"):
        return Asked(prompts=int(given.get("num_prompts", CAPTION_PROMPTS)))
    if data.endswith("TwinBenchmarks"):
        return _twins(config)
    if not data.endswith("WorldBenchmarks"):
        return Asked()
    questions = argument(config, "data", "num_questions")
    questions += argument(config, "data", "num_comp_questions")
    questions += POPE_MODES * argument(config, "data", "num_pope_questions")
    return Asked(questions, prompts=argument(config, "data", "num_prompts"))


def _twins(config: Config) -> Asked:
    given = arguments(config, "data")
    names = given.get("benchmarks") or ()
    each, drawn = given.get("num_questions", TWIN_QUESTIONS), given.get("num_prompts", TWIN_PROMPTS)
    clips = sum(name in ABOUT_CLIPS for name in names)
    prompts = drawn if "world_mjhq" in names else 0
    if "world_genai" in names:
        prompts += given.get("genai_prompts") or GENAI_PROMPTS
    pictures = (
        len(names)
        - clips
        - sum(name in ("world_mjhq", "world_genai", "world_vbench") for name in names)
    )
    return Asked(each * pictures, each * clips, prompts, drawn * ("world_vbench" in names))
