"""How pictures and clips are drawn: prompts, cached language model, guided sampling (VILA-U section 3.3, Liquid 3.2).

B results, P positions, G given positions, D residual depth, K codebook size, E language-model width.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from vilau.generation.engine import draw_positions
from vilau.generation.guidance import Guidance, guide
from vilau.generation.sampling import Choose, row_uniforms
from vilau.models.causal.backbone import CachedBackbone, check_length
from vilau.models.causal.given import checked_codes
from vilau.models.finite import FiniteLogits
from vilau.models.interface import Progress
from vilau.models.next_token.tokenized import CodeReader
from vilau.models.sequence.prompts import IMAGE_START


class PositionDrawer(CodeReader, Protocol):
    """A model that draws all codes of a position from the state before it."""

    def sample_codes(self, hidden_NE: Tensor, choose: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Draw the codes ``(N, D)`` that states predict; ``choose(logits (N, K), depth)`` returns codes ``(N,)``."""
        ...


def draw_codes(
    model: PositionDrawer,
    prompts: Sequence[str],
    *,
    num_positions: int,
    guidance: Guidance,
    choose: Choose | Sequence[Choose],
    seeds: Sequence[int],
    negative_prompt: str | None = None,
    given_codes: Tensor | None = None,
    start: str = IMAGE_START,
    progress: Progress | None = None,
) -> Tensor:
    """Draw codes ``(B, num_positions, D)``, one row per prompt, after the token ``start``.

    An empty prompt is the model's null, as is a ``negative_prompt`` that is None or empty. Under guidance each
    row whose scale is ever another than 1 has a second row that reads the negative prompt and gets the same
    codes. A text that several rows share is read once. ``choose`` gets the guided float32 logits ``(B, K)`` of
    one depth of one position; it may be one for each depth. Raises ``DataError`` for ``given_codes`` that do
    not fit, ``CheckpointError`` when the logits are no numbers.
    """
    depth, B = model.tokenizer.spec.depth, len(prompts)
    choosers = [choose] * depth if callable(choose) else list(choose)
    if given_codes is not None:
        given_codes = checked_codes(model, given_codes, B, num_positions)
    scales_BP = guidance.schedule(B, num_positions).to(model.device)
    guided_G = (scales_BP != 1.0).any(dim=1).nonzero()[:, 0]
    null = model.sequence.prompt.null_words
    texts = [text if text.strip() else null for text in [*prompts, negative_prompt or ""]]
    rows = [*texts[:B], *texts[B:] * len(guided_G)]
    unique = list(dict.fromkeys(rows))
    layout = model.sequence.drawing_prompts(unique, start=start).to(model.device)
    check_length(model, layout, num_positions, unique)
    uniforms = row_uniforms(seeds, num_positions * depth, model.device)
    finite = FiniteLogits()

    def draw(hidden_NE: Tensor, position: int) -> Tensor:
        def choose_code(logits_NK: Tensor, d: int) -> Tensor:
            logits_BK, free_GK = finite(logits_NK.float()).split((B, len(guided_G)))
            if len(guided_G):
                scale_G1 = scales_BP[guided_G, position, None]
                guided_GK = guide(logits_BK[guided_G], free_GK, scale_G1)
                logits_BK = logits_BK.index_copy(0, guided_G, guided_GK)
            code_B = choosers[d](logits_BK, uniforms[:, position * depth + d])
            return torch.cat([code_B, code_B[guided_G]])

        return model.sample_codes(hidden_NE, choose_code)[:B]

    def embed(codes_BnD: Tensor) -> Tensor:
        visual = model.embed_codes(codes_BnD)
        return torch.cat([visual, visual[guided_G]])

    codes = draw_positions(
        CachedBackbone(model.language, layout.mask, [unique.index(text) for text in rows]),
        model.language.get_input_embeddings()(layout.ids),
        num_positions=num_positions,
        draw=draw,
        embed=embed,
        given=given_codes,
        progress=progress,
    )
    finite.check()
    return codes
