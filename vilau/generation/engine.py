"""The loops that all families share: hidden state -> what is drawn from it -> next input.

N rows (with guidance: conditional rows, then unconditional ones), E language-model width.
"""

from collections.abc import Callable, Sequence
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
    given: Tensor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Draw codes position by position and return them, ``(rows, num_positions, D)``.

    ``prompt`` ends with the token that starts an image; it is ``(N, T, E)``, or fewer rows where the
    backbone itself hands a text's state to all rows that share it. ``draw(hidden (N, E), position)``
    returns the codes ``(rows, D)`` of one position (rows: the conditional ones under guidance);
    ``embed(codes (rows, n, D))`` returns the inputs ``(N, n, E)`` of n positions. ``given`` codes
    ``(rows, G, D)`` are the first G positions; ``progress(drawn, in all)`` hears of every position.
    """
    drawn = [] if given is None else list(given.unbind(dim=1))
    if len(drawn) < num_positions:
        hidden = backbone(prompt)
        if given is not None:
            hidden = backbone(embed(given))
    for position in range(len(drawn), num_positions):
        codes = draw(hidden, position)
        drawn.append(codes)
        if progress is not None:
            progress(position + 1, num_positions)
        if position + 1 < num_positions:
            hidden = backbone(embed(codes[:, None]))
    return torch.stack(drawn, dim=1)


def write_tokens(
    backbone: Backbone,
    prompt: Tensor,
    *,
    num_tokens: int,
    choose: Callable[[Tensor, int], Tensor],
    embed: Callable[[Tensor], Tensor],
    ends: Sequence[int],
    heard: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Write tokens one after another and return them, ``(N, up to num_tokens)``.

    ``choose(hidden (N, E), step)`` returns the tokens ``(N,)``; ``embed(tokens)`` their inputs ``(N, 1, E)``. A
    row that has said one of ``ends`` says nothing else (the first of them instead); when all have, or after
    ``num_tokens``, it is over.
    ``heard(tokens (N, n))`` gets all tokens so far after each step.
    """
    hidden = backbone(prompt)
    running = torch.ones(len(prompt), dtype=torch.bool, device=prompt.device)
    written: list[Tensor] = []
    for step in range(num_tokens):
        token = torch.where(running, choose(hidden, step), ends[0])
        written.append(token)
        for end in ends:
            running &= token != end
        if heard is not None:
            heard(torch.stack(written, dim=1))
        if step + 1 == num_tokens or not running.any():
            break
        hidden = backbone(embed(token))
    return torch.stack(written, dim=1)
