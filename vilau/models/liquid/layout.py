"""The strings of Liquid's release: what a document reads like before it is tokenised (reference B3).

Pairs of a text and an image stand bare; all else is a chat in Gemma's words. The release trains captions with ten
wordings of which it draws with one; that one is used throughout. The end of a chat's answers is not published: here it
is Gemma's own.
"""

from collections.abc import Sequence

from vilau.errors import DataError
from vilau.models.sequence.layout import SequenceLayout
from vilau.models.sequence.prompts import IMAGE_START, Turn, open_turns, turns
from vilau.models.sequence.rows import Layout, Row, padded
from vilau.types import Document, ImageSegment, Segment, TextSegment

BEGIN_OF_IMAGE, END_OF_IMAGE, UNCONDITIONAL = "<boi>", "<eoi>", "<unconditional>"
START_OF_TURN, END_OF_TURN = "<start_of_turn>", "<end_of_turn>"
TO_DRAW = " Generate an image based on this description."
TO_CAPTION = "The caption of this image is:"


class LiquidLayout(SequenceLayout):
    """Lays documents out as the release does."""

    marks = (BEGIN_OF_IMAGE, END_OF_IMAGE, UNCONDITIONAL, START_OF_TURN, END_OF_TURN)

    @property
    def end(self) -> int:
        """Gemma ends a turn, not the sequence; another tokenizer has no token for that."""
        return self.token(END_OF_TURN) if END_OF_TURN in self.tokenizer.get_vocab() else super().end

    def drawing_prompts(self, prompts: Sequence[str], *, start: str = IMAGE_START) -> Layout:
        """See ``SequenceLayout.drawing_prompts``; ``DataError`` for a clip."""
        if start != IMAGE_START:
            raise DataError(
                "a clip is asked for, but Liquid's release has no token that begins one; draw images, or train a "
                "model with prompt.form: plain."
            )
        rows = []
        for prompt in prompts:
            row = Row()
            row.text(self.opening())
            self._to_draw(row, self._spelt([TextSegment(prompt)]))
            row.text([self.token(BEGIN_OF_IMAGE)])
            rows.append(row)
        return padded(rows, self.num_positions, left=True)

    def answer_prompts(self, chats: Sequence[Sequence[Segment]]) -> Layout:
        """See ``SequenceLayout.answer_prompts``."""
        rows = []
        for chat in chats:
            row = Row()
            row.text(self.opening())
            self._turns(row, open_turns(self._spelt(chat)))
            rows.append(row)
        return padded(rows, self.num_positions, left=True)

    def _row(self, document: Document) -> Row:
        row = Row()
        row.text(self.opening())
        segments = self._spelt(document.segments)
        if not document.chat:
            self._joined(row, segments)
        elif not self._pair(row, turns(segments)):
            self._turns(row, turns(segments))
        return row.without_targets() if document.masked else row

    def _pair(self, row: Row, chat: Sequence[Turn]) -> bool:
        """Append a text and the image drawn from it, or an image and its caption; tell whether it is such a pair."""
        if len(chat) != 1 or len(chat[0][1]) != 1:
            return False
        context, (answer,) = chat[0]
        in_words = [segment for segment in context if isinstance(segment, TextSegment)]
        if isinstance(answer, ImageSegment) and len(in_words) == len(context):
            self._to_draw(row, in_words)
        elif isinstance(answer, TextSegment) and len(context) == 1 and not in_words:
            self._bare(row, context[0])
            row.text(self.ids_of(TO_CAPTION))
        else:
            return False
        self._bare(row, answer)
        row.text([self.tokenizer.eos_token_id], target=True)
        return True

    def _to_draw(self, row: Row, texts: Sequence[Segment]) -> None:
        """What an image is to show; of a dropped caption its token alone."""
        words = " ".join(
            s.text.strip() for s in texts if isinstance(s, TextSegment) and s.text.strip()
        )
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
                row.text([self.end], target=True)

    def _joined(self, row: Row, segments: Sequence[Segment], *, after_image: str = "") -> None:
        """Append segments: a space between texts, ``after_image`` between an image and a text."""
        for number, segment in enumerate(segments):
            if number and isinstance(segment, TextSegment):
                text_before = isinstance(segments[number - 1], TextSegment)
                gap = " " if text_before else after_image
                row.text(self.ids_of(gap), target=segment.target)
            self._bare(row, segment)

    def _bare(self, row: Row, segment: Segment) -> None:
        """Append a segment: a clip is its frames, one after another."""
        if isinstance(segment, TextSegment):
            row.text(self.ids_of(segment.text.strip()), target=segment.target)
            return
        indices = (segment.index,) if isinstance(segment, ImageSegment) else segment.indices
        for index in indices:
            row.text([self.token(BEGIN_OF_IMAGE)])  # given, in drawing as well
            row.image(index, self.num_positions, target=segment.target)
            row.text([self.token(END_OF_IMAGE)], target=segment.target)
