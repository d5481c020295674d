"""VILA-U and its like as a model of lmms-eval 0.7, found through the entry point ``lmms_eval.models``.

    python -m lmms_eval --model vilau --model_args pretrained=FOLDER --tasks pope --batch_size 8

lmms-eval hands over requests in two forms. *Chat* (its first choice): ``(context, messages of a document,
generation settings, document id, task, split)``; *simple* (``--force_simple``): ``(context, generation settings,
pictures of a document, document id, task, split)``. Several pictures before one text are frames of one clip in
both forms, as SEED-Bench hands over its videos; in a chat that has words between them each stands where it is. The
classes are made when they are asked for: lmms-eval is no dependency of this package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from vilau.data.media.pictures import read_images
from vilau.data.media.video import NUM_FRAMES, read_clip
from vilau.errors import ConfigError, DataError
from vilau.models.interface import UnifiedModel
from vilau.models.loading import load
from vilau.models.questions import answers_about, clip_marks
from vilau.models.sequence.prompts import IMAGE_MARK

MODEL_ID = "vilau"
MAX_NEW_TOKENS = 128
"""Where a task sets no limit."""
Form = Literal["simple", "chat"]
DTYPES = {
    "auto": None,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def manifests() -> list[Any]:
    """Return what the entry point registers."""
    # lmms-eval is an optional package: it calls this function itself.
    from lmms_eval.models.registry_v2 import ModelManifest

    return [
        ModelManifest(
            model_id=MODEL_ID,
            simple_class_path=f"{__name__}.Simple",
            chat_class_path=f"{__name__}.Chat",
        )
    ]


class Answering:
    """What both forms share: the model, and answering requests in batches.

    Args:
        pretrained: a folder that ``vilau.load`` opens; or a model itself.
        batch_size: questions at a time.
        device: where the model runs; None: the first CUDA device if there is one.
        dtype: number format of the weights: ``auto`` (as stored), ``float32``, ``bfloat16`` or ``float16``.
        num_frames: frames taken from a video file.
        max_new_tokens: the longest answer where a task sets no limit.

    Raises:
        ConfigError: an argument makes no sense.
    """

    form: Form
    task_dict: dict[str, Any]

    def __init__(
        self,
        pretrained: str | UnifiedModel = "",
        batch_size: int | str = 1,
        device: str | None = None,
        dtype: str = "auto",
        num_frames: int = NUM_FRAMES,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> None:
        super().__init__()
        if not pretrained:
            raise ConfigError("model_args names no pretrained; write pretrained=FOLDER of a model.")
        if dtype not in DTYPES:
            raise ConfigError(f"model_args has dtype={dtype}; write one of {', '.join(DTYPES)}.")
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise ConfigError(f"batch_size is {batch_size}; write a whole number from 1 on.")
        where = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if isinstance(pretrained, str):
            self.model = load(pretrained, device=where, dtype=DTYPES[dtype])
        else:
            self.model = pretrained
        self.batch_size_per_gpu = int(batch_size)
        self.num_frames, self.max_new_tokens = int(num_frames), int(max_new_tokens)

    @property
    def batch_size(self) -> int:
        """Questions at a time."""
        return self.batch_size_per_gpu

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answer requests, greedily; each answer is cut at the first of its task's ``until`` strings."""
        answers: list[str] = []
        for start in range(0, len(requests), self.batch_size):
            answers += self._answer(requests[start : start + self.batch_size])
        return answers

    def _answer(self, requests: Sequence[Any]) -> list[str]:
        asked = [self._read(request.args) for request in requests]
        limits = {self._limit(settings) for _, _, settings in asked}
        if (
            len(limits) > 1
        ):  # of several tasks: one at a time, so that no answer is cut at another's limit
            return [text for request in requests for text in self._answer([request])]
        images = [pictures for pictures, _, _ in asked]
        shown = torch.cat(images) if images else torch.empty(0)
        weight = next(self.model.parameters())
        answers = answers_about(
            self.model,
            shown.to(device=weight.device, dtype=weight.dtype),
            [text for _, text, _ in asked],
            [len(pictures) for pictures in images],
            max_new_tokens=limits.pop(),
        )
        return [
            cut(answer, settings.get("until", ()))
            for answer, (_, _, settings) in zip(answers, asked, strict=True)
        ]

    def _limit(self, settings: dict[str, Any]) -> int:
        if settings.get("do_sample") and settings.get("temperature", 1.0):
            raise ConfigError(
                "a task asks for sampled answers (do_sample with a temperature), but answers here are greedy; "
                "write --gen_kwargs temperature=0,do_sample=False."
            )
        return int(settings.get("max_new_tokens", self.max_new_tokens))

    def _read(self, arguments: tuple[Any, ...]) -> tuple[Tensor, str, dict[str, Any]]:
        """Return pictures ``(N, 3, H, W)``, the question and the generation settings of a request."""
        if self.form == "simple":
            context, settings, to_visual, number, task, split = arguments
            shown = to_visual(self.task_dict[task][split][number])
            pictures, text = [self._frames(one) for one in shown or ()], context
        else:
            _, to_messages, settings, number, task, split = arguments
            pictures, text = self._chat(to_messages(self.task_dict[task][split][number]))
        frames = [frame for one in pictures for frame in one]
        return read_images(frames, self.model.reading_size), text, dict(settings)

    def _frames(self, shown: Any) -> Sequence[Any]:
        """Read a video's frames; a picture is one."""
        if isinstance(shown, str):
            return read_clip(shown, num_frames=self.num_frames).frames
        return [shown]

    def _chat(self, messages: Sequence[dict[str, Any]]) -> tuple[list[Sequence[Any]], str]:
        """Return what a chat shows and what it asks.

        One picture or video stands before the words, and so do several pictures, as the frames of a clip:
        lmms-eval makes such a chat of SEED-Bench's videos. Where words stand between them, or a video among
        them, each stands where the chat has it; words with marks of their own stay as they are.
        """
        pictures: list[Sequence[Any]] = []
        words: list[str] = []
        marked: list[str] = []
        kinds: list[str] = []
        for kind, content in said(messages):
            kinds.append(kind)
            if kind == "text":
                words.append(content)
                marked.append(content)
                continue
            pictures.append(self._frames(content) if kind == "video" else [content])
            clip = kind == "video"
            marked.append(clip_marks(self.model, len(pictures[-1])).strip() if clip else IMAGE_MARK)
        frames_first = kinds == ["image"] * len(pictures) + ["text"] * len(words)
        has_marks = any(IMAGE_MARK in text for text in words)
        in_order = len(pictures) > 1 and not frames_first and not has_marks
        return pictures, "\n".join(marked if in_order else words)

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Not offered: lmms-eval 0.7 scores tuples of this kind wrongly; text goes through lm-eval."""
        raise NotImplementedError(
            "vilau answers generate_until tasks of lmms-eval; for log-likelihoods of texts use "
            "vilau.adapters.lm_harness with lm-evaluation-harness."
        )

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not offered."""
        raise NotImplementedError(
            "vilau answers one question at a time; leave out tasks of several rounds."
        )


