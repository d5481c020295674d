"""How well pictures agree with their texts: the cosine of their features, and CLIP score.

CLIP score is ``max(100 cos(image, text), 0)`` of the mean over pairs (Hessel et al. 2021, with
torchmetrics' factor of 100 in the place of 2.5).
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from vilau.errors import DataError


class PairCosine(Metric):
    """Mean cosine of images with their own texts, and with the texts of the other images.

    Sums are in float64 and added over ranks: the result hangs on neither batches nor ranks.

    Args:
        width: C, of the features.
    """

    full_state_update = False
    own: Tensor
    images: Tensor
    texts: Tensor
    count: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        for name, size in (("own", ()), ("images", (width,)), ("texts", (width,))):
            self.add_state(name, torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, images: Tensor, texts: Tensor) -> None:
        """Add features of images and of their texts, ``(B, C)`` each, not necessarily normalised."""
        images, texts = (F.normalize(part.double(), dim=-1) for part in (images, texts))
        self.own += (images * texts).sum()
        self.images += images.sum(dim=0)
        self.texts += texts.sum(dim=0)
        self.count += len(images)

    def compute(self) -> dict[str, Tensor]:
        """Return ``cosine`` and, from two pairs on, ``chance``: the mean over all pairs i, j with i not j.

        Raises:
            DataError: nothing was added.
        """
        count = int(self.count)
        if not count:
            raise DataError("There is no picture to compare with its text; give the test prompts.")
        values = {"cosine": (self.own / count).float()}
        if count > 1:
            others = self.images @ self.texts - self.own
            values["chance"] = (others / (count * (count - 1))).float()
        return values


def clip_score(cosine: Tensor) -> Tensor:
    """Return the CLIP score of a mean cosine of CLIP's features: 0 to 100."""
    return (100.0 * cosine).clamp(min=0.0)
