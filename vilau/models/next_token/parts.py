"""What losses, drawing and writing need of a model whose state at one place predicts the codes at the next.

B rows, T tokens, N images, n spans, P positions, D residual depth, Z code width, E language-model width.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from vilau.models.interface import VisualTokenizer
from vilau.models.language import CausalLM
from vilau.models.sequence.layout import SequenceLayout
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


class Parts(Protocol):
    """The parts of a model and how they meet: what a family fills in, and nothing that families do alike."""

    language: CausalLM
    sequence: SequenceLayout
    words: Any
    """The text tokenizer."""

    @property
    def tokenizer(self) -> VisualTokenizer:
        """What makes codes of images."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        ...

    def encode(self, images: Tensor) -> Tokenized:
        """Encode float images in [-1, 1], at least one."""
        ...

    def embed_codes(self, codes: Tensor, vectors: Tensor | None = None) -> Tensor:
        """Map codes ``(..., D)`` to inputs of the language model ``(..., E)``, by their ``vectors`` where known."""
        ...

    def visual_loss(self, hidden_nPE: Tensor, codes_nPD: Tensor) -> Tensor:
        """Sum of the cross entropies, in nats, of codes that states predict."""
        ...

    def sample_codes(self, hidden_NE: Tensor, choose: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Draw the codes ``(N, D)`` that states predict; ``choose(logits (N, K), depth)`` returns codes ``(N,)``."""
        ...

    def word_logits(self, hidden: Tensor) -> Tensor:
        """Map states ``(..., E)`` to logits ``(..., V)`` of the text tokens that an answer is written with."""
        ...


def embedded(model: Parts, layout: Layout, images: Tokenized | None) -> Tensor:
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
