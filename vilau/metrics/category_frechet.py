"""Frechet distances between pairs of image sets, over all images and by category, from one pass of features."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.image.fid import _compute_fid

from vilau.errors import DataError
from vilau.metrics.frechet import FrechetDistance, rank_shortage


class CategoryFrechet(Metric):
    """Frechet distances by category, in the features of the drawn world.

    Args:
        sets: names of the image sets.
        categories: names of the categories.
        features: whose feature network to use; None: the shipped one.

    Attributes:
        features_name: the feature network with its weights' hash, for a passport.
        preparation: how images go into it, for a passport.
    """

    full_state_update = False
    sums: Tensor
    outer: Tensor
    counts: Tensor

    def __init__(
        self,
        sets: Sequence[str],
        categories: Sequence[str],
        features: FrechetDistance | None = None,
    ) -> None:
        super().__init__()
        distance = features or FrechetDistance()
        self.network = distance.inception
        self.features_name, self.preparation = distance.features_name, distance.preparation
        self.sets, self.categories = tuple(sets), tuple(categories)
        shape, width = (len(self.sets), len(self.categories)), self.network.num_features
        zeros = {"dtype": torch.float64}
        self.add_state("sums", torch.zeros(*shape, width, **zeros), dist_reduce_fx="sum")  # type: ignore[call-overload]
        self.add_state("outer", torch.zeros(*shape, width, width, **zeros), dist_reduce_fx="sum")  # type: ignore[call-overload]
        self.add_state("counts", torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")

    @torch.no_grad()
    def update(self, images: Tensor, categories: Sequence[str], name: str) -> None:
        """Add uint8 images ``(B, 3, H, W)`` of the given categories to the set ``name``."""
        row = self.sets.index(name)
        features = self.network(images).double()
        for feature, category in zip(features, categories, strict=True):
            if category not in self.categories:
                raise DataError(
                    f"A picture is of category {category!r}; write one of {', '.join(self.categories)}."
                )
            column = self.categories.index(category)
            self.sums[row, column] += feature
            self.outer[row, column] += torch.outer(feature, feature)
            self.counts[row, column] += 1

    def compute(self) -> dict[tuple[str, str], Tensor]:
        """Return the number of images by (set, category); see `distance`."""
        return {
            (name, category): self.counts[row, column]
            for row, name in enumerate(self.sets)
            for column, category in enumerate(self.categories)
        }

    def distance(self, one: str, other: str, category: str | None = None) -> Tensor | None:
        """Return the distance between two sets in a category or over all; None below two images on a side.

        Call it between ``sync`` and ``unsync`` where there are several ranks.
        """
        moments = [self._moments(self.sets.index(name), category) for name in (one, other)]
        if any(moment is None for moment in moments):
            return None
        (mean, covariance), (mean2, covariance2) = moments  # type: ignore[misc]
        return _compute_fid(mean, covariance, mean2, covariance2)

    def shortage(self, one: str, other: str, category: str | None = None) -> str:
        """Return for a passport that a side of ``distance`` has fewer images than a covariance needs."""
        columns = slice(None) if category is None else [self.categories.index(category)]
        counts = [int(self.counts[self.sets.index(name), columns].sum()) for name in (one, other)]
        return rank_shortage(min(counts), int(self.sums.shape[-1]))

    def _moments(self, row: int, category: str | None) -> tuple[Tensor, Tensor] | None:
        columns = slice(None) if category is None else [self.categories.index(category)]
        count = self.counts[row, columns].sum()
        if count < 2:
            return None
        mean = self.sums[row, columns].sum(dim=0) / count
        outer = self.outer[row, columns].sum(dim=0)
        return mean, (outer - count * torch.outer(mean, mean)) / (count - 1)
