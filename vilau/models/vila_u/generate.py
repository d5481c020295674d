"""How VILA-U draws and writes: prompts, cached language model, guided sampling (section 3.3, reference 3.7).

B results, P positions, G given positions, D residual depth, K codebook size, E language-model width.
"""

import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlamaForCausalLM

from vilau.errors import ConfigError, DataError
from vilau.generation.engine import draw_positions, write_tokens
from vilau.generation.guidance import Guidance, guide
from vilau.generation.sampling import row_uniforms
from vilau.generation.text import TextStream, decode_tokens
from vilau.models.finite import FiniteLogits
from vilau.models.interface import Progress
from vilau.models.vila_u.parts import Parts, embedded
from vilau.models.vila_u.prompts import IMAGE_START, chat_segments
from vilau.models.vila_u.sequence import Layout

Choose = Callable[[Tensor, Tensor], Tensor]
"""Draws an index per row of logits ``(N, K)`` at numbers ``(N,)`` in [0, 1)."""


# ---------------------------------------------------------------------- drawing


def draw_codes(
    model: Parts,
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
        given_codes = _given(model, given_codes, B, num_positions)
    scales_BP = guidance.schedule(B, num_positions).to(model.device)
    guided_G = (scales_BP != 1.0).any(dim=1).nonzero()[:, 0]
    null = model.sequence.prompt.null_words
    texts = [text if text.strip() else null for text in [*prompts, negative_prompt or ""]]
    rows = [*texts[:B], *texts[B:] * len(guided_G)]
    unique = list(dict.fromkeys(rows))
    layout = model.sequence.drawing_prompts(unique, start=start).to(model.device)
    _check_length(model, layout, num_positions, unique)
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

        vectors = model.tokenizer.quantizer.vectors
        codes_ND, _ = model.head.sample(hidden_NE, choose=choose_code, vectors=vectors)
        return codes_ND[:B]

    def embed(codes_BnD: Tensor) -> Tensor:
        visual = model.project(model.tokenizer.embed(codes_BnD))
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


def repeated(prompts: str | Sequence[str], count: int, *, name: str) -> list[str]:
    """Return each prompt ``count`` times; ``name`` is what the argument ``count`` is called.

    Raises ``DataError`` where there is nothing to draw.
    """
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not texts:
        raise DataError("prompts is empty; give at least one text to draw ('' draws anything).")
    if count < 1:
        raise ConfigError(f"{name} is {count}; write 1 or more.")
    return [text for text in texts for _ in range(count)]


def leading_codes(
    model: Parts, first_frames: Tensor | None, given_codes: Tensor | None
) -> Tensor | None:
    """Return the codes that clips begin with: those given, or those of their first frames.

    Raises ``ConfigError`` for both at once, ``DataError`` for frames that are no images.
    """
    if first_frames is None:
        return given_codes
    if given_codes is not None:
        raise ConfigError(
            "first_frames and given_codes both say how a clip begins; give one of them."
        )
    lone = first_frames.dim() == 4
    frames = given_images(model, first_frames if lone else first_frames.flatten(0, 1))
    if frames is None:
        return None
    codes = model.tokenizer.encode(frames)
    return codes if lone else codes.unflatten(0, first_frames.shape[:2]).flatten(1, 2)


def _given(model: Parts, codes: Tensor, rows: int, num_positions: int) -> Tensor:
    spec, shape = model.tokenizer.spec, tuple(codes.shape)
    fits = len(shape) == 3 and shape[0] in (1, rows) and shape[2] == spec.depth
    if not fits or not 0 < shape[1] <= num_positions:
        raise DataError(
            f"given_codes has the shape {shape}; give int64 codes of {rows} or 1 results, at most "
            f"{num_positions} positions and {spec.depth} depths."
        )
    if codes.is_floating_point() or codes.min() < 0 or codes.max() >= spec.codebook_size:
        raise DataError(
            f"given_codes holds other values than codes 0 to {spec.codebook_size - 1}; give what "
            "tokenizer.encode returned."
        )
    return codes.to(model.device).expand(rows, -1, -1)


# ---------------------------------------------------------------------- writing


def write_answers(
    model: Parts,
    chats: Sequence[str | Sequence[str]],
    images: Tensor | None,
    image_rows: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    choose: Choose,
    seeds: Sequence[int],
    on_token: Callable[[str], None] | None = None,
) -> list[str]:
    """Answer each chat, which is about the rows ``image_rows`` of ``images`` (float, in [-1, 1]).

    An answer also ends where the language model's ``max_length`` does. ``on_token`` hears the first answer
    grow.
    """
    if max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens is {max_new_tokens}; write 1 or more.")
    bare = model.sequence.prompt.form == "published"
    segments = [
        chat_segments(chat, rows, bare=bare) for chat, rows in zip(chats, image_rows, strict=True)
    ]
    layout = model.sequence.answer_prompts(segments).to(model.device)
    asked = [chat if isinstance(chat, str) else chat[-1] for chat in chats]
    limit = _check_length(model, layout, 1, asked)
    # Each row to its own end: what it says does not depend on how long the others are.
    rooms = (limit - layout.mask.sum(dim=1)).clamp(max=max_new_tokens).tolist()
    num_tokens = max(rooms)
    vectors = torch.empty(0) if images is None else model.tokenizer.quantize(images).features
    uniforms, finite = row_uniforms(seeds, num_tokens, model.device), FiniteLogits()
    table, classify = model.language.get_input_embeddings(), model.language.get_output_embeddings()
    stream = None if on_token is None else TextStream(on_token)

    def tell(tokens: Tensor) -> None:
        assert stream is not None
        stream.update(decode_tokens(model.words, tokens[0].tolist()))

    tokens = write_tokens(
        CachedBackbone(model.language, layout.mask),
        embedded(model, layout, vectors),
        num_tokens=num_tokens,
        choose=lambda hidden, step: choose(finite(classify(hidden).float()), uniforms[:, step]),
        embed=lambda token: table(token)[:, None],
        end=model.words.eos_token_id,
        heard=None if stream is None else tell,
    )
    finite.check()
    answers = [
        decode_tokens(model.words, row[:room]).strip()
        for row, room in zip(tokens.tolist(), rooms, strict=True)
    ]
    if stream is not None:
        stream.finish(answers[0])
    return answers


def given_images(model: Parts, images: Tensor | None) -> Tensor | None:
    """Return images on the model's device, or None where there are none.

    Raises ``DataError`` for anything but float ``(N, 3, H, W)``.
    """
    if images is None or (images.dim() == 4 and not len(images)):
        return None
    if images.dim() != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise DataError(
            f"images is {str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}; give float "
            "(N, 3, H, W) with values in [-1, 1]."
        )
    if not images.abs().max() <= 2.0:  # decoders overshoot 1 a little; NaN is refused too
        raise DataError(
            f"images holds values up to {images.abs().max():.4g}; scale them to [-1, 1] (x / 127.5 - 1)."
        )
    return images.to(model.device)


def _check_length(model: Parts, layout: Layout, new: int, prompts: Sequence[str]) -> int:
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
        self, language: LlamaForCausalLM, mask_BT: Tensor, rows: Sequence[int] | None = None
    ) -> None:
        self.body: nn.Module = language.model
        self.cache = DynamicCache(config=language.config)
        self.mask_BT = mask_BT
        self.num_seen = 0
        own = rows is None or list(rows) == list(range(len(mask_BT)))
        self.rows_N = None if own else torch.tensor(rows, device=mask_BT.device)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Take ``(N, T, E)`` of new positions, return ``(N, E)``; the first call takes the prompts."""
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
        hidden = out.last_hidden_state[:, -1]
        if first and self.rows_N is not None:
            self.cache.batch_select_indices(self.rows_N)
            self.mask_BT, hidden = self.mask_BT[self.rows_N], hidden[self.rows_N]
        return hidden
