"""The forms of documents: what is context, what the model must say or draw, and the images they refer to."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from vilau.data.bundle import MARK, unpack
from vilau.data.media.images import ImageTransform
from vilau.data.media.video import frame_indices
from vilau.data.pairs import load_picture, stack_images
from vilau.data.shards import Record, ShardSet
from vilau.errors import ConfigError
from vilau.types import (
    Document,
    ImageSegment,
    MultimodalBatch,
    Segment,
    TextSegment,
    VideoSegment,
)
from vilau.types.documents import (
    CHAT,
    IMAGE_TO_TEXT,
    INTERLEAVED,
    TEXT_ONLY,
    TEXT_TO_IMAGE,
    TEXT_TO_VIDEO,
)

DESCRIBE = "describe the picture ."
"""What a user says for a caption, in the spelling of the drawn world."""

Shown = int | tuple[int, ...]
"""The row of an image, or the rows of a clip."""


class Pictures:
    """The images of a batch in the making, as pixels or codes; documents name them by row."""

    def __init__(self) -> None:
        self._images: list[np.ndarray] = []

    def add(self, image: np.ndarray) -> int:
        """Keep uint8 ``(H, W, 3)``, or an image's codes, int64 ``(P, D)``, and return its row."""
        self._images.append(image)
        return len(self._images) - 1

    def add_clip(self, frames: Sequence[np.ndarray]) -> tuple[int, ...]:
        """Keep the frames of a clip, in order, and return their rows."""
        return tuple(self.add(frame) for frame in frames)

    def add_bundle(
        self,
        record: Record,
        transform: ImageTransform,
        rng: random.Random,
        source: ShardSet,
        *,
        seen_frames: int | None = None,
        most: int | None = None,
    ) -> list[Shown]:
        """Decode and keep the images and clips of a sample, and return their rows.

        Args:
            record: a sample whose image field is a bundle.
            transform: what becomes of each image. All frames of a clip are cropped alike.
            rng: decides where.
            source: the set it is from, for messages.
            seen_frames: so many frames of each clip, evenly spread; None: all.
            most: only so many images and clips, the first; None: all.

        Raises:
            ConfigError: a clip has fewer frames than ``seen_frames``.
            DataError: an image cannot be read.
        """
        rows: list[Shown] = []
        for medium in unpack(record.image)[:most]:
            if isinstance(medium, bytes):
                rows.append(self.add(load_picture(medium, transform, rng, source)))
                continue
            if seen_frames is not None and seen_frames > len(medium):
                raise ConfigError(
                    f"data.clips.seen_frames is {seen_frames}, but {source.folder} holds clips of {len(medium)} "
                    f"frames; write at most {len(medium)}, or prepare it again with --frames {seen_frames}."
                )
            where = rng.random()
            frames = [
                load_picture(medium[index], transform, random.Random(where), source)
                for index in frame_indices(len(medium), seen_frames or len(medium))
            ]
            rows.append(self.add_clip(frames))
        return rows

    def stacked(self, image_size: int) -> Tensor:
        """The images that are pixels, uint8 ``(N, 3, H, W)``; N may be 0."""
        pixels = [image for image in self._images if image.ndim == 3]
        return stack_images(pixels, image_size=image_size)

    def codes(self) -> Tensor | None:
        """The codes of all rows, int64 ``(N, P, D)``, with -1 for rows of pixels; None where no row has any."""
        known = next((image for image in self._images if image.ndim == 2), None)
        if known is None:
            return None
        unknown = np.full_like(known, -1)
        rows = [image if image.ndim == 2 else unknown for image in self._images]
        return torch.from_numpy(np.stack(rows))

    def batch(self, documents: list[Document], *, image_size: int) -> MultimodalBatch:
        """The finished batch of documents about these images."""
        return MultimodalBatch(self.stacked(image_size), documents, codes=self.codes())


def reading_document(image: int, caption: str) -> Document:
    """[image, request, **caption**]."""
    parts = (ImageSegment(image), TextSegment(DESCRIBE), TextSegment(caption, target=True))
    return Document(parts, source=IMAGE_TO_TEXT)


def drawing_document(image: int, prompt: str) -> Document:
    """[prompt, **image**]."""
    return Document((TextSegment(prompt), ImageSegment(image, target=True)), source=TEXT_TO_IMAGE)


def filming_document(frames: tuple[int, ...], prompt: str) -> Document:
    """[prompt, **clip**]."""
    return Document((TextSegment(prompt), VideoSegment(frames, target=True)), source=TEXT_TO_VIDEO)


def interleaved_document(parts: Sequence[tuple[int | None, str]]) -> Document:
    """[image, **text**, image, **text**, ...] without turns; loss on the text alone (VILA-U section 3.2)."""
    segments: list[Segment] = []
    for image, text in parts:
        if image is not None:
            segments.append(ImageSegment(image))
        if text:
            segments.append(TextSegment(text, target=True))
    return Document(tuple(segments), chat=False, source=INTERLEAVED)


def text_document(text: str) -> Document:
    """[**text**]."""
    return Document((TextSegment(text, target=True),), source=TEXT_ONLY)


def web_document(text: str, shown: Sequence[Shown]) -> Document:
    """An ``interleaved_document`` of a text with a mark for each image; marks beyond ``shown`` stand for nothing."""
    first, *rest = (piece.strip() for piece in text.split(MARK))
    images: list[int | None] = [row if isinstance(row, int) else None for row in shown]
    images += [None] * (len(rest) - len(images))
    return interleaved_document([(None, first), *zip(images, rest, strict=True)])


def marked_conversation(shown: Sequence[Shown], turns: Sequence[str]) -> Document:
    """As ``conversation``, where each mark in a turn is the next image or clip: in a question what the model
    sees, in an answer **what it draws**."""
    left = iter(shown)
    segments: list[Segment] = []
    for number, text in enumerate(turns):
        segments += _marked_turn(text, left, target=number % 2 == 1)
    return Document(tuple(segments), source=CHAT)


def _marked_turn(text: str, shown: Iterator[Shown], *, target: bool) -> list[Segment]:
    first, *rest = (piece.strip() for piece in text.split(MARK))
    segments: list[Segment] = [TextSegment(first, target)] if first or not rest else []
    for piece in rest:
        rows = next(shown)
        one = VideoSegment if isinstance(rows, tuple) else ImageSegment
        segments.append(one(rows, target))  # type: ignore[arg-type]
        segments += [TextSegment(piece, target)] if piece else []
    return segments


def is_drawn(turns: Sequence[str]) -> bool:
    """Whether an answer of a conversation holds a mark: an image or clip that the model draws."""
    return any(MARK in answer for answer in turns[1::2])


def without_marks(turns: Sequence[str]) -> list[str]:
    """Turns without the marks of images and clips; what stood around one is joined by a blank."""
    return [" ".join(filter(None, (piece.strip() for piece in text.split(MARK)))) for text in turns]


def conversation(shown: int | tuple[int, ...] | None, turns: Sequence[str]) -> Document:
    """[shown, question, **answer**, question, **answer**, ...]; ``turns`` alternate.

    ``shown`` is the row of an image, the rows of a clip, or nothing.
    """
    segments: list[Segment] = []
    if isinstance(shown, tuple):
        segments.append(VideoSegment(shown))
    elif shown is not None:
        segments.append(ImageSegment(shown))
    for number, text in enumerate(turns):
        segments.append(TextSegment(text, target=number % 2 == 1))
    return Document(tuple(segments), source=CHAT)
