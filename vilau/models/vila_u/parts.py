"""What losses, drawing and writing need of a VILA-U model.

B rows, T tokens, N images, n spans, P positions, Z code width, E language-model width.
"""

from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from vilau.models.vila_u.head import DepthTransformer
from vilau.models.vila_u.sequence import Layout, SequenceLayout
from vilau.models.vila_u.tower import VisionTower


class Parts(Protocol):
    """The parts of a model and how they meet at the language model's input."""

    tokenizer: VisionTower
    language: LlamaForCausalLM
    head: DepthTransformer
    sequence: SequenceLayout
    words: Any
    """The text tokenizer."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        ...

    def project(self, vectors: Tensor) -> Tensor:
        """Map code vectors ``(..., Z)`` to inputs of the language model ``(..., E)``."""
        ...


def embedded(model: Parts, layout: Layout, vectors_NPZ: Tensor) -> Tensor:
    """Embed a layout ``(B, T, E)``: words from the table, images from their projected code vectors."""
    inputs_BTE = model.language.get_input_embeddings()(layout.ids)
    if not len(layout.span_rows):
        # A made-up position that weighs nothing: under data parallelism every rank must use every
        # weight, also on a batch of text alone.
        unseen = model.tokenizer.embed(layout.ids.new_zeros(1, 1, model.tokenizer.spec.depth))
        return inputs_BTE + 0.0 * model.project(unseen).sum()
    places = torch.arange(model.sequence.num_positions, device=inputs_BTE.device)
    columns_nP = layout.span_starts[:, None] + places
    visual = model.project(vectors_NPZ[layout.span_images])
    return inputs_BTE.index_put((layout.span_rows[:, None], columns_nP), visual)
