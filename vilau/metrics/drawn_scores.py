"""Scores of drawn clips by a `SceneJudge`, as the callback of VBench's twin reports them."""

from collections.abc import Mapping

from torch import Tensor

from vilau.metrics.judge import SceneJudge
from vilau.world.clip_judge import ClipPrompt, clip_quality, clip_total, judge_clip

__all__ = ["clip_scores", "mean_clip_scores"]


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
