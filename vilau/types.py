"""What travels between rooms: batches, step outputs, and the small Protocols that callbacks ask for.

The shape alphabet of the whole kit:
``B`` images or sequences in a batch, ``N`` images of a batch (several or none per sequence), ``F`` frames,
``H W`` pixels, ``h w`` code grid, ``P`` positions (h*w), ``Z`` code width, ``D`` residual depth,
``K`` codebook size, ``T`` sequence length, ``E`` language-model width, ``V`` vocabulary, ``C`` feature width.

Images on the host are ``uint8`` in 0..255; inside models they are float in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from vilau.errors import DataError


class Movable:
    """A batch that Lightning moves to a device by calling ``to``; only its tensors move."""

    def to(self, device: torch.device | str, **kwargs: Any) -> Self:
        """Move every tensor field to ``device``, in place, and return the batch."""
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                setattr(self, item.name, value.to(device, **kwargs))
        return self


# ------------------------------------------------------------------ batches


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


@dataclass(frozen=True)
class TextSegment:
    """A piece of text. ``target`` text is what the model must say (it bears loss)."""

    text: str
    target: bool = False


@dataclass(frozen=True)
class ImageSegment:
    """Row ``index`` of the batch's ``images``. A ``target`` image is what the model must draw.

    A ``bare`` image stands without the tokens that begin and end one; it can be read, never drawn.
    """

    index: int
    target: bool = False
    bare: bool = False

    def __post_init__(self) -> None:
        _check_drawn(self)


@dataclass(frozen=True)
class VideoSegment:
    """Rows ``indices`` of the batch's ``images`` as the frames of one clip, in order.

    Between the tokens that begin and end a clip its frames follow one another directly. A ``bare`` clip
    is a row of bare images.
    """

    indices: tuple[int, ...]
    target: bool = False
    bare: bool = False

    def __post_init__(self) -> None:
        _check_drawn(self)
        if not self.indices:
            raise DataError("a VideoSegment has no indices; give one row of images per frame.")


Segment = TextSegment | ImageSegment | VideoSegment


def _check_drawn(segment: ImageSegment | VideoSegment) -> None:
    if segment.target and segment.bare:
        raise DataError(
            f"{type(segment).__name__} is both target and bare, but only the token that begins an image "
            "asks for one; write bare=False."
        )


@dataclass(frozen=True)
class Document:
    """One training sequence: segments in reading order.

    With ``chat`` the context segments up to a target form a user turn and the target segments after them the
    assistant's turn; without, the segments stand bare, one after another (interleaved web documents).
    """

    segments: tuple[Segment, ...]
    chat: bool = True
    source: str = ""
    system: bool = True
    """Whether the system sentence opens the chat."""
    masked: bool = False
    """Read, but nothing of it bears loss: an answer about a clip that could not be opened, for one."""


@dataclass
class MultimodalBatch(Movable):
    """Documents and the images they refer to."""

    images: Tensor
    """uint8 ``(N, 3, H, W)``."""
    documents: list[Document]


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


# ------------------------------------------------------------------ step outputs that callbacks read


@dataclass
class TowerOutput:
    """What a tower made of an ``ImageTextBatch``; images uint8."""

    reconstructions: Tensor
    """uint8 ``(B, 3, H, W)`` from all depths."""
    codes: Tensor
    """int64 ``(B, P, D)``."""
    residual_energy: Tensor
    """float ``(B, D)``: mean squared norm of what is left after each depth, divided by the features' own."""


@dataclass
class EmbeddingOutput:
    """Normalised image features of a batch."""

    features: Tensor
    """``(B, C)``."""
    others: dict[str, Tensor] = field(default_factory=dict)
    """Further features ``(B, C)`` by name, e.g. ``unquantized``, ``depth1``: measured beside the first."""


@dataclass
class AnswerOutput:
    """Answers to a ``QuestionBatch``, one string each."""

    answers: list[str]


@dataclass
class DrawingOutput:
    """Images drawn for a ``PromptBatch``: uint8 ``(B, 3, H, W)``."""

    images: Tensor


# ------------------------------------------------------------------ what callbacks may ask of a module


@runtime_checkable
class EmbedsTexts(Protocol):
    """A module whose text features live in the space of its image features."""

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Return normalised features ``(len(texts), C)``."""
        ...


@runtime_checkable
class Reconstructs(Protocol):
    """A module with a visual tokenizer that can decode from its first depths alone."""

    def reconstruct_by_depth(self, images: Tensor) -> Tensor:
        """Take uint8 ``(B, 3, H, W)``, return uint8 ``(D, B, 3, H, W)``: depth 1, depths 1-2, ... all."""
        ...

    @property
    def codebook_size(self) -> int:
        """K, the number of codes per depth."""
        ...


@runtime_checkable
class Averages(Protocol):
    """A module that keeps averages of its weights."""

    @property
    def keeps_average(self) -> bool:
        """Whether it was told to."""
        ...

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Put the averages in the weights' place as long as the context lasts."""
        ...

    def measure(self, batch: Any) -> tuple[Any, dict[str, Tensor]]:
        """Return what ``validation_step`` does, and the losses that it logs, without logging."""
        ...


@runtime_checkable
class Draws(Protocol):
    """A module that draws images from prompts."""

    def draw(self, prompts: Sequence[str], *, seed: int) -> Tensor:
        """Return uint8 ``(B, 3, H, W)``; prompt i uses seed ``(seed, i)`` whatever the batch."""
        ...


@runtime_checkable
class Exports(Protocol):
    """A module whose product can be saved as a folder that later stages and users load."""

    def export(self, folder: str) -> None:
        """Write ``config.json`` and ``model.safetensors`` into ``folder`` (all ranks call it, rank 0 writes)."""
        ...


# ------------------------------------------------------------------ what a number means


@dataclass(frozen=True)
class Passport:
    """What exactly a metric measured. Numbers with unlike passports never share a table column."""

    metric: str
    """Name and back-end, e.g. ``FrechetInceptionDistance (torchmetrics 1.9.0)``."""
    features: str = ""
    """Feature network, judge or parser with the first 12 hex digits of its weights' hash."""
    reference: str = ""
    """Reference or question set with its hash."""
    num_samples: int = 0
    details: str = ""
    """Resize, rounding, templates, sampling: whatever else changes the number."""
