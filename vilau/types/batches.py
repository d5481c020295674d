"""What data modules hand to modules; their tensors move, the rest stays on the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

import torch
from torch import Tensor

LETTERS = "ABCDEFGHIJ"
"""What options are called, in order."""


class Movable:
    """A batch that Lightning moves to a device by calling ``to``; only its tensors move."""

    def to(self, device: torch.device | str, **kwargs: Any) -> Self:
        """Move every tensor field to ``device``, in place, and return the batch."""
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                setattr(self, item.name, value.to(device, **kwargs))
        return self

    def join_step(self, number: int, parts: Sequence[Self]) -> None:
        """Hear that this is part ``number`` of ``parts``, the batches of one accumulated step; most need not know."""


@dataclass
class ImageTextBatch(Movable):
    """Images with one caption each."""

    images: Tensor
    """uint8 ``(B, 3, H, W)``."""
    texts: list[str]
    """One caption per image, already chosen for this step."""
    matches: Tensor | None = None
    """bool ``(B, B)``: entry [i, j] says that text j is true of image i. None: only the diagonal is known."""
    scenes: list[str] = field(default_factory=list)
    """The drawn world's ground truth as JSON, one per image; empty for other data."""
    truth: Callable[[Sequence[str]], Tensor] | None = None
    """Tells which of any texts are true of which image, bool ``(B, number of texts)`` on the CPU: several
    processes ask it about one another's captions. None: nothing is known but ``matches``."""


@dataclass
class LabelledImageBatch(Movable):
    """Images of a zero-shot classification set."""

    images: Tensor
    """uint8 ``(B, 3, H, W)``."""
    labels: Tensor
    """int64 ``(B,)`` class indices."""
    class_texts: list[list[str]]
    """For each class its prompts (class name in every template)."""
    held_out: Tensor | None = None
    """bool ``(number of classes,)``: classes whose combination no training scene shows."""


@dataclass
class QuestionBatch(Movable):
    """Questions about images, for evaluation."""

    images: Tensor
    """uint8 ``(B, 3, H, W)``."""
    questions: list[str]
    answers: list[list[str]]
    """For each question its accepted answers (one, or ten annotators')."""
    families: list[str]
    """The question family (``count``, ``identity``, ...), for the table's breakdown."""
    benchmark: str = "vqa"
    """Which set: ``vqa``, ``vqa_comp``, ``pope_random``, ``pope_popular``, ``pope_adversarial``."""
    chance: list[float] = field(default_factory=list)
    """For each question 1 / (number of answers of its kind)."""
    blind_answers: list[str] = field(default_factory=list)
    """For each question what the most frequent training answer would be, without looking."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """For each question its published columns (``answer``, ``category``, ...) where ``benchmark`` is one of
    ``vilau.metrics.answers.BENCHMARKS``, which then scores it; empty for the drawn world's own sets."""
    baselines: dict[str, list[list[str]]] = field(default_factory=dict)
    """What else answers the questions that have ``rows``: ``chance``, ``blind``, ``ceiling`` -> for each question what
    its guessers say, as many for each; a baseline's score is the mean of its guessers'."""
    frames: list[int] = field(default_factory=list)
    """How many rows of ``images`` each question is about, in order (one picture, or the frames of a clip); empty:
    one each."""
    options: list[list[str]] = field(default_factory=list)
    """For each question the answers of which the likeliest is taken, named by its one of LETTERS; empty: the model
    answers in its own words."""


@dataclass
class PromptBatch(Movable):
    """Prompts to draw, for evaluation."""

    prompts: list[str]
    requirements: list[str]
    """For each prompt, what a judge must find in the picture, as JSON (see ``vilau.world.judge``)."""
    skills: list[list[str]]
    """The skills a prompt asks for (``attribute``, ``counting``, ...)."""
    references: Tensor | None = None
    """uint8 ``(R, 3, H, W)``: real images, FID's reference set spread over the batches; not the prompts' own."""
    first_index: int = 0
    """Index of the first prompt in its set: image i is drawn from seed ``(seed, first_index + i)``."""
    benchmark: str = ""
    """Which benchmark asks: ``world_genai``, ``world_mjhq``; empty: none in particular."""
    categories: list[str] = field(default_factory=list)
    """All categories of the set, where each prompt's only skill is one of them."""
    baselines: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """What else is judged by the prompts (``random_scene``, ``empty_image``) -> for each prompt the share of such
    pictures that satisfy all of its requirements, and the mean share of requirements that they satisfy."""
    originals: Tensor | None = None
    """uint8 ``(B, 3, H, W)``: the real image that each prompt tells, where it tells one."""
    scenes: list[str] = field(default_factory=list)
    """The drawn world's ground truth of ``originals`` as JSON; empty for other data."""


@dataclass
class ClipPromptBatch(Movable):
    """Prompts to draw clips from, for evaluation."""

    prompts: list[str]
    requirements: list[str]
    """For each prompt, what a judge must find in the clip, as JSON (see ``vilau.world.clip_judge``)."""
    num_frames: int = 8
    first_index: int = 0
    """Index of the first prompt in its set, see ``PromptBatch``."""
    baselines: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    """What else is judged by the prompts (``random_clip``, ``still_clip``) -> for each prompt its scores."""
