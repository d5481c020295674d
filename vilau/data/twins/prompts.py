"""What the drawn world's twins of generation benchmarks ask for: GenAI-Bench, MJHQ-30K and VBench."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vilau.data.pairs import stack_images
from vilau.data.twins.questions import Place
from vilau.data.world_data import WorldSpec
from vilau.errors import ConfigError
from vilau.types import ClipPromptBatch, PromptBatch
from vilau.world.clip_judge import SEMANTIC, ClipPrompt, clip_prompt, clip_quality, judge_clip
from vilau.world.clips import Clip, frames, render_clip
from vilau.world.judge import judge, requirements_to_json
from vilau.world.prompts import Prompt, true_prompts
from vilau.world.render import render
from vilau.world.scene import Scene, stream_rng
from vilau.world.skill_prompts import can_show, skill_prompts

GENAI, MJHQ, VBENCH = "world_genai", "world_mjhq", "world_vbench"
DRAWN = {GENAI: "genai", MJHQ: "mjhq", VBENCH: "vbench"}
"""Twins by name, with the published benchmark each stands for."""
NUM_RANDOM = 20
"""Random scenes by which each prompt is judged too."""
MAX_BARREN = 2000

Scores = list[tuple[float, float]]


@dataclass(frozen=True)
class SkillSet:
    """GenAI-Bench's twin: prompts by skill, and what random scenes and an empty picture score on them."""

    prompts: list[Prompt]
    baselines: dict[str, Scores]
    left_out: int
    """Prompts that pictures of the level cannot satisfy."""

    def __len__(self) -> int:
        return len(self.prompts)

    def __call__(self, epoch: int, indices: np.ndarray) -> PromptBatch:
        """Return the batch of the prompts at ``indices`` ``(B,)``, which are consecutive."""
        chosen = [self.prompts[index] for index in indices]
        return PromptBatch(
            prompts=[prompt.text for prompt in chosen],
            requirements=[requirements_to_json(prompt.requirements) for prompt in chosen],
            skills=[list(prompt.skills) for prompt in chosen],
            first_index=int(indices[0]),
            benchmark=GENAI,
            baselines={name: [s[index] for index in indices] for name, s in self.baselines.items()},
        )


def genai_set(world: WorldSpec, *, image_size: int, seed: int, num: int | None = None) -> SkillSet:
    """Return the twin of GenAI-Bench's 527 prompts, or the first ``num``, without what the level cannot show."""
    place = Place(world, "test", image_size, seed)
    every = skill_prompts(place.level, seed)[:num]
    prompts = [prompt for prompt in every if can_show(prompt, place.level)]
    scenes = [place.scene(index) for index in range(NUM_RANDOM)]
    empty = [Scene((), scenes[0].background, image_size)]
    baselines = {
        "random_scene": [_judged(scenes, prompt) for prompt in prompts],
        "empty_image": [_judged(empty, prompt) for prompt in prompts],
    }
    return SkillSet(prompts, baselines, len(every) - len(prompts))


def _judged(scenes: Sequence[Scene], prompt: Prompt) -> tuple[float, float]:
    held = [judge(scene, prompt.requirements) for scene in scenes]
    return float(np.mean([all(one) for one in held])), float(
        np.mean([np.mean(one) for one in held])
    )


# ------------------------------------------------------------------ MJHQ-30K


@dataclass(frozen=True)
class CategorySet:
    """MJHQ's twin: prompts by category, each true of a real picture, and a second real picture of its category.

    The two halves of ``references`` are the real set and, for the floor, as many other real pictures.
    """

    prompts: list[Prompt]
    categories: list[str]
    real: list[Scene]
    other: list[Scene]
    image_size: int

    def __len__(self) -> int:
        return len(self.prompts)

    def __call__(self, epoch: int, indices: np.ndarray) -> PromptBatch:
        """Return the batch of the prompts at ``indices`` ``(B,)``, which are consecutive."""
        chosen = [self.prompts[index] for index in indices]
        shown = [self.real[index] for index in indices] + [self.other[index] for index in indices]
        return PromptBatch(
            prompts=[prompt.text for prompt in chosen],
            requirements=[requirements_to_json(prompt.requirements) for prompt in chosen],
            skills=[[self.categories[index]] for index in indices],
            references=stack_images([render(scene) for scene in shown], image_size=self.image_size),
            first_index=int(indices[0]),
            benchmark=MJHQ,
            categories=list(dict.fromkeys(self.categories)),
        )


