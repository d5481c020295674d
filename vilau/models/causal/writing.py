"""How answers are written: prompts, cached language model, sampling.

B answers, E language-model width.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from vilau.errors import ConfigError
from vilau.generation.engine import write_tokens
from vilau.generation.sampling import Choose, row_uniforms
from vilau.generation.text import TextStream, decode_tokens
from vilau.models.causal.backbone import CachedBackbone, check_length
from vilau.models.causal.parts import Parts
from vilau.models.finite import FiniteLogits
from vilau.models.sequence.prompts import chat_segments


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
    limit = check_length(model, layout, 1, asked)
    # Each row to its own end: what it says does not depend on how long the others are.
    rooms = (limit - layout.mask.sum(dim=1)).clamp(max=max_new_tokens).tolist()
    num_tokens = max(rooms)
    seen = None if images is None else model.see(images)
    uniforms, finite = row_uniforms(seeds, num_tokens, model.device), FiniteLogits()
    table = model.language.get_input_embeddings()
    stream = None if on_token is None else TextStream(on_token)

    def tell(tokens: Tensor) -> None:
        assert stream is not None
        stream.update(decode_tokens(model.words, tokens[0].tolist()))

    tokens = write_tokens(
        CachedBackbone(model.language, layout.mask),
        model.embedded(layout, seen),
        num_tokens=num_tokens,
        choose=lambda hidden, step: choose(
            finite(model.word_logits(hidden).float()), uniforms[:, step]
        ),
        embed=lambda token: table(token)[:, None],
        ends=model.sequence.ends,
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
