"""Which caption of a drawn scene a step sees, and which others of the batch are true of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from vilau.errors import ConfigError
from vilau.world.language import dense_caption, noisy_caption, short_caption, true_phrases
from vilau.world.prompts import true_prompt
from vilau.world.scene import Scene


@dataclass(frozen=True)
class CaptionSpec:
    """Shares of caption kinds; the rest are short captions of one object's attributes and shape.

    A curriculum that names shapes first teaches them; dense captions alone do not, because colours
    and background already tell the images of a batch apart.

    Args:
        shape_share: captions with nothing but a shape ("a ring").
        color_share: captions with nothing but a colour.
        dense_share: captions that tell the whole scene.
        noisy_share: dense captions with objects and attributes missing, as on the web.
        placed_share: captions that tell the whole scene and where each thing stands.
    """

    shape_share: float = 0.15
    color_share: float = 0.10
    dense_share: float = 0.15
    noisy_share: float = 0.0
    placed_share: float = 0.0

    def check(self) -> None:
        """Raise ``ConfigError`` unless the shares are shares and leave room for each other."""
        _check_shares("captions", self)


@dataclass(frozen=True)
class PromptSpec:
    """Shares of the kinds of text a drawn scene is asked for with; the rest are skill prompts.

    Args:
        dense_share: captions that tell the whole scene.
        short_share: one object's attributes and shape.
    """

    dense_share: float = 0.4
    short_share: float = 0.2

    def check(self) -> None:
        """Raise ``ConfigError`` unless the shares are shares and leave room for each other."""
        _check_shares("prompts", self)


CAPTIONS = CaptionSpec()
"""The mixed captions that follow the shape-first part of the curriculum."""


def choose_caption(scene: Scene, spec: CaptionSpec, rng: random.Random) -> str:
    """Draw a caption of ``scene`` with the shares of ``spec``."""
    kind = rng.random()
    if kind < spec.dense_share:
        return dense_caption(scene, rng)
    if kind < spec.dense_share + spec.noisy_share:
        return noisy_caption(scene, rng)
    whole = spec.dense_share + spec.noisy_share + spec.placed_share
    if kind < whole:
        return dense_caption(scene, rng, places=True)
    rest = max(1.0 - whole, 1e-9)
    return short_caption(
        scene,
        rng,
        shape_share=min(1.0, spec.shape_share / rest),
        color_share=min(1.0, spec.color_share / rest),
    )


def choose_prompt(scene: Scene, spec: PromptSpec, rng: random.Random) -> str:
    """Draw a text that asks for ``scene``: true of it, with the shares of ``spec``."""
    kind = rng.random()
    if kind < spec.dense_share:
        return dense_caption(scene, rng)
    if kind < spec.dense_share + spec.short_share:
        return short_caption(scene, rng, shape_share=0.0, color_share=0.0)
    return true_prompt(scene, rng)


def caption_matches(scenes: Sequence[Scene], texts: Sequence[str]) -> Tensor:
    """Which text is true of which image.

    Args:
        scenes: the scene of each image, ``B`` of them.
        texts: one caption each, of which the i-th is true of image i.

    Returns:
        bool ``(B, B)``: entry [i, j] says that text j is true of image i. Dense captions are taken
        to be true of their own image alone.
    """
    return torch.eye(len(texts), dtype=torch.bool) | TextTruth(scenes)(texts)


class TextTruth:
    """Which of any texts are true of the images of a batch, as far as short captions tell.

    Args:
        scenes: the scene of each image, ``B`` of them.
    """

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self.scenes = list(scenes)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return bool ``(B, len(texts))``: entry [i, j] says that text j is true of image i."""
        truth = np.zeros((len(self.scenes), len(texts)), dtype=bool)
        for row, scene in zip(truth, self.scenes, strict=True):
            true = true_phrases(scene)
            row[:] = np.fromiter((text in true for text in texts), dtype=bool, count=len(texts))
        return torch.from_numpy(truth)


def _check_shares(key: str, spec: CaptionSpec | PromptSpec) -> None:
    shares = asdict(spec)
    for name, share in shares.items():
        if not 0.0 <= share <= 1.0:
            raise ConfigError(f"data.{key}.{name} is {share}; write a share from 0 to 1.")
    total = sum(shares.values())
    if total > 1.0 + 1e-9:
        raise ConfigError(
            f"data.{key} has shares that sum to {total:g}; write shares that sum to at most 1."
        )
