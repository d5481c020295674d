"""Zero-shot classification: which class's texts does an image's feature lie closest to?

The class vectors are built as in open_clip: the normalised features of a class's prompts are
averaged, and the mean is normalised again.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

CHUNK = 256
"""Prompts per call of the text encoder."""


@torch.no_grad()
def class_vectors(
    text_features: Callable[[Sequence[str]], Tensor], class_texts: Sequence[Sequence[str]]
) -> Tensor:
    """Return one unit vector per class, float32 ``(number of classes, C)``.

    Args:
        text_features: maps texts to normalised features ``(len(texts), C)``.
        class_texts: for each class its prompts, at least one.
    """
    prompts = [text for texts in class_texts for text in texts]
    pieces = [
        text_features(prompts[start : start + CHUNK]).float()
        for start in range(0, len(prompts), CHUNK)
    ]
    per_class = torch.cat(pieces).split([len(texts) for texts in class_texts])
    return F.normalize(torch.stack([features.mean(dim=0) for features in per_class]), dim=-1)


class ZeroShotAccuracy(Metric):
    """Top-1 and top-5 accuracy over all classes, and top-1 over seen and held-out classes.

    An image counts for seen or held-out by its own class; it may be taken for any class.
    """

    full_state_update = False
    top1: Tensor
    top5: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Two entries each: seen classes, held-out classes.
        for name in ("top1", "top5", "count"):
            self.add_state(name, torch.zeros(2, dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self, features: Tensor, labels: Tensor, vectors: Tensor, held_out: Tensor | None = None
    ) -> None:
        """Add image features ``(B, C)`` with labels ``(B,)``; ``vectors`` from `class_vectors`.

        ``held_out``, bool ``(number of classes,)``, marks the classes no training image showed.
        """
        scores = F.normalize(features.float(), dim=-1) @ vectors.to(features.device).T
        best = scores.topk(min(5, scores.shape[-1]), dim=-1).indices
        hits = best == labels[:, None]
        group = torch.zeros_like(labels) if held_out is None else held_out.to(labels.device)[labels]
        for index in (0, 1):
            of_group = group == index
            self.top1[index] += hits[of_group, 0].sum()
            self.top5[index] += hits[of_group].sum()
            self.count[index] += of_group.sum()

    def compute(self) -> dict[str, Tensor]:
        """Return ``top1`` and ``top5``, and ``seen`` and ``held_out`` where there were such."""
        total = self.count.sum()
        result = {
            "top1": self.top1.sum() / total.clamp(min=1),
            "top5": self.top5.sum() / total.clamp(min=1),
        }
        for index, name in enumerate(("seen", "held_out")):
            if self.count[index]:
                result[name] = self.top1[index] / self.count[index]
        return result
