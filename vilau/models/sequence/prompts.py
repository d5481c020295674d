"""The release's strings: what a document or a chat reads like before it is tokenised (reference 3.2).

A string is cut at its images: ``Words`` between ``Place``s. ``words`` that follow one another are one piece for
the tokenizer.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from vilau.errors import DataError
from vilau.models.sequence.config import PromptConfig
from vilau.types import Document, ImageSegment, Segment, TextSegment, VideoSegment

IMAGE_MARK = "<image>"
IMAGE_START, IMAGE_END = "<im_start>", "<im_end>"
VIDEO_START, VIDEO_END = "<vi_start>", "<vi_end>"
_MARKS = re.compile(
    f"({VIDEO_START}(?:{IMAGE_MARK})+{VIDEO_END}|{IMAGE_START}{IMAGE_MARK}{IMAGE_END}|{IMAGE_MARK})"
)


class Words(NamedTuple):
    """A stretch of text."""

    text: str
    target: bool = False


class Place(NamedTuple):
    """Where image ``image`` of the batch stands."""

    image: int
    target: bool = False


Part = Words | Place
Turn = tuple[Sequence[Segment], Sequence[Segment]]


# ---------------------------------------------------------------------- documents to strings


def document_parts(document: Document, prompt: PromptConfig, *, end: str) -> list[Part]:
    """Return the parts of a training document; ``end`` is the text of the end-of-sequence token.

    Outside a chat the segments stand as they are, and one ``end`` closes them.
    """
    if document.chat:
        parts = chat_parts(turns(document.segments), prompt, end=end, system=document.system)
    else:
        says = any(segment.target for segment in document.segments)
        parts = [*_joined(document.segments, chat=False), Words(end, says)]
    return [part._replace(target=False) for part in parts] if document.masked else parts


def chat_parts(
    chat: Sequence[Turn], prompt: PromptConfig, *, end: str, system: bool = True
) -> list[Part]:
    """Return the parts of a chat; a turn without an answer ends at the assistant's mark.

    An empty user turn loses its separators, as published: the null prompt reads ``USER:ASSISTANT:``. What
    separates the system sentence from the first turn stays when there is none.
    """
    parts: list[Part] = [Words(f"{prompt.system if system else ''} ")]
    for context, answer in chat:
        asked = _joined(context, chat=True)
        parts.append(Words(f"{prompt.user} " if asked else prompt.user))
        parts += [*asked, Words(" ")] if asked else []
        parts.append(Words(prompt.assistant))
        if answer:
            parts += [Words(" ", target=True), *_joined(answer, chat=True), Words(end, target=True)]
    return parts


def _joined(segments: Sequence[Segment], *, chat: bool) -> list[Part]:
    """Join the segments of one turn, without white space at its ends, or of a bare document."""
    parts: list[Part] = []
    before: Segment | None = None
    for segment in segments:
        if isinstance(segment, TextSegment) and not segment.text:
            continue
        gap = "" if before is None else _gap(before, segment, chat=chat)
        parts.append(Words(gap, segment.target))
        parts += _shown(segment, chat=chat)
        before = segment
    return _stripped(parts) if chat else parts


def between_tokens(segment: ImageSegment | VideoSegment, *, chat: bool) -> bool:
    """Whether an image or a clip stands between the tokens that begin and end one (reference 3.2).

    In a chat a clip that is read does not, but its frames stand bare: the release learns to answer about clips so,
    and asks so.
    """
    read = chat and isinstance(segment, VideoSegment) and not segment.target
    return not (read or segment.bare)


def _gap(before: Segment, segment: Segment, *, chat: bool) -> str:
    """White space that the published loader puts between two segments, unless they bring their own."""
    if isinstance(segment, TextSegment):
        if segment.text[0].isspace():
            return ""
        if isinstance(before, TextSegment):
            return "" if before.text[-1].isspace() else " "
        return "\n" if chat else ""
    if not chat:
        return ""
    if isinstance(before, TextSegment):
        return "" if segment.bare or before.text[-1].isspace() else " "
    return "\n " if between_tokens(segment, chat=chat) else "\n"


def _shown(segment: Segment, *, chat: bool) -> list[Part]:
    target = segment.target
    if isinstance(segment, TextSegment):
        return [Words(segment.text, target)]
    if isinstance(segment, ImageSegment):
        place = Place(segment.index, target)
        if not between_tokens(segment, chat=chat):
            return [place]
        return [Words(IMAGE_START, target), place, Words(IMAGE_END, target)]
    frames = [Place(index, target) for index in segment.indices]
    if between_tokens(segment, chat=chat):
        return [Words(VIDEO_START, target), *frames, Words(VIDEO_END, target)]
    lines: list[Part] = [frames[0]]
    for frame in frames[1:]:
        lines += [Words("\n" if chat else ""), frame]
    return lines


def _stripped(parts: list[Part]) -> list[Part]:
    parts = list(parts)
    for end in (0, -1):
        while parts and isinstance(part := parts[end], Words):
            kept = part.text.lstrip() if end == 0 else part.text.rstrip()
            if kept:
                parts[end] = Words(kept, part.target)
                break
            parts.pop(end)
    return parts


# ---------------------------------------------------------------------- chats


def turns(segments: Sequence[Segment]) -> list[tuple[list[Segment], list[Segment]]]:
    """Split a chat into (user segments, assistant segments) turns.

    Raises ``DataError`` for a chat without a target, which could teach nothing.
    """
    found = open_turns(segments)
    if not found or not found[-1][1]:
        raise DataError(
            "a chat document ends without a target segment; give its last turn an answer."
        )
    return found


def open_turns(segments: Sequence[Segment]) -> list[tuple[list[Segment], list[Segment]]]:
    """Split a chat into turns; the last may have no answer yet."""
    found: list[tuple[list[Segment], list[Segment]]] = []
    for segment in segments:
        if segment.target:
            if not found:
                found.append(([], []))
            found[-1][1].append(segment)
        elif not found or found[-1][1]:
            found.append(([segment], []))
        else:
            found[-1][0].append(segment)
    return found


def chat_segments(chat: str | Sequence[str], images: Sequence[int], *, bare: bool) -> list[Segment]:
    """Return the segments of a chat that waits for an answer.

    Args:
        chat: a question, or the turns [user, assistant, user, ...] ending with the user's.
        images: which images of the batch the ``<image>`` marks in the texts stand for, in order; without
            any mark they all stand before the first text.
        bare: whether ``<image>`` alone means a bare image.

    Raises:
        DataError: the chat does not end with the user's turn, or marks and images differ in number.
    """
    texts = [chat] if isinstance(chat, str) else list(chat)
    if len(texts) % 2 == 0:
        raise DataError(
            f"prompt has {len(texts)} turns, but the model answers the user's; write [user, assistant, "
            "user, ...] ending with the user."
        )
    marks = sum(text.count(IMAGE_MARK) for text in texts)
    if marks not in (0, len(images)):
        raise DataError(
            f"prompt has {marks} {IMAGE_MARK} marks for {len(images)} images; write one mark per image, "
            "or none to put all images first."
        )
    left = iter(images)
    first = [] if marks else [ImageSegment(image, bare=bare) for image in left]
    said = [
        segment
        for number, text in enumerate(texts)
        for segment in marked_segments(text, left, target=number % 2 == 1, bare=bare)
    ]
    return [*first, *said]


def without_marks(text: str) -> str:
    """Take the marks of images and clips out of a text; what stood around one is joined by a blank."""
    if not _MARKS.search(text):
        return text
    pieces = (piece.strip() for piece in _MARKS.split(text)[::2])  # every other piece is a mark
    return " ".join(filter(None, pieces))


def marked_segments(
    text: str, images: Iterator[int], *, target: bool = False, bare: bool = False
) -> list[Segment]:
    """Cut a text at its marks for images and clips, which take their indices from ``images``.

    ``<image>`` between ``<im_start>`` and ``<im_end>``, or several between ``<vi_start>`` and ``<vi_end>``, are
    an image or a clip between its tokens (in the published form a clip that is read loses these, see
    ``between_tokens``). White space stays as it is.
    """
    segments: list[Segment] = []
    for piece in _MARKS.split(text):
        if piece == IMAGE_MARK:
            segments.append(ImageSegment(next(images), target, bare=bare and not target))
        elif piece.startswith(IMAGE_START + IMAGE_MARK):
            segments.append(ImageSegment(next(images), target))
        elif piece.startswith(VIDEO_START + IMAGE_MARK):
            indices = tuple(next(images) for _ in range(piece.count(IMAGE_MARK)))
            segments.append(VideoSegment(indices, target))
        elif piece or len(text) == 0:
            segments.append(TextSegment(piece, target))
    return segments
