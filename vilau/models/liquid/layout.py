"""The strings of Liquid's release: what a document reads like before it is tokenised (reference B3).

Pairs of a text and an image stand bare; all else is a chat in Gemma's words. The release learns to draw with ten
wordings, of which it draws with one: that one is used throughout. What ends a chat's answers is not published; here
they end with Gemma's turn, and where the sequence does.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby

from vilau.errors import DataError
from vilau.models.liquid.config import (
    BEGIN_OF_IMAGE,
    END_OF_IMAGE,
    END_OF_TURN,
    PUBLISHED_MARKS,
    START_OF_TURN,
    UNCONDITIONAL,
)
from vilau.models.sequence.layout import SequenceLayout
from vilau.models.sequence.prompts import IMAGE_START, Turn, open_turns, turns
from vilau.models.sequence.rows import Layout, Row
from vilau.types import Document, ImageSegment, Segment, TextSegment, VideoSegment
from vilau.types.documents import IMAGE_TO_TEXT

TO_DRAW = " Generate an image based on this description."
TO_CAPTION = "The caption of this image is:"


class LiquidLayout(SequenceLayout):
    """Lays documents out as the release does."""

    marks = (*PUBLISHED_MARKS, UNCONDITIONAL)

    @property
    def ends(self) -> tuple[int, ...]:
        """The end of a turn, and that of the sequence."""
        return (self.token(END_OF_TURN), *super().ends)

    def drawing_prompts(self, prompts: Sequence[str], *, start: str = IMAGE_START) -> Layout:
        """See ``SequenceLayout.drawing_prompts``; ``DataError`` for a clip."""
        if start != IMAGE_START:
            raise _no_clip()
        rows = []
        for prompt in prompts:
            row = self._opened()
            self._to_draw(row, self._spelt([TextSegment(prompt)]))
            row.text([self.token(BEGIN_OF_IMAGE)])
            rows.append(row)
        return self._padded(rows, left=True)

    def answer_prompts(self, chats: Sequence[Sequence[Segment]]) -> Layout:
        """See ``SequenceLayout.answer_prompts``."""
        rows = []
        for chat in chats:
            row = self._opened()
            self._turns(row, open_turns(self._spelt(chat)))
            rows.append(row)
        return self._padded(rows, left=True)

    def _opened(self) -> Row:
        row = Row()
        row.text(self.opening())
        return row

    def _row(self, document: Document) -> Row:
        if any(isinstance(s, VideoSegment) and s.target for s in document.segments):
            raise _no_clip()
        row = self._opened()
        segments = self._spelt(document.segments)
        if not document.chat:
            self._joined(row, segments)
        elif not self._pair(row, turns(segments), captions=document.source == IMAGE_TO_TEXT):
            self._turns(row, turns(segments))
        return row.without_targets() if document.masked else row

    def _pair(self, row: Row, chat: Sequence[Turn], *, captions: bool) -> bool:
        """Append a text and the image drawn from it, or an image and its caption; tell whether it is such a pair.

        In the place of the words that ask for a caption stand the release's.
        """
        if len(chat) != 1 or len(chat[0][1]) != 1:
            return False
        context, (answer,) = chat[0]
        shown = [segment for segment in context if not isinstance(segment, TextSegment)]
        if isinstance(answer, ImageSegment) and not shown:
            self._to_draw(row, context)
        elif captions and isinstance(answer, TextSegment) and len(shown) == 1:
            self._shown(row, shown[0])
            row.text(self.ids_of(TO_CAPTION))
        else:
            return False
        self._joined(row, [answer])
        row.text([self.tokenizer.eos_token_id], target=True)
        return True

    def _to_draw(self, row: Row, texts: Sequence[Segment]) -> None:
        """What an image is to show; of a dropped caption its token alone."""
        words = " ".join(_words(texts))
        null = self.prompt.null_words
        row.text(self.ids_of(null if words in ("", null) else words + TO_DRAW))

    def _turns(self, row: Row, chat: Sequence[Turn]) -> None:
        for number, (context, answer) in enumerate(chat):
            gap = "\n" if number else ""
            row.text(self.ids_of(f"{gap}{START_OF_TURN}user\n"))
            self._joined(row, context, after_image="\n")
            row.text(self.ids_of(f"{END_OF_TURN}\n{START_OF_TURN}model\n"))
            self._joined(row, answer)
            if answer:
                row.text([self.token(END_OF_TURN)], target=True)

    def _joined(self, row: Row, segments: Sequence[Segment], *, after_image: str = "") -> None:
        """Append segments: neighbouring texts in one piece, ``after_image`` behind an image before anything else.

        Before what bears loss text ends where it does, and a space belongs to what follows.
        """
        before = ""
        for (is_text, target), group in groupby(segments, key=_kind):
            if is_text:
                words = " ".join(_words(group))
                if words:
                    row.text(self.ids_of(before + words), target=target)
                    before = " "
                continue
            for segment in group:
                row.text(self.ids_of(before.strip(" ")))
                self._shown(row, segment, between=after_image)
                before = after_image

    def _shown(self, row: Row, segment: Segment, *, between: str = "") -> None:
        """Append an image, or the frames of a clip with ``between`` between them."""
        assert not isinstance(segment, TextSegment)
        indices = (segment.index,) if isinstance(segment, ImageSegment) else segment.indices
        for number, index in enumerate(indices):
            row.text(self.ids_of(between if number else ""))
            row.text([self.token(BEGIN_OF_IMAGE)])  # given, in drawing as well
            self._image(row, index, target=segment.target)
            row.text([self.token(END_OF_IMAGE)], target=segment.target)


def _kind(segment: Segment) -> tuple[bool, bool]:
    return isinstance(segment, TextSegment), segment.target


def _words(segments: Iterable[Segment]) -> list[str]:
    """The texts among some segments, without white space at their ends, and without empty ones."""
    texts = (s.text.strip() for s in segments if isinstance(s, TextSegment))
    return [text for text in texts if text]


def _no_clip() -> DataError:
    return DataError(
        "a clip is to be drawn, but Liquid's release has no token that begins one; draw images, or train a model with "
        "prompt.form: plain."
    )
