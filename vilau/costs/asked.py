"""How much an evaluation asks and has drawn."""

from __future__ import annotations

from dataclasses import dataclass

from vilau.costs.config import Config, argument, arguments, class_of

POPE_MODES = 3
CAPTION_PROMPTS = 1000
"""Default of ``CaptionPrompts.num_prompts``."""
TWINS = ("world_vqav2", "world_gqa", "world_pope", "world_mme", "world_seedbench", "world_mmvet")
TWIN_QUESTIONS, TWIN_PROMPTS = 400, 200
"""Defaults of ``TwinBenchmarks``: ``benchmarks``, ``num_questions`` and ``num_prompts``."""
DRAWN_TWINS = ("world_mjhq", "world_genai", "world_vbench")
GENAI_PROMPTS = 376
"""Prompts of GenAI-Bench's twin that levels without parts can show."""
PUBLISHED_QUESTIONS = {
    "vqav2": 214_354, "gqa": 12_578, "textvqa": 5_000, "pope": 9_000, "mme": 2_374, "seedbench": 14_233, "mmvet": 218,
    "seedbench_ranked": 14_233,
    "ok_vqa": 5_046, "vizwiz_vqa": 4_319, "scienceqa_img": 2_017,
}  # fmt: skip
"""Questions about pictures, as the benchmarks' authors tell them, not counted here; MMBench's hangs on its options."""
PUBLISHED_CLIP_QUESTIONS = {
    "seedbench": 5_009, "seedbench_ranked": 5_009, "msvd_qa": 13_157, "msrvtt_qa": 72_821, "tgif_qa": 25_751,
    "activitynetqa": 8_000,
}  # fmt: skip
"""Likewise about clips; TGIF-QA's with all four parts of its test set, of which some papers take one."""
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
    if data.endswith("PublishedBenchmarks"):
        return _published(config)
    if not data.endswith("WorldBenchmarks"):
        return Asked()
    questions = argument(config, "data", "num_questions")
    questions += argument(config, "data", "num_comp_questions")
    questions += POPE_MODES * argument(config, "data", "num_pope_questions")
    return Asked(questions, prompts=argument(config, "data", "num_prompts"))


def _twins(config: Config) -> Asked:
    given = arguments(config, "data")
    names = given.get("benchmarks", TWINS)
    each, drawn = given.get("num_questions", TWIN_QUESTIONS), given.get("num_prompts", TWIN_PROMPTS)
    clips = sum(name in ABOUT_CLIPS for name in names)
    prompts = drawn if "world_mjhq" in names else 0
    if "world_genai" in names:
        prompts += given.get("genai_prompts") or GENAI_PROMPTS
    pictures = len(names) - clips - sum(name in DRAWN_TWINS for name in names)
    return Asked(each * pictures, each * clips, prompts, drawn * ("world_vbench" in names))


def _published(config: Config) -> Asked:
    """Count published questions; nothing where the number of one benchmark is not known."""
    given = arguments(config, "data")
    limit = given.get("num_questions")
    pictures = clips = 0
    for name in given.get("benchmarks") or ():
        about_pictures = PUBLISHED_QUESTIONS.get(name, 0)
        about_clips = PUBLISHED_CLIP_QUESTIONS.get(name, 0)
        if not about_pictures + about_clips:
            return Asked()
        if limit is not None:
            # The first are asked, and those about pictures stand first.
            about_pictures = min(about_pictures, limit)
            about_clips = min(about_clips, limit - about_pictures)
        pictures, clips = pictures + about_pictures, clips + about_clips
    return Asked(pictures, clips)
