"""The language model between its prompts and what follows: how much fits, and its cache.

B prompts, N rows, T tokens, E language-model width.
"""

import sys
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from vilau.errors import DataError
from vilau.models.causal.parts import Parts
from vilau.models.language import CausalLM
from vilau.models.sequence.rows import Layout


def check_length(model: Parts, layout: Layout, new: int, prompts: Sequence[str]) -> int:
    """Return the positions that the language model knows; ``DataError``, naming the prompt, where a row needs more."""
    length = layout.ids.shape[1]
    limit = model.sequence.max_length or sys.maxsize
    if length + new > limit:
        text = prompts[int(layout.mask.sum(dim=1).argmax())]
        raise DataError(
            f"the prompt '{text[:40]}{'…' * (len(text) > 40)}' takes {length} positions and what follows {new}, but "
            f"the language model's max_length is {limit}; give fewer words, images or frames."
        )
    return limit


class CachedBackbone:
    """The language model's body with its cache: new embeddings in, last hidden state out.

    Args:
        language: the language model.
        mask_BT: int64, 1 where the prompts, which are left-padded, have a token.
        rows: for each row that is to be drawn the prompt it goes on from; None: each from its own.
    """

    def __init__(
        self, language: CausalLM, mask_BT: Tensor, rows: Sequence[int] | None = None
    ) -> None:
        self.body: nn.Module = language.model
        self.cache = DynamicCache(config=language.config)
        self.mask_BT = mask_BT
        self.num_seen = 0
        own = rows is None or list(rows) == list(range(len(mask_BT)))
        self.rows_N = None if own else torch.tensor(rows, device=mask_BT.device)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Take ``(N, T, E)`` of new positions, return the last state ``(N, E)``; the first call takes the prompts."""
        return self._last(inputs, 1)[:, 0]

    def states(self, inputs: Tensor) -> Tensor:
        """Take ``(N, T, E)`` of new positions, return all their states ``(N, T, E)``."""
        return self._last(inputs, inputs.shape[1])

    def _last(self, inputs: Tensor, count: int) -> Tensor:
        new = inputs.shape[1]
        missing = self.num_seen + new - self.mask_BT.shape[1]
        if missing > 0:
            ones = self.mask_BT.new_ones(len(self.mask_BT), missing)
            self.mask_BT = torch.cat([self.mask_BT, ones], dim=1)
        positions = (self.mask_BT.cumsum(dim=1) - 1).clamp(min=0)[:, -new:]
        first, self.num_seen = not self.num_seen, self.num_seen + new
        out = self.body(
            inputs_embeds=inputs,
            attention_mask=self.mask_BT,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
        )
        hidden = out.last_hidden_state[:, -count:]
        if first and self.rows_N is not None:
            self.cache.batch_select_indices(self.rows_N)
            self.mask_BT, hidden = self.mask_BT[self.rows_N], hidden[self.rows_N]
        return hidden
