"""The loop that all three families share: hidden state -> codes of a position -> next input.

N rows (with guidance: conditional rows, then unconditional ones), E language-model width.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor


class Backbone(Protocol):
    """A causal language model that keeps its own cache between calls."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """Take embeddings ``(N, T, E)`` of new positions, return the last hidden state ``(N, E)``."""
        ...


def draw_positions(
    backbone: Backbone,
    prompt: Tensor,
    *,
    num_positions: int,
    draw: Callable[[Tensor, int], Tensor],
    embed: Callable[[Tensor], Tensor],
) -> Tensor:
    """Draw codes position by position and return them, ``(rows, num_positions, D)``.

    ``prompt`` ``(N, T, E)`` ends with the token that starts an image. ``draw(hidden (N, E), position)``
    returns the codes ``(rows, D)`` of one position (rows: the conditional half under guidance);
    ``embed(codes (rows, D))`` returns the next input ``(N, 1, E)``.
    """
    hidden = backbone(prompt)
    drawn = []
    for position in range(num_positions):
        codes = draw(hidden, position)
        drawn.append(codes)
        if position + 1 < num_positions:
            hidden = backbone(embed(codes))
    return torch.stack(drawn, dim=1)