def said(messages: Sequence[dict[str, Any]]) -> list[tuple[str, Any]]:
    """Return the parts of a chat in order: ``text``, ``image`` or ``video``, and what it holds.

    Raises:
        DataError: more than one turn, or content of an unknown kind.
    """
    if len(messages) != 1:
        raise DataError(
            f"a chat of {len(messages)} messages came from lmms-eval; vilau answers chats of one user message."
        )
    found = []
    for part in messages[0]["content"]:
        kind = part["type"]
        if kind not in ("text", "image", "video"):
            raise DataError(f"a message holds {kind}; vilau reads text, image and video.")
        found.append((kind, part["text" if kind == "text" else "url"]))
    return found


def cut(answer: str, ends: str | Sequence[str]) -> str:
    """Return an answer up to the first of some strings."""
    for end in [ends] if isinstance(ends, str) else ends:
        answer = answer.split(end)[0] if end else answer
    return answer.strip()


@cache
def model_class(form: Form) -> type:
    """Return the class for one form of requests, a subclass of ``lmms_eval.api.model.lmms``.

    Raises:
        ConfigError: lmms-eval is not installed.
    """
    try:
        # An optional package; this module must be importable without it.
        from lmms_eval.api.model import lmms
    except ImportError:
        raise ConfigError(
            "this needs the package lmms-eval (0.7), which is not installed; install it in an environment "
            "together with vilau."
        ) from None

    def start(self: Any, *args: Any, **kwargs: Any) -> None:
        Answering.__init__(self, *args, **kwargs)

    words: dict[str, Any] = {
        "form": form, "is_simple": form == "simple", "__init__": start, "__doc__": Answering.__doc__,
        "__module__": __name__,
    }  # fmt: skip
    return type(form.capitalize(), (Answering, lmms), words)


def __getattr__(name: str) -> Any:
    """Make ``Simple`` and ``Chat`` when lmms-eval asks for them."""
    forms: dict[str, Callable[[], type]] = {
        "Simple": lambda: model_class("simple"),
        "Chat": lambda: model_class("chat"),
    }
    if name in forms:
        return forms[name]()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
