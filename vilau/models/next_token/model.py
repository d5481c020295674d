"""Models whose state at one place predicts the codes at the next: VILA-U and Liquid.

N images, P positions, D residual depth, E language-model width.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from vilau.models.causal.model import CausalModel
from vilau.models.next_token.drawing import draw_codes
from vilau.models.next_token.tokenized import Tokenized, all_tokenized, embedded
from vilau.models.sequence.rows import Layout


class NextTokenModel(CausalModel):
    """A frozen tokenizer's codes in, text or codes out; a family says how codes are embedded and predicted."""

    # ---------------------------------------------------------------- what a family fills in

    @abstractmethod
    def encode(self, images: Tensor) -> Tokenized:
        """Encode float images in [-1, 1], ``(N, 3, H, W)``, at least one."""

    @abstractmethod
    def embed_codes(self, codes: Tensor, vectors: Tensor | None = None) -> Tensor:
        """Map codes ``(..., D)`` to inputs of the language model ``(..., E)``."""

    @abstractmethod
    def sample_codes(self, hidden_NE: Tensor, choose: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Draw the codes ``(N, D)`` that states predict."""

    # ---------------------------------------------------------------- images among words

    def see(self, images: Tensor, codes: Tensor | None = None) -> Tokenized:
        """Tokenise images, all but those whose codes are stored."""
        return all_tokenized(self, images, codes)

    def embedded(self, layout: Layout, seen: Tokenized | None) -> Tensor:
        """Embed a layout ``(B, T, E)``, images by their codes."""
        return embedded(self, layout, seen)

    def codes_of(self, seen: Tokenized, index_n: Tensor) -> Tensor:
        """The codes ``(n, P, D)`` of some of the images."""
        return seen.codes[index_n]

    def draw_codes(self, prompts: Sequence[str], *, num_images: int, **settings: Any) -> Tensor:
        """Draw codes position by position, see ``drawing.draw_codes``."""
        num_positions = self.sequence.num_positions * num_images
        return draw_codes(self, prompts, num_positions=num_positions, **settings)
