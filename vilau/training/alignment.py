"""The contrastive loss of training: which texts an image is compared with, and how."""

from dataclasses import dataclass
from typing import Literal

import torch.distributed as dist
from torch import Tensor

from vilau.errors import ConfigError
from vilau.layers.contrastive import (
    diagonal,
    sigmoid_contrastive_loss,
    sigmoid_loss_over_ranks,
    softmax_contrastive_loss,
    softmax_loss_over_ranks,
)
from vilau.layers.ranks import GlobalRows
from vilau.models.vila_u.tower import VisionTower
from vilau.types import ImageTextBatch

LOSSES = ("sigmoid", "softmax")
NEGATIVES = ("step", "micro_batch", "rank")


@dataclass
class AlignmentConfig:
    """The contrastive loss."""

    loss: Literal["sigmoid", "softmax"] = "sigmoid"
    """SigLIP's or CLIP's."""
    negatives: Literal["step", "micro_batch", "rank"] = "step"
    """Which texts an image is compared with in training. ``step``: all of the optimiser's step, over all
    processes; refused with gradient accumulation, whose parts do not know one another. ``micro_batch``: those of
    all processes, each accumulated part by itself. ``rank``: those of its own process and part alone."""

    def __post_init__(self) -> None:
        for key, choices in (("loss", LOSSES), ("negatives", NEGATIVES)):
            if getattr(self, key) not in choices:
                raise ConfigError(
                    f"alignment.{key} is {getattr(self, key)!r}; write {' or '.join(choices)}."
                )


def contrastive_loss(
    tower: VisionTower,
    features: Tensor,
    batch: ImageTextBatch,
    *,
    kind: str,
    over_ranks: bool,
) -> Tensor:
    """Loss between quantised ``features`` ``(B, P, C)`` and the texts of ``batch``: a scalar.

    ``over_ranks``: compare with the texts of all processes, which must then all come here.
    """
    sides = tower.pooled(features), tower.text_features(batch.texts)
    scale, bias = tower.siglip.logit_scale, tower.siglip.logit_bias
    return pair_loss(*sides, batch, scale=scale, bias=bias, kind=kind, over_ranks=over_ranks)


def pair_loss(
    images: Tensor,
    texts: Tensor,
    batch: ImageTextBatch,
    *,
    scale: Tensor,
    bias: Tensor,
    kind: str,
    over_ranks: bool,
) -> Tensor:
    """Loss between the features of a batch's images and texts, ``(B, C)`` each; see ``contrastive_loss``."""
    if over_ranks:

        def matches(where: GlobalRows) -> Tensor:
            return matches_over_ranks(batch, where)

        if kind == "softmax":
            return softmax_loss_over_ranks(images, texts, logit_scale=scale, matches=matches)
        return sigmoid_loss_over_ranks(
            images, texts, logit_scale=scale, logit_bias=bias, matches=matches
        )
    if kind == "softmax":
        return softmax_contrastive_loss(images, texts, logit_scale=scale, matches_BB=batch.matches)
    return sigmoid_contrastive_loss(
        images, texts, logit_scale=scale, logit_bias=bias, matches_BB=batch.matches
    )


def matches_over_ranks(batch: ImageTextBatch, where: GlobalRows) -> Tensor:
    """Which texts of all processes are true of this one's images: bool ``(B, where.total)``.

    Of others' texts ``batch.truth`` decides; without it they are taken to be true of their own images alone.
    """
    count, device = len(batch.texts), batch.images.device
    known = diagonal(count, where, device)
    if batch.matches is not None:
        known[:, where.start : where.start + count] |= batch.matches
    if batch.truth is not None and not where.alone:
        found: list[list[str]] = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(found, batch.texts)
        known |= batch.truth([text for texts in found for text in texts]).to(device)
    return known
