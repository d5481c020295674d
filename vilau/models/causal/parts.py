"""What losses, drawing and writing need of a model: a causal language model, and how its images meet it.

B rows, T tokens, n images, P positions, D residual depth, E language-model width.
"""

from typing import Any, Protocol

import torch
from torch import Tensor

from vilau.models.interface import VisualTokenizer
from vilau.models.language import CausalLM
from vilau.models.sequence.layout import SequenceLayout
from vilau.models.sequence.rows import Layout


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

    def see(self, images: Tensor, codes: Tensor | None = None) -> Any:
        """Prepare the images of a batch, uint8 or float in [-1, 1], and the codes that are stored of some of them.

        What is returned is the family's own, for the three functions below.
        """
        ...

    def embedded(self, layout: Layout, seen: Any) -> Tensor:
        """Embed a layout ``(B, T, E)``: words from the table, images as the family shows them (None: no images)."""
        ...

    def codes_of(self, seen: Any, index_n: Tensor) -> Tensor:
        """The codes ``(n, P, D)`` of some of the images."""
        ...

    def visual_loss(self, hidden_nPE: Tensor, codes_nPD: Tensor) -> Tensor:
        """Sum of the cross entropies, in nats, of codes that states predict; of an image's first positions, or all."""
        ...

    def word_logits(self, hidden: Tensor) -> Tensor:
        """Map states ``(..., E)`` to logits ``(..., V)`` of the text tokens that an answer is written with."""
        ...
