"""Inception Score (Salimans et al. 2016): are drawn images sure of a class each, and varied together?

``exp(E_x KL(p(y|x) || p(y)))`` over the classes of the Inception that torch-fidelity and the
published numbers use; mean and standard deviation over splits of the set.
"""

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.image.fid import NoTrainInceptionV3
from torchmetrics.utilities import dim_zero_cat

from vilau.errors import DataError
from vilau.metrics.frechet import INCEPTION_PREPARATION, inception_weights
from vilau.metrics.passport import weights_hash
from vilau.metrics.weights import read_weights

SHUFFLE_SEED = 2020
"""torch-fidelity's: which images share a split."""


class InceptionScore(Metric):
    """Inception Score over uint8 images, equal to torch-fidelity's for the same order of images.

    Sums are taken in float64. With indices the result does not depend on how ranks share the images.

    Args:
        weights: the weights file; None: the one in torch's hub cache.
        splits: parts of the set that are scored on their own; published numbers are of 10.

    Raises:
        CheckpointError: the weights are not there, or broken.
    """

    full_state_update = False
    logits: list[Tensor]
    indices: list[Tensor]

    def __init__(self, weights: str | None = None, splits: int = 10) -> None:
        super().__init__()
        file = inception_weights(weights)
        # torch-fidelity opens the file with pickle; one that is tensors alone does no harm.
        read_weights(file)
        self.features_name = f"Inception logits without bias {weights_hash(file)}"
        self.preparation = INCEPTION_PREPARATION
        self.splits = splits
        self.network = NoTrainInceptionV3(
            name="inception-v3-compat",
            features_list=["logits_unbiased"],
            feature_extractor_weights_path=str(file),
            antialias=False,
        ).requires_grad_(False)
        self.seen = 0
        self.add_state("logits", [], dist_reduce_fx="cat")
        self.add_state("indices", [], dist_reduce_fx="cat")

    def update(self, images: Tensor, indices: Tensor | None = None) -> None:
        """Add uint8 images ``(B, 3, H, W)``; ``indices``, int64 ``(B,)``, are their places in the set
        (default: one after another as they come)."""
        if images.dtype != torch.uint8:
            raise TypeError(f"Inception Score takes uint8 images, not {images.dtype}")
        if indices is None:
            indices = torch.arange(self.seen, self.seen + len(images))
        self.seen += len(images)
        self.logits.append(self.network(images))
        self.indices.append(indices.to(images.device))

    def reset(self) -> None:
        """Forget the images."""
        super().reset()
        self.seen = 0

    def compute(self) -> dict[str, Tensor]:
        """Return ``mean`` and ``sd`` (over the splits, of the population).

        Raises:
            DataError: there are fewer images than splits.
        """
        # A list before the ranks are joined, one tensor after.
        logits = dim_zero_cat(self.logits) if len(self.logits) else torch.zeros(0, 1)
        if len(logits) < self.splits:
            raise DataError(
                f"An Inception Score of {self.splits} splits needs {self.splits} images or more, but has "
                f"{len(logits)}; give the evaluation more images."
            )
        logits = logits[dim_zero_cat(self.indices).argsort(stable=True)].double()
        order = np.random.RandomState(SHUFFLE_SEED).permutation(len(logits))
        logits = logits[torch.from_numpy(order).to(logits.device)]
        bounds = [part * len(logits) // self.splits for part in range(self.splits + 1)]
        parts = zip(bounds[:-1], bounds[1:], strict=True)
        scores = torch.stack([_score(logits[start:end]) for start, end in parts])
        return {"mean": scores.mean().float(), "sd": scores.std(correction=0).float()}


def _score(logits: Tensor) -> Tensor:
    """``exp(mean KL)`` of logits ``(N, classes)``."""
    shares, logs = logits.softmax(dim=1), logits.log_softmax(dim=1)
    mean = shares.mean(dim=0, keepdim=True)
    # A share that is 0 by rounding has no part in the sum, however small the mean.
    terms = torch.where(shares > 0, shares * (logs - mean.log()), 0.0)
    return terms.sum(dim=1).mean().exp()
