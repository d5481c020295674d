"""The language side of a model under lm-evaluation-harness (0.4): log-likelihoods of texts, and greedy text.

    from vilau.adapters.lm_harness import evaluate
    evaluate("FOLDER", ["hellaswag", "piqa"])

Texts are scored bare, without the chat's system sentence and roles, as the papers' 0-shot tables are. Texts are
cut into tokens as the harness's own Hugging Face model does it: context and continuation together, spaces
at the context's end belonging to the continuation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vilau.errors import ConfigError
from vilau.models.finite import FiniteLogits
from vilau.models.loading import load

MAX_NEW_TOKENS = 256
"""Where a task sets no limit."""
Pair = tuple[list[int], list[int]]
"""Tokens of a context and of what is scored after it."""


class Reading:
    """What the harness asks of a model, whatever its base class.

    Args:
        pretrained: a folder that ``vilau.load`` opens; or a model itself, whose ``language`` is a causal language
            model of transformers and whose ``words`` is its tokenizer.
        batch_size: texts at a time.
        device: where the model runs; None: the first CUDA device if there is one.
        max_length: most tokens of a text; None: what the language model knows. Longer contexts lose their start.

    Raises:
        ConfigError: an argument makes no sense, or the model has no language model of its own.
    """

    def __init__(
        self,
        pretrained: Any = "",
        batch_size: int | str = 1,
        device: str | None = None,
        max_length: int | None = None,
    ) -> None:
        super().__init__()
        if isinstance(pretrained, str) and not pretrained:
            raise ConfigError("model_args names no pretrained; write pretrained=FOLDER of a model.")
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise ConfigError(f"batch_size is {batch_size}; write a whole number from 1 on.")
        where = device or ("cuda" if torch.cuda.is_available() else "cpu")
        model: Any = load(pretrained, device=where) if isinstance(pretrained, str) else pretrained
        if not (hasattr(model, "language") and hasattr(model, "words")):
            raise ConfigError(
                f"{type(model).__name__} has no language model and tokenizer that could be asked about texts; give "
                "a model of the family vila_u."
            )
        self.model, self.language, self.words = model, model.language.eval(), model.words
        self.batch_size = int(batch_size)
        known = int(self.language.config.max_position_embeddings)
        self.max_length = min(int(max_length or known), known)

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Return for each (context, continuation) its log-probability and whether it is the greedy text.

        This and the other two raise ``CheckpointError`` when the model's logits are no numbers.
        """
        return self._scores([self._pair(*request.args) for request in requests])

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Return the log-probability of each whole text, read in windows of ``max_length`` tokens."""
        # The first window begins with the prefix: a tokenizer that writes it too would have it scored.
        tokens = (self._tokens(one.args[0], add_special_tokens=False) for one in requests)
        windows = [self._windows(found) for found in tokens]
        scores = iter(self._scores([window for found in windows for window in found]))
        return [sum(next(scores)[0] for _ in found) for found in windows]

    @torch.no_grad()
    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Go on with each context, greedily, up to the first of its ``until`` strings."""
        return [self._continued(*request.args) for request in requests]

    # ---------------------------------------------------------------- tokens

    def _tokens(self, text: str, **how: bool) -> list[int]:
        # With the tokenizer's own first token (LLaMA's), as the harness does by default.
        return list(self.words(text, **how)["input_ids"])

    @property
    def _prefix(self) -> int:
        """What stands before a text without context."""
        bos = self.words.bos_token_id
        return int(self.words.eos_token_id if bos is None else bos)

    def _pair(self, context: str, continuation: str) -> Pair:
        spaces = len(context) - len(context.rstrip())
        if spaces:
            continuation, context = context[-spaces:] + continuation, context[:-spaces]
        if not context:
            return [self._prefix], self._tokens(continuation, add_special_tokens=False)
        before = self._tokens(context)
        return before, self._tokens(context + continuation)[len(before) :]

    def _windows(self, tokens: list[int]) -> list[Pair]:
        """Cut a text so that every token is scored once, after as many tokens as there is room for."""
        size = self.max_length
        first = tokens[:size]
        found: list[Pair] = [([self._prefix], first)] if tokens else []
        for start in range(size, len(tokens), size):
            end = min(start + size, len(tokens))
            begin = end - size  # one token more than fits: the last is only predicted
            found.append((tokens[begin - 1 : start], tokens[start:end]))
        return found

    # ---------------------------------------------------------------- scores

    @torch.no_grad()
    def _scores(self, pairs: Sequence[Pair]) -> list[tuple[float, bool]]:
        results: list[tuple[float, bool]] = [(0.0, True)] * len(pairs)
        # Long ones first: texts of like length share a batch, and memory runs out at once if it does.
        order = sorted(range(len(pairs)), key=lambda i: -len(pairs[i][0] + pairs[i][1]))
        for start in range(0, len(order), self.batch_size):
            some = order[start : start + self.batch_size]
            for index, score in zip(some, self._batch([pairs[i] for i in some]), strict=True):
                results[index] = score
        return results

    def _batch(self, pairs: Sequence[Pair]) -> list[tuple[float, bool]]:
        device = self.language.device
        # The last token is predicted, not read.
        rows = [(before + after)[-(self.max_length + 1) :][:-1] for before, after in pairs]
        ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True).to(device)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        mask = torch.arange(ids.shape[1], device=device) < lengths[:, None]
        logits = self.language(input_ids=ids, attention_mask=mask.long()).logits
        scored, finite = [], FiniteLogits()
        for row, length, (_, after) in zip(logits, lengths.tolist(), pairs, strict=True):
            scored.append(_score(finite(row[:length]), after))
        finite.check()
        return scored

    def _continued(self, context: str, settings: dict[str, Any]) -> str:
        if settings.get("do_sample") and settings.get("temperature", 1.0):
            raise ConfigError(
                "a task asks for sampled text (do_sample with a temperature), but text here is greedy; write "
                "--gen_kwargs temperature=0,do_sample=False."
            )
        ends = settings.get("until") or []
        ends = [ends] if isinstance(ends, str) else list(ends)
        limit = int(settings.get("max_gen_toks", MAX_NEW_TOKENS))
        room = self.max_length - limit
        if room < 1:
            raise ConfigError(
                f"a task asks for up to {limit} new tokens, but the model knows {self.max_length} positions in all; "
                f"write --gen_kwargs max_gen_toks=N with N below {self.max_length}."
            )
        tokens = (self._tokens(context) or [self._prefix])[-room:]
        ids = torch.tensor([tokens], device=self.language.device)
        with self._only_numbers():
            out = self.language.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, do_sample=False,
                num_beams=1, eos_token_id=self.words.eos_token_id, pad_token_id=self.words.eos_token_id,
                tokenizer=self.words, **({"stop_strings": ends} if ends else {}),
            )  # fmt: skip
        text = str(self.words.decode(out[0, len(tokens) :], skip_special_tokens=True))
        for end in ends:
            text = text.split(end)[0] if end else text
        return text

    @contextmanager
    def _only_numbers(self) -> Iterator[None]:
        """Raise ``CheckpointError`` where the language model's logits inside were not all numbers."""
        finite = FiniteLogits()
        # Before transformers' own processors, which put -inf where a token is forbidden.
        heard = self.language.get_output_embeddings().register_forward_hook(
            lambda _module, _inputs, logits: finite(logits)
        )
        try:
            yield
        finally:
            heard.remove()
        finite.check()


