"""The codes of a batch's images, from pixels or from codes that were stored, and how they stand among words.

B rows, T tokens, N images, n of them without stored codes, P positions, D residual depth, Z code width, E width of
the language model.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from vilau.errors import DataError
from vilau.layers.pixels import to_float
from vilau.models.causal.parts import Parts
from vilau.models.sequence.rows import Layout


class Tokenized(NamedTuple):
    """What a language model is told of images."""

    codes: Tensor
    """int64 ``(N, P, D)``."""
    vectors: Tensor | None = None
    """``(N, P, Z)``: what the codes stand for, where it is known already; None: look them up."""

    def at(self, index: Tensor) -> "Tokenized":
        """Those of some of the images."""
        return Tokenized(self.codes[index], None if self.vectors is None else self.vectors[index])


class CodeReader(Parts, Protocol):
    """A model whose images are codes that it embeds one by one."""

    def encode(self, images: Tensor) -> Tokenized:
        """Encode float images in [-1, 1], at least one."""
        ...

    def embed_codes(self, codes: Tensor, vectors: Tensor | None = None) -> Tensor:
        """Map codes ``(..., D)`` to inputs of the language model ``(..., E)``, by their ``vectors`` where known."""
        ...


def embedded(model: CodeReader, layout: Layout, images: Tokenized | None) -> Tensor:
    """Embed a layout ``(B, T, E)``: words from the table, images from their codes (``images`` None: there are none)."""
    inputs_BTE = model.language.get_input_embeddings()(layout.ids)
    if not len(layout.span_rows):
        # A made-up position that weighs nothing: under data parallelism every rank must use every
        # weight, also on a batch of text alone.
        unseen = layout.ids.new_zeros(1, 1, model.tokenizer.spec.depth)
        return inputs_BTE + 0.0 * model.embed_codes(unseen).sum()
    assert images is not None
    places = torch.arange(model.sequence.num_positions, device=inputs_BTE.device)
    columns_nP = layout.span_starts[:, None] + places
    visual = model.embed_codes(*images.at(layout.span_images))
    return inputs_BTE.index_put((layout.span_rows[:, None], columns_nP), visual)


@torch.no_grad()
def all_tokenized(model: CodeReader, images: Tensor, codes: Tensor | None) -> Tokenized:
    """Tokenise a batch's images, uint8 or float in [-1, 1]; there may be none.

    Of stored ``codes`` ``(N, P, D)`` the rows of -1 are encoded from the images ``(n, 3, H, W)``, in order. Raises
    ``DataError`` for codes of another shape, or rows of -1 that are not as many as the images.
    """
    return _encoded(model, images) if codes is None else _completed(model, codes, images)


def _encoded(model: CodeReader, images: Tensor) -> Tokenized:
    if not len(images):  # transformers' attention cannot reshape an empty batch
        P, D = model.tokenizer.spec.num_positions, model.tokenizer.spec.depth
        return Tokenized(images.new_zeros(0, P, D, dtype=torch.int64))
    return model.encode(images if images.is_floating_point() else to_float(images))


def _completed(model: CodeReader, codes_NPD: Tensor, images: Tensor) -> Tokenized:
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
