"""Retrieval between images and texts: is a right one among the k nearest of the whole set?

Image to text: a text that is true of an image is among the k texts nearest to it. Text to image: an
image that a text is true of is among the k images nearest to it. Several texts may be true of an
image, and a text of several images.

N images, M texts, U texts that differ, C feature width.
"""

from collections.abc import Sequence
from math import comb

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from vilau.errors import DataError

CHUNK = 1024
"""Rows of the score matrix in memory at a time."""


class RetrievalRecall(Metric):
    """R@k over all images and texts of a set, in both directions.

    Ties count against: whatever wrong scores as high as the best right one stands before it, so
    features that are all alike retrieve nothing.

    Args:
        ks: the k of R@k, each 1 or more.
    """

    full_state_update = False
    images: list[Tensor]
    texts: list[Tensor]
    keys: list[Tensor]
    pairs: list[Tensor]
    num_images: Tensor
    num_texts: Tensor
    num_pairs: Tensor

    def __init__(self, ks: Sequence[int] = (1, 5, 10)) -> None:
        super().__init__()
        self.ks = tuple(ks)
        for name in ("images", "texts", "keys", "pairs"):
            self.add_state(name, [], dist_reduce_fx="cat")
        # Stacked over ranks: each rank numbers its images from 0, and comes after the ranks before.
        for name in ("num_images", "num_texts", "num_pairs"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx=None)

    def update(
        self,
        images: Tensor,
        texts: Tensor,
        owners: Tensor | None = None,
        keys: Tensor | None = None,
    ) -> None:
        """Add features of images ``(B, C)`` and of texts ``(M, C)``, each text with its own image.

        Args:
            images: image features, not necessarily normalised.
            texts: text features, likewise.
            owners: int64 ``(M,)``, for each text the row in ``images`` of its image; None: text i is
                of image i, and M = B.
            keys: int64 ``(M,)``, 0 or more: texts of one key, whatever batch and rank they come from,
                are one text, which stands once among the answers and is true of the images of all;
                None: every text is one of its own.

        Raises:
            DataError: owners are missing where there are more texts than images, or out of range.
        """
        if owners is None:
            if len(texts) != len(images):
                raise DataError(
                    f"Retrieval got {len(texts)} texts for {len(images)} images and no owners; say for "
                    "each text which image it is of."
                )
            owners = torch.arange(len(images), device=images.device)
        owners = owners.to(images.device)
        if len(owners) != len(texts) or (owners < 0).any() or (owners >= len(images)).any():
            raise DataError(
                f"Retrieval got {len(texts)} texts whose {len(owners)} owners must be rows 0 to "
                f"{len(images) - 1} of the images."
            )
        if keys is None:  # below 0, counted down: no key of a caller's, no other text's
            keys = -1 - torch.arange(len(texts), device=images.device) - self.num_texts
        first = self.num_images.clone()
        self.images.append(F.normalize(images.float(), dim=-1))
        self.texts.append(F.normalize(texts.float(), dim=-1))
        self.keys.append(keys.to(images.device))
        self.num_images += len(images)
        self.num_texts += len(texts)
        self.add_true(owners + first, keys)

    def add_true(self, images: Tensor, keys: Tensor) -> None:
        """Say which further texts are true of which images.

        Args:
            images: int64 ``(n,)``, numbers of images in the order in which this rank added them.
            keys: int64 ``(n,)``, the key of a text that is true of the image; it may come later or
                from another rank, and counts for nothing if it never does.
        """
        device = self.num_pairs.device
        self.pairs.append(torch.stack([images.to(device), keys.to(device)], dim=1))
        self.num_pairs += len(images)
        self._computed = None  # torchmetrics remembers the result until the next ``update``

    def compute(self) -> dict[str, Tensor]:
        """Return ``image_to_text_r<k>`` and ``text_to_image_r<k>`` in 0..1 for every k.

        With ``_chance`` at its end each name gives what features that know nothing retrieve on
        average. Images without a text are no question, but stand among the answers.

        Raises:
            DataError: nothing was added.
        """
        if not self.num_images.sum():
            raise DataError("Retrieval saw no images; give the evaluation some.")
        images, texts, true = self._joined()
        values: dict[str, Tensor] = {}
        for direction, asking, answers, pairs in (
            ("image_to_text", images, texts, true),
            ("text_to_image", texts, images, true.flip(1)),
        ):
            ahead, right = _wrong_ahead(asking, answers, pairs)
            for k in self.ks:
                values[f"{direction}_r{k}"] = (ahead < k).float().mean()
                values[f"{direction}_r{k}_chance"] = _chance(right, len(answers), k)
        return values

    def _joined(self) -> tuple[Tensor, Tensor, Tensor]:
        """Features of all images ``(N, C)`` and texts ``(U, C)``, true pairs ``(n, 2)`` of row numbers."""
        images, texts = dim_zero_cat(self.images), dim_zero_cat(self.texts)
        keys, pairs = dim_zero_cat(self.keys), dim_zero_cat(self.pairs)
        num_texts, num_pairs = self.num_texts.reshape(-1), self.num_pairs.reshape(-1)
        before = _before(num_texts)
        keys = torch.where(keys < 0, keys - before.repeat_interleave(num_texts), keys)
        image, key = pairs.unbind(dim=1)
        image = image + _before(self.num_images).repeat_interleave(num_pairs)
        key = torch.where(key < 0, key - before.repeat_interleave(num_pairs), key)
        unique, place = keys.unique(return_inverse=True)
        rows = torch.arange(len(keys), device=keys.device)
        first = torch.full_like(unique, len(keys)).scatter_reduce(0, place, rows, "amin")
        text = torch.searchsorted(unique, key).clamp(max=len(unique) - 1)
        known = unique[text] == key
        return images, texts[first], torch.stack([image[known], text[known]], dim=1).unique(dim=0)


def _before(counts: Tensor) -> Tensor:
    """For each rank, how many there are on the ranks before it."""
    counts = counts.reshape(-1)
    return counts.cumsum(0) - counts


def _wrong_ahead(asking: Tensor, answers: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """For each row of ``asking`` with a right answer: how many wrong answers score as high as the best
    right one, and how many right ones there are.

    ``true``, int64 ``(n, 2)``, holds the rows of ``asking`` and of ``answers`` that go together.
    """
    ahead, right = [], []
    for start in range(0, len(asking), CHUNK):
        scores = asking[start : start + CHUNK] @ answers.T
        mine = true[(true[:, 0] >= start) & (true[:, 0] < start + CHUNK)]
        own = torch.zeros_like(scores, dtype=torch.bool)
        own[mine[:, 0] - start, mine[:, 1]] = True
        best = scores.masked_fill(~own, -torch.inf).amax(dim=1, keepdim=True)
        wrong = ((scores >= best) & ~own).sum(dim=1)
        asked = own.any(dim=1)
        ahead.append(wrong[asked])
        right.append(own.sum(dim=1)[asked])
    return torch.cat(ahead), torch.cat(right)


def _chance(right: Tensor, num_answers: int, k: int) -> Tensor:
    """Mean over questions of the share of orders that put one of its right answers among the first k."""
    picked = min(k, num_answers)
    counts, times = right.unique(return_counts=True)
    missed = [comb(num_answers - r, picked) / comb(num_answers, picked) for r in counts.tolist()]
    hits = 1.0 - torch.tensor(missed, dtype=torch.float64)
    return ((hits * times.cpu()).sum() / max(1, len(right))).float().to(right.device)
