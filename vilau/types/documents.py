"""Training sequences as segments in reading order, before any tokenizer has seen them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from vilau.errors import DataError
from vilau.types.batches import Movable


@dataclass(frozen=True)
class TextSegment:
    """A piece of text. ``target`` text is what the model must say (it bears loss)."""

    text: str
    target: bool = False


@dataclass(frozen=True)
class ImageSegment:
    """Image ``index`` of the batch's. A ``target`` image is what the model must draw.

    A ``bare`` image stands without the tokens that begin and end one; it can be read, never drawn.
    """

    index: int
    target: bool = False
    bare: bool = False

    def __post_init__(self) -> None:
        _check_drawn(self)


@dataclass(frozen=True)
class VideoSegment:
    """Images ``indices`` of the batch's as the frames of one clip, in order.

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


IMAGE_TO_TEXT, TEXT_TO_IMAGE, TEXT_TO_VIDEO = "image_to_text", "text_to_image", "text_to_video"
INTERLEAVED, TEXT_ONLY, CHAT = "interleaved", "text_only", "chat"


@dataclass(frozen=True)
class Document:
    """One training sequence: segments in reading order.

    With ``chat`` the context segments up to a target form a user turn and the target segments after them the
    assistant's turn; without, the segments stand bare, one after another (interleaved web documents).
    """

    segments: tuple[Segment, ...]
    chat: bool = True
    source: str = ""
    """Which form of training data it is, such as ``IMAGE_TO_TEXT``; empty where nobody said."""
    system: bool = True
    """Whether the system sentence opens the chat."""
    masked: bool = False
    """Read, but nothing of it bears loss: an answer about a clip that could not be opened, for one."""


@dataclass
class MultimodalBatch(Movable):
    """Documents and the images they refer to, as pixels or as codes that were stored before."""

    images: Tensor
    """uint8 ``(N, 3, H, W)``; with ``codes`` only those of the N that have no codes, in order."""
    documents: list[Document]
    part: int = 0
    step: list[list[Document]] = field(default_factory=list)
    """Where batches are accumulated: which part of an optimiser step this is, and the documents of all its parts."""
    codes: Tensor | None = None
    """int64 ``(N, P, D)``: the codes of all N images that documents name by row, a row of -1 for one that stands in
    ``images``. None: all images are pixels."""

    @property
    def num_images(self) -> int:
        """N, the images that documents may name by row."""
        return len(self.images if self.codes is None else self.codes)

    @staticmethod
    def joined(batches: Sequence[MultimodalBatch]) -> MultimodalBatch:
        """Return one batch of the documents of several, in order; the rows of their images move on."""
        documents: list[Document] = []
        first = 0
        for batch in batches:
            documents += [_moved(document, first) for document in batch.documents]
            first += batch.num_images
        return MultimodalBatch(
            torch.cat([batch.images for batch in batches]), documents, codes=_joined_codes(batches)
        )

    def join_step(self, number: int, parts: Sequence[Self]) -> None:
        """Keep the documents of all parts: a mean over the step needs them before the first part's gradients."""
        self.part, self.step = number, [part.documents for part in parts]


def _moved(document: Document, first: int) -> Document:
    """The document with ``first`` images before its own."""
    segments: list[Segment] = []
    for segment in document.segments:
        if isinstance(segment, ImageSegment):
            segment = replace(segment, index=segment.index + first)
        elif isinstance(segment, VideoSegment):
            segment = replace(segment, indices=tuple(index + first for index in segment.indices))
        segments.append(segment)
    return replace(document, segments=tuple(segments))


def _joined_codes(batches: Sequence[MultimodalBatch]) -> Tensor | None:
    known = next((batch.codes for batch in batches if batch.codes is not None), None)
    if known is None:
        return None
    rows = [
        known.new_full((batch.num_images, *known.shape[1:]), -1)
        if batch.codes is None
        else batch.codes
        for batch in batches
    ]
    return torch.cat(rows)
