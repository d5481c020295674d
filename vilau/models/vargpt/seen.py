"""The images of a batch: pixels to read, codes to draw.

N images of the batch, m of them with pixels, n asked for, P cells of all scales.
"""

import torch
from torch import Tensor

from vilau.errors import DataError
from vilau.layers.pixels import resized, to_float
from vilau.models.interface import VisualTokenizer


class Seen:
    """Images and stored codes; codes that are not stored are made where they are asked for, once."""

    def __init__(self, images: Tensor, codes: Tensor | None, tokenizer: VisualTokenizer) -> None:
        """Take pixels ``(m, 3, H, W)``, uint8 or float in [-1, 1], and codes ``(N, P, 1)`` with rows of -1 for these.

        ``codes`` None: every image has its pixels. Raises ``DataError`` for codes of another shape, or rows of -1
        that are not as many as the images.
        """
        P, D = tokenizer.spec.num_positions, tokenizer.spec.depth
        self._images, self._tokenizer = images, tokenizer
        if codes is None:
            codes = torch.full((len(images), P, D), -1, dtype=torch.int64, device=images.device)
        elif codes.shape[1:] != (P, D):
            raise DataError(
                f"a batch holds codes of the shape {tuple(codes.shape)}, but this model's image tokenizer has {P} "
                f"positions x {D} depths; encode the set again with it (`vilau data tokenize`)."
            )
        missing_N = codes[:, 0, 0] < 0
        if int(missing_N.sum()) != len(images):
            raise DataError(
                f"a batch holds {len(images)} images for {int(missing_N.sum())} rows without codes; give one image "
                "for each row of -1."
            )
        self._codes_NPD = codes
        self._rows_N = torch.where(missing_N, missing_N.cumsum(0) - 1, -1)

    def pixels(self, index_n: Tensor) -> Tensor:
        """Float pixels ``(n, 3, H, W)`` in [-1, 1]; ``DataError`` for an image of which codes alone are stored."""
        rows_n = self._rows_N[index_n]
        if (rows_n < 0).any():
            raise DataError(
                "a document reads an image of which codes alone are stored, but VARGPT reads pixels; give it the "
                "images themselves, or stored codes of pictures to be drawn alone."
            )
        found = self._images[rows_n]
        return found if found.is_floating_point() else to_float(found)

    @torch.no_grad()
    def codes(self, index_n: Tensor) -> Tensor:
        """Codes ``(n, P, 1)``; images of another size than the tokenizer's are resized to it."""
        new = index_n[self._codes_NPD[index_n, 0, 0] < 0].unique()
        if len(new):
            images = resized(self.pixels(new), self._tokenizer.spec.image_size)
            self._codes_NPD = self._codes_NPD.index_copy(0, new, self._tokenizer.encode(images))
        return self._codes_NPD[index_n]
