"""Judgements of drawn pictures and clips by a `SceneJudge`, as the callbacks of the twins report them."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from vilau.metrics.judge import Judgement, SceneJudge, judge_scene
from vilau.world.clip_judge import ClipPrompt, clip_quality, clip_total, judge_clip
from vilau.world.judge import requirements_from_json

__all__ = ["clip_scores", "judged_pictures", "mean_clip_scores"]


def judged_pictures(
    judge: SceneJudge, images: Tensor, requirements: Sequence[str]
) -> list[Judgement | None]:
    """Judge uint8 images ``(B, 3, H, W)`` by their requirements (JSON); None where a part is asked for, which
    the judge cannot see."""
    scenes = judge.parse(images)
    return [
        None if _hidden(text) else judge_scene(scene, text)
        for scene, text in zip(scenes, requirements, strict=True)
    ]


def _hidden(text: str) -> bool:
    return any(requirement.kind == "part" for requirement in requirements_from_json(text))


def clip_scores(judge: SceneJudge, clip: Tensor, requirements: str) -> dict[str, float]:
    """Return a clip's quality by dimension and the score of its prompt's own dimension, all in 0..1.

    Args:
        judge: reads the frames.
        clip: uint8 ``(F, 3, H, W)``.
        requirements: of the prompt, as `ClipPrompt.to_json` writes them.
    """
    prompt, scenes = ClipPrompt.from_json(requirements), judge.parse(clip)
    quality = clip_quality(clip.permute(0, 2, 3, 1).cpu().numpy(), scenes)
    return {**quality, prompt.dimension: judge_clip(scenes, prompt)}


def mean_clip_scores(scores: Mapping[str, float]) -> dict[str, float]:
    """Return ``quality``, ``semantic`` and ``total`` of mean scores by dimension, see `clip_total`."""
    return clip_total(scores)
