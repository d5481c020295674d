"""Retrieval between images and texts: is the right one among the k nearest of the whole set?

Image to text: one of an image's own captions is among the k texts nearest to it. Text to image: a
text's own image is among the k images nearest to it. An image may have several captions.
"""

from collections.abc import Sequence

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

    Ties count against: whatever scores as high as the right one stands before it, so features that
    are all alike retrieve nothing.

    Args:
        ks: the k of R@k, each 1 or more.
    """

    full_state_update = False
    images: list[Tensor]
    texts: list[Tensor]
    owners: list[Tensor]
    num_images: Tensor
    num_texts: Tensor

    def __init__(self, ks: Sequence[int] = (1, 5, 10)) -> None:
        super().__init__()
        self.ks = tuple(ks)
        for name in ("images", "texts", "owners"):
            self.add_state(name, [], dist_reduce_fx="cat")
        # Stacked over ranks: each rank numbers its images from 0, and comes after the ranks before.
        for name in ("num_images", "num_texts"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx=None)

    def update(self, images: Tensor, texts: Tensor, owners: Tensor | None = None) -> None:
        """Add features of images ``(B, C)`` and of texts ``(M, C)``.

        Args:
            images: image features, not necessarily normalised.
            texts: text features, likewise.
            owners: int64 ``(M,)``, for each text the row in ``images`` of its image; None: text i is
                of image i, and M = B.

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
        self.images.append(F.normalize(images.float(), dim=-1))
        self.texts.append(F.normalize(texts.float(), dim=-1))
        self.owners.append(owners + self.num_images)
        self.num_images += len(images)
        self.num_texts += len(texts)

    def compute(self) -> dict[str, Tensor]:
        """Return ``image_to_text_r<k>`` and ``text_to_image_r<k>`` in 0..1 for every k.

        Images without a text are no question, but stand among the answers.

        Raises:
            DataError: nothing was added.
        """
        if not self.num_images.sum():
            raise DataError("Retrieval saw no images; give the evaluation some.")
        images, texts = dim_zero_cat(self.images), dim_zero_cat(self.texts)
        owners = dim_zero_cat(self.owners) + self._image_offsets()
        ahead = {
            "image_to_text": _texts_ahead(images, texts, owners),
            "text_to_image": _images_ahead(images, texts, owners),
        }
        return {
            f"{direction}_r{k}": (ranks < k).float().mean()
            for direction, ranks in ahead.items()
            for k in self.ks
        }

    def _image_offsets(self) -> Tensor:
        """For each text, how many images the ranks before its own hold, ``(M,)``."""
        images, texts = self.num_images.reshape(-1), self.num_texts.reshape(-1)
        return (images.cumsum(0) - images).repeat_interleave(texts)


def _texts_ahead(images: Tensor, texts: Tensor, owners: Tensor) -> Tensor:
    """For each image that has texts, how many texts of others score as high as its best own one."""
    found = []
    for start in range(0, len(images), CHUNK):
        scores = images[start : start + CHUNK] @ texts.T
        rows = torch.arange(start, start + len(scores), device=scores.device)
        own = owners[None, :] == rows[:, None]
        best = scores.masked_fill(~own, -torch.inf).amax(dim=1, keepdim=True)
        ahead = ((scores >= best) & ~own).sum(dim=1)
        found.append(ahead[own.any(dim=1)])
    return torch.cat(found)


def _images_ahead(images: Tensor, texts: Tensor, owners: Tensor) -> Tensor:
    """For each text, how many other images score as high as its own, ``(M,)``."""
    found = []
    for start in range(0, len(texts), CHUNK):
        scores = texts[start : start + CHUNK] @ images.T
        mine = owners[start : start + CHUNK, None]
        best = scores.gather(1, mine)
        # Its own image scores as high as itself.
        found.append((scores >= best).sum(dim=1) - 1)
    return torch.cat(found)