def _score(logits: Tensor, after: Sequence[int]) -> tuple[float, bool]:
    """Score the tokens that the last rows of logits ``(T, V)`` predict."""
    if not after:
        return 0.0, True
    chosen = logits[-len(after) :].float().log_softmax(dim=-1)
    wanted = torch.tensor(list(after)[-len(chosen) :], device=logits.device)
    total = chosen.gather(1, wanted[:, None]).sum()
    return float(total), bool((chosen.argmax(dim=-1) == wanted).all())


@cache
def model_class() -> type:
    """Return the class for the harness, a subclass of ``lm_eval.api.model.LM``.

    Raises:
        ConfigError: lm-evaluation-harness is not installed.
    """
    try:
        # An optional package; this module must be importable without it.
        from lm_eval.api.model import LM
    except ImportError:
        raise ConfigError(
            "this needs the package lm-eval (lm-evaluation-harness 0.4), which is not installed; install it in an "
            "environment together with vilau."
        ) from None

    def start(self: Any, *args: Any, **kwargs: Any) -> None:
        Reading.__init__(self, *args, **kwargs)

    words = {"__init__": start, "__doc__": Reading.__doc__, "__module__": __name__}
    return type("VilauLM", (Reading, LM), words)


def evaluate(pretrained: Any, tasks: Sequence[str], **settings: Any) -> dict[str, Any]:
    """Run tasks of lm-evaluation-harness and return its results.

    Args:
        pretrained: a folder that ``vilau.load`` opens, or a model.
        tasks: the harness's task names.
        settings: ``batch_size``, ``device`` and ``max_length`` of the model; all others go to
            ``lm_eval.simple_evaluate`` (``num_fewshot``, ``limit``, ``task_manager``, ...).

    Raises:
        ConfigError: the harness is not installed, or an argument makes no sense.
    """
    build = model_class()
    own = {
        name: settings.pop(name)
        for name in ("batch_size", "device", "max_length")
        if name in settings
    }
    # The optional package again, now known to be there.
    from lm_eval import simple_evaluate

    return simple_evaluate(model=build(pretrained, **own), tasks=list(tasks), **settings)