def mjhq_set(
    world: WorldSpec, num: int, *, image_size: int, seed: int, categories: Sequence[str]
) -> CategorySet:
    """Return ``num`` prompts, the categories in turn, each with a real picture of which it is true.

    A picture and its prompt come from the test split; the floor's pictures from the validation split. The picture
    that a prompt was made from is, given the prompt, one of those of which it is true, like any other.

    Raises:
        ConfigError: the level shows nothing of a category.
    """
    sources = [Place(world, split, image_size, seed) for split in ("test", "val")]  # type: ignore[arg-type]
    test, val = (_by_category(place, num, categories) for place in sources)
    return CategorySet(
        [prompt for _, prompt in test],
        [categories[number % len(categories)] for number in range(num)],
        [scene for scene, _ in test],
        [scene for scene, _ in val],
        image_size,
    )


def _by_category(place: Place, num: int, categories: Sequence[str]) -> list[tuple[Scene, Prompt]]:
    wanted = {
        category: len(range(i, num, len(categories))) for i, category in enumerate(categories)
    }
    found: dict[str, list[tuple[Scene, Prompt]]] = {category: [] for category in categories}
    index = barren = 0
    while any(len(found[category]) < wanted[category] for category in categories):
        scene, rng = place.scene(index), stream_rng(place.seed, "mjhq", place.split, index)
        # The rarest category takes the scene, or the common ones would use all of it up.
        missing = sorted(
            (c for c in categories if len(found[c]) < wanted[c]), key=lambda c: len(found[c])
        )
        for category in missing:
            prompts = true_prompts(scene, rng, category)
            if prompts:
                found[category].append((scene, prompts[int(rng.random() * len(prompts))]))
                barren = -1
                break
        index, barren = index + 1, barren + 1
        if barren > MAX_BARREN:
            raise ConfigError(
                f"{MAX_BARREN} scenes of level {place.world.level} in a row show nothing of {missing[0]!r}; write "
                "another data.world.level, or fewer skills."
            )
    return [found[categories[i % len(categories)]][i // len(categories)] for i in range(num)]


# ------------------------------------------------------------------ VBench


@dataclass(frozen=True)
class ClipPromptSet:
    """VBench's twin: prompts for clips by dimension, and what random real clips and still ones score on them."""

    prompts: list[ClipPrompt]
    baselines: dict[str, list[dict[str, float]]]
    num_frames: int

    def __len__(self) -> int:
        return len(self.prompts)

    def __call__(self, epoch: int, indices: np.ndarray) -> ClipPromptBatch:
        """Return the batch of the prompts at ``indices`` ``(B,)``, which are consecutive."""
        chosen = [self.prompts[index] for index in indices]
        return ClipPromptBatch(
            prompts=[prompt.text for prompt in chosen],
            requirements=[prompt.to_json() for prompt in chosen],
            num_frames=self.num_frames,
            first_index=int(indices[0]),
            baselines={name: [s[index] for index in indices] for name, s in self.baselines.items()},
        )


def vbench_set(
    world: WorldSpec, num: int, *, image_size: int, num_frames: int, seed: int
) -> ClipPromptSet:
    """Return ``num`` prompts for clips, the dimensions in turn."""
    place = Place(world, "test", image_size, seed)
    prompts = [
        clip_prompt(stream_rng(seed, "vbench", n), SEMANTIC[n % len(SEMANTIC)], place.level)
        for n in range(num)
    ]
    random_clips, still_clips = [], []
    for number, prompt in enumerate(prompts):
        clip = place.clip(number, num_frames)
        random_clips.append(_clip_scores(clip, prompt))
        scene = next(frames(clip))
        held = replace(clip, motions=tuple(replace(m, kind="stay") for m in clip.motions))
        still_clips.append(_clip_scores(replace(held, scene=scene), prompt))
    return ClipPromptSet(
        prompts, {"random_clip": random_clips, "still_clip": still_clips}, num_frames
    )


def _clip_scores(clip: Clip, prompt: ClipPrompt) -> dict[str, float]:
    shown = list(frames(clip))
    return {**clip_quality(render_clip(clip), shown), prompt.dimension: judge_clip(shown, prompt)}
