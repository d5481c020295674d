"""From documents to token rows: prompts, image places, and what bears loss (VILA-U section 3.2, reference 3.2).

B rows, T tokens, P visual positions of an image to be drawn, n image spans.
"""

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

from vilau.errors import ConfigError, DataError
from vilau.models.sequence.config import PromptConfig
from vilau.models.sequence.prompts import (
    IMAGE_END,
    IMAGE_START,
    VIDEO_END,
    VIDEO_START,
    Part,
    Place,
    Turn,
    Words,
    between_tokens,
    chat_parts,
    document_parts,
    open_turns,
    turns,
)
from vilau.models.sequence.rows import Layout, Row, packed, padded, sharing, similar
from vilau.models.sizes import SPECIAL_TOKENS
from vilau.types import Document, ImageSegment, Segment, TextSegment


class SequenceLayout:
    """Lays documents out as rows of one tokenizer's ids."""

    marks: ClassVar[tuple[str, ...]] = SPECIAL_TOKENS
    """Special tokens of the layout's own, which no text may spell."""
    lag: ClassVar[int] = 1
    """How many columns before a drawn position the state stands that predicts it."""

    def __init__(
        self,
        tokenizer: Any,
        prompt: PromptConfig,
        *,
        num_positions: int,
        read_positions: int | None = None,
        max_length: int | None = None,
    ) -> None:
        """Take the positions of an image that is drawn, and of one that is read (None: as many)."""
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.num_positions = num_positions
        self.read_positions = num_positions if read_positions is None else read_positions
        self.max_length = max_length
        self._published = prompt.form == "published"
        self._pieces: dict[str, list[int]] = {}

    def ids_of(self, text: str) -> list[int]:
        """Token ids of a piece of text, without special tokens (remembered: prompts repeat)."""
        if text not in self._pieces:
            if len(self._pieces) > 100_000:
                self._pieces.clear()
            self._pieces[text] = self._tokenized(text)
        return self._pieces[text]

    def _tokenized(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def token(self, name: str) -> int:
        """The id of a special token such as ``<im_start>``; ``DataError`` where the model was made without."""
        found = self.tokenizer.convert_tokens_to_ids(name)
        if found is None or found == self.tokenizer.unk_token_id:
            raise DataError(
                f"this model has no token {name}, so it knows no image or clip that stands beside one; give "
                "it bare images, or take another model."
            )
        return found

    def _check_marks(self, segments: Sequence[Segment], *, chat: bool = False) -> None:
        """Raise ``DataError`` for a missing token that would be spelt out instead."""
        for segment in segments:
            if not isinstance(segment, TextSegment) and between_tokens(segment, chat=chat):
                self.token(IMAGE_START if isinstance(segment, ImageSegment) else VIDEO_START)

    def _spelt(self, segments: Sequence[Segment]) -> list[Segment]:
        """Return segments whose texts name no special token: a space after its first letter makes it mere letters.

        Else a caption with ``</s>`` would end its answer. Only the null prompt keeps its token.
        """
        return [
            replace(segment, text=self._names.sub(_apart, segment.text))
            if isinstance(segment, TextSegment)
            and self._names.search(segment.text)
            and segment.text.strip() != self.prompt.null_words
            else segment
            for segment in segments
        ]

    @cached_property
    def _names(self) -> re.Pattern[str]:
        """Finds the names of special tokens in a text."""
        added = self.tokenizer.added_tokens_decoder.values()
        # A checkpoint's own files may have forgotten that these are special.
        special = {t.content for t in added if t.special or t.content in self.marks}
        names = special | set(self.tokenizer.all_special_tokens)
        return re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))))

    @property
    def ends(self) -> tuple[int, ...]:
        """The ids that end an answer."""
        return (int(self.tokenizer.eos_token_id),)

    def opening(self) -> list[int]:
        """Ids every row starts with: BOS."""
        return [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]

    # ------------------------------------------------------------------ documents

    def lay_out(self, documents: Sequence[Document], *, packing: bool = False) -> Layout:
        """Lay out documents as right-padded rows of at most ``max_length`` tokens, each its own or ``packing`` them.

        A longer document loses its end where that is text; one that would lose part of an image or a clip is left
        out; both are counted. (The published code fails on the first kind of loss: reference 8.2.) Packed documents
        share rows of ``max_length`` tokens, see ``first_fit``, and are told apart in the layout.
        """
        return self.lay_out_in(1, documents, packing=packing)[0]

    def lay_out_in(
        self,
        groups: int,
        documents: Sequence[Document],
        *,
        packing: bool = False,
        share_images: bool = False,
    ) -> list[Layout]:
        """Lay out documents as ``lay_out`` does, in so many groups of rows of similar length, each padded to its own.

        With ``share_images`` documents that begin with the same images become one row, see ``sharing``. What was
        left out or cut is counted in the first layout.
        """
        rows, dropped, cut = self._rows(documents)
        self._warn(dropped, cut)
        if not rows:  # nothing to learn from, yet a row that every part of the model can run on
            rows = [Row([self.tokenizer.eos_token_id], [False])]
        if share_images:
            rows = sharing(rows, self.max_length)
        if packing:
            if self.max_length is None:
                raise ConfigError(
                    "model.packing is true, but the language model has no max_length, which is the length of a "
                    "packed row; write false, or a max_length."
                )
            rows = packed(rows, self.max_length)
        parted = [rows]
        if groups > 1:
            parted = [[rows[n] for n in g] for g in similar([len(r.ids) for r in rows], groups)]
        layouts = [self._padded(part, isolated=packing) for part in parted]
        layouts[0].dropped, layouts[0].cut = dropped, cut
        return layouts

    def _warn(self, dropped: int, cut: int) -> None:
        if dropped:
            warnings.warn(
                "a document is left out: cut to the language model's max_length of "
                f"{self.max_length} it would lose part of an image; shorten it or raise max_length.",
                stacklevel=3,
            )
        if cut:
            warnings.warn(
                "a document loses the end of its text, which is longer than the language model's max_length of "
                f"{self.max_length}; shorten it or raise max_length.",
                stacklevel=3,
            )

    def count_targets(self, documents: Sequence[Document]) -> tuple[int, int]:
        """Return how many text tokens and how many images of ``documents`` bear loss, those of ``lay_out``."""
        rows, _, _ = self._rows(documents)
        texts = sum(sum(row.targets) for row in rows)
        return texts, sum(span.target for row in rows for span in row.spans)

    def _rows(self, documents: Sequence[Document]) -> tuple[list[Row], int, int]:
        """Rows of the documents that fit, and how many were left out and cut."""
        rows: list[Row] = []
        found: Counter[str] = Counter()
        for document in documents:
            row = self._row(document)
            if self.max_length is not None and len(row.ids) > self.max_length:
                shorter = row.cut(self.max_length)
                found["cut" if shorter else "dropped"] += 1
                if shorter is None:
                    continue
                row = shorter
            if row.targets:
                row.targets[0] = False  # nothing stands before it that could predict it
            rows.append(row)
        return rows, found["dropped"], found["cut"]

    def _row(self, document: Document) -> Row:
        row = Row()
        row.text(self.opening())
        segments = self._spelt(document.segments)
        if self._published:
            self._check_marks(segments, chat=document.chat)
            said = replace(document, segments=tuple(segments))
            self._write(row, document_parts(said, self.prompt, end=self.tokenizer.eos_token))
            return row
        if document.chat:
            self._chat(row, turns(segments), system=document.system)
        else:
            for segment in segments:
                self._segment(row, segment)
        return row.without_targets() if document.masked else row

    # ------------------------------------------------------------------ prompts at inference

    def drawing_prompts(self, prompts: Sequence[str], *, start: str = IMAGE_START) -> Layout:
        """Left-padded rows that end in ``start``; an empty prompt is the null prompt."""
        self.token(start)
        rows = [
            self._prompt([(self._spelt([TextSegment(prompt)]), [])], after=start)
            for prompt in prompts
        ]
        return self._padded(rows, left=True)

    def answer_prompts(self, chats: Sequence[Sequence[Segment]]) -> Layout:
        """Left-padded rows of chats that end in the assistant's mark, ready for the answer."""
        for chat in chats:
            self._check_marks(chat)
        rows = [self._prompt(open_turns(self._spelt(chat))) for chat in chats]
        return self._padded(rows, left=True)

    def _padded(self, rows: Sequence[Row], *, left: bool = False, isolated: bool = False) -> Layout:
        return padded(rows, self.num_positions, left=left, isolated=isolated, lag=self.lag)

    def _image(self, row: Row, index: int, *, target: bool) -> None:
        """Append image ``index`` of the batch: one of the model's own where it is a target, else one to be read."""
        row.image(index, self.num_positions if target else self.read_positions, target=target)

    def _prompt(self, chat: Sequence[Turn], *, after: str = "") -> Row:
        row = Row()
        row.text(self.opening())
        if self._published:
            parts = chat_parts(chat, self.prompt, end=self.tokenizer.eos_token)
            self._write(row, [*parts, Words(f" {after}" if after else "")])
            return row
        self._chat(row, chat)
        if after:
            row.text([self.token(after)])
        return row

    # ------------------------------------------------------------------ the published form

    def _write(self, row: Row, parts: Sequence[Part]) -> None:
        """Append parts: words are tokenised in one piece from image to image."""
        piece: list[Words] = []
        for part in parts:
            if isinstance(part, Place):
                self._write_piece(row, piece)
                self._image(row, part.image, target=part.target)
                piece = []
            elif part.text:
                piece.append(part)
        self._write_piece(row, piece)

    def _write_piece(self, row: Row, piece: Sequence[Words]) -> None:
        if not piece:
            return
        text = "".join(words.text for words in piece)
        # The published tokenizer puts a space before a piece even where it begins with one.
        lead = " " if text.startswith(" ") and self._swallows_a_space() else ""
        ids = self._tokenized(lead + text)
        done = at = 0
        for words, following in zip(piece, [*piece[1:], None], strict=True):
            at += len(words.text)
            if following is None:
                end = len(ids)
            elif following.target == words.target:
                continue
            else:  # what is learnt begins at a space or ends in a special token: no token straddles
                end = len(self._tokenized(lead + text[:at]))
            row.text(ids[done:end], target=words.target)
            done = end

    def _swallows_a_space(self) -> bool:
        return self.ids_of(" a") == self.ids_of("a")

    # ------------------------------------------------------------------ the plain form

    def _chat(self, row: Row, chat: Sequence[Turn], *, system: bool = True) -> None:
        for number, (context, answer) in enumerate(chat):
            self._user_turn(row, context, system=system and number == 0)
            for segment in answer:
                self._segment(row, segment)
            if answer:
                row.text([self.tokenizer.eos_token_id], target=True)

    def _user_turn(self, row: Row, context: Sequence[Segment], *, system: bool) -> None:
        words = self.prompt.system if system else ""
        empty = all(isinstance(s, TextSegment) and not s.text.strip() for s in context)
        # An empty turn loses its separators too: the published null prompt "... USER:ASSISTANT:".
        row.text(self.ids_of(f"{words} {self.prompt.user}" if words else self.prompt.user))
        if not empty:
            for segment in context:
                self._segment(row, segment)
        row.text(self.ids_of(self.prompt.assistant if empty else f" {self.prompt.assistant}"))

    def _segment(self, row: Row, segment: Segment) -> None:
        if isinstance(segment, TextSegment):
            if segment.text.strip():
                row.text(self.ids_of(" " + segment.text.strip()), target=segment.target)
            return
        single = isinstance(segment, ImageSegment)
        start, end = (IMAGE_START, IMAGE_END) if single else (VIDEO_START, VIDEO_END)
        if not segment.bare:
            row.text([self.token(start)], target=segment.target)
        for index in (segment.index,) if isinstance(segment, ImageSegment) else segment.indices:
            self._image(row, index, target=segment.target)
        if not segment.bare:
            row.text([self.token(end)], target=segment.target)


def _apart(name: re.Match[str]) -> str:
    return f"{name[0][0]} {name[0][1:]}"
