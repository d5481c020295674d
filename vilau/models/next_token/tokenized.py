"""The codes of a batch's images: from pixels, or from codes that were stored.

N images, n of them without stored codes, P positions, D residual depth.
"""

import torch
from torch import Tensor

from vilau.errors import DataError
from vilau.layers.pixels import to_float
from vilau.models.next_token.parts import Parts, Tokenized


@torch.no_grad()
def all_tokenized(model: Parts, images: Tensor, codes: Tensor | None) -> Tokenized:
    """Tokenise a batch's images, uint8 or float in [-1, 1]; there may be none.

    Of stored ``codes`` ``(N, P, D)`` the rows of -1 are encoded from the images ``(n, 3, H, W)``, in order. Raises
    ``DataError`` for codes of another shape, or rows of -1 that are not as many as the images.
    """
    return _encoded(model, images) if codes is None else _completed(model, codes, images)


def _encoded(model: Parts, images: Tensor) -> Tokenized:
    if not len(images):  # transformers' attention cannot reshape an empty batch
        P, D = model.tokenizer.spec.num_positions, model.tokenizer.spec.depth
        return Tokenized(images.new_zeros(0, P, D, dtype=torch.int64))
    return model.encode(images if images.is_floating_point() else to_float(images))


def _completed(model: Parts, codes_NPD: Tensor, images: Tensor) -> Tokenized:
    spec = model.tokenizer.spec
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
        fresh = _encoded(model, images).codes
        codes_NPD = codes_NPD.masked_scatter(missing_N[:, None, None], fresh)
    return Tokenized(codes_NPD)
