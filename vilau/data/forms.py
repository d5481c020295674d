"""The forms of documents: what is context, what the model must say or draw, and the images they refer to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from vilau.data.pairs import stack_images
from vilau.types import Document, ImageSegment, Segment, TextSegment, VideoSegment

DESCRIBE = "describe the picture ."
"""What a user says for a caption, in the spelling of the drawn world."""
IMAGE_TO_TEXT, TEXT_TO_IMAGE, TEXT_TO_VIDEO = "image_to_text", "text_to_image", "text_to_video"
INTERLEAVED, TEXT_ONLY, CHAT = "interleaved", "text_only", "chat"


class Pictures:
    """The images of a batch in the making; documents name them by row."""

    def __init__(self) -> None:
        self._images: list[np.ndarray] = []

    def add(self, image: np.ndarray) -> int:
        """Keep uint8 ``(H, W, 3)`` and return its row."""
        self._images.append(image)
        return len(self._images) - 1

    def add_clip(self, frames: Sequence[np.ndarray]) -> tuple[int, ...]:
        """Keep the frames of a clip, in order, and return their rows."""
        return tuple(self.add(frame) for frame in frames)

    def stacked(self, image_size: int) -> Tensor:
        """All images, uint8 ``(N, 3, H, W)``; N may be 0."""
        return stack_images(self._images, image_size=image_size)


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
