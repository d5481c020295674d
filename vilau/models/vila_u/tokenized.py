"""The codes of a batch's images and the vectors they stand for: from pixels, or from codes that were stored.

N images, n of them without stored codes, P positions, D residual depth, Z code width.
"""

import torch
from torch import Tensor

from vilau.errors import DataError
from vilau.layers.pixels import to_float
from vilau.models.vila_u.tower import VisionTower


@torch.no_grad()
def tokenized(tower: VisionTower, images: Tensor) -> tuple[Tensor, Tensor]:
    """Encode images, uint8 or float in [-1, 1]: codes ``(N, P, D)`` and vectors ``(N, P, Z)``; N may be 0."""
    if not len(images):  # transformers' attention cannot reshape an empty batch
        codes_NPD = images.new_zeros(
            0, tower.spec.num_positions, tower.spec.depth, dtype=torch.int64
        )
        return codes_NPD, tower.embed(codes_NPD)
    pixels = images if images.is_floating_point() else to_float(images)
    quantized = tower.quantize(pixels)
    return quantized.codes, quantized.features


@torch.no_grad()
def with_stored_codes(
    tower: VisionTower, codes_NPD: Tensor, images: Tensor
) -> tuple[Tensor, Tensor]:
    """Look stored codes up; rows of -1 are encoded from ``images`` ``(n, 3, H, W)``, in order.

    Returns codes ``(N, P, D)`` and vectors ``(N, P, Z)``. Raises ``DataError`` for codes of another shape, or rows
    of -1 that are not as many as the images.
    """
    spec = tower.spec
    if codes_NPD.shape[1:] != (spec.num_positions, spec.depth):
        raise DataError(
            f"a batch holds codes of the shape {tuple(codes_NPD.shape)}, but this model's tower has "
            f"{spec.num_positions} positions x {spec.depth} depths; encode the set again with its tower "
            "(`vilau data tokenize`)."
        )
    missing_N = codes_NPD[:, 0, 0] < 0
    if int(missing_N.sum()) != len(images):
        raise DataError(
            f"a batch holds {len(images)} images for {int(missing_N.sum())} rows without codes; give one image "
            "for each row of -1."
        )
    if len(images):
        codes_NPD = codes_NPD.masked_scatter(missing_N[:, None, None], tokenized(tower, images)[0])
    return codes_NPD, tower.embed(codes_NPD)
