"""From documents to token rows: prompts, image places, and what bears loss (VILA-U section 3.2, reference 3.2).

B rows, T tokens, P visual positions per image, n image spans.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from vilau.errors import DataError
from vilau.models.vila_u.config import PromptConfig
from vilau.models.vila_u.prompts import (
    IMAGE_END,
    IMAGE_START,
    VIDEO_END,
    VIDEO_START,
    Part,
    Place,
    Turn,
    Words,
    chat_parts,
    document_parts,
    open_turns,
    turns,
)
from vilau.types import Document, ImageSegment, Segment, TextSegment


@dataclass
class Layout:
    """A padded batch of rows."""

    ids: Tensor
    """int64 ``(B, T)``; 0 under images and padding (their embeddings come from elsewhere or nowhere)."""
    mask: Tensor
    """int64 ``(B, T)``: 1 where there is a token."""
    targets: Tensor
    """bool ``(B, T)``: text tokens that bear loss."""
    span_rows: Tensor
    """int64 ``(n,)``: row of each image span."""
    span_starts: Tensor
    """int64 ``(n,)``: first column of each span. What stands before it predicts its first position:
    ``<im_start>``, ``<vi_start>``, or the last position of the frame before."""
    span_images: Tensor
    """int64 ``(n,)``: which image of the batch stands there."""
    span_targets: Tensor
    """bool ``(n,)``: images to be drawn."""
    dropped: int = 0
    """Documents left out because an image of theirs would have been cut."""

    def to(self, device: torch.device) -> "Layout":
        """Move all tensors."""
        moved: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            moved[item.name] = value.to(device) if isinstance(value, Tensor) else value
        return Layout(**moved)


@dataclass
class _Row:
    ids: list[int] = field(default_factory=list)
    targets: list[bool] = field(default_factory=list)
    spans: list[tuple[int, int, bool]] = field(default_factory=list)  # start, image, target

    def text(self, ids: Sequence[int], *, target: bool = False) -> None:
        self.ids.extend(ids)
        self.targets.extend([target] * len(ids))

    def image(self, index: int, num_positions: int, *, target: bool = False) -> None:
        self.spans.append((len(self.ids), index, target))
        self.text([0] * num_positions)


class SequenceLayout:
    """Lays documents out as rows of one tokenizer's ids."""

    def __init__(
        self,
        tokenizer: Any,
        prompt: PromptConfig,
        *,
        num_positions: int,
        max_length: int | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.num_positions = num_positions
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

    def _check_marks(self, segments: Sequence[Segment]) -> None:
        """Raise ``DataError`` for a missing token that would be spelt out instead."""
        for segment in segments:
            if not isinstance(segment, TextSegment) and not segment.bare:
                self.token(IMAGE_START if isinstance(segment, ImageSegment) else VIDEO_START)

    def opening(self) -> list[int]:
        """Ids every row starts with: BOS."""
        return [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]

    # ------------------------------------------------------------------ documents

    def lay_out(self, documents: Sequence[Document]) -> Layout:
        """Lay out documents as right-padded rows of at most ``max_length`` tokens.

        A longer document loses its end where that is text; one that would lose part of an image or a
        clip is left out and counted. (The published code fails on the first kind of loss: reference 8.2.)
        """
        rows = [row for d in documents if (row := self._fitting(self._row(d))) is not None]
        dropped = len(documents) - len(rows)
        if dropped:
            warnings.warn(
                "a document is left out: cut to the language model's max_length of "
                f"{self.max_length} it would lose part of an image; shorten it or raise max_length.",
                stacklevel=2,
            )
        if not rows:  # nothing to learn from, yet a row that every part of the model can run on
            rows = [_Row([self.tokenizer.eos_token_id], [False])]
        layout = self._pad(rows, left=False)
        layout.dropped = dropped
        return layout

    def _fitting(self, row: _Row) -> _Row | None:
        limit = self.max_length
        if limit is None or len(row.ids) <= limit:
            return row
        if any(start + self.num_positions > limit for start, _, _ in row.spans):
            return None
        return _Row(row.ids[:limit], row.targets[:limit], row.spans)

    def _row(self, document: Document) -> _Row:
        row = _Row()
        row.text(self.opening())
        if self._published:
            self._check_marks(document.segments)
            self._write(row, document_parts(document, self.prompt, end=self.tokenizer.eos_token))
            return row
        if document.chat:
            self._chat(row, turns(document.segments), system=document.system)
        else:
            for segment in document.segments:
                self._segment(row, segment)
        if document.masked:
            row.targets = [False] * len(row.targets)
            row.spans = [(start, image, False) for start, image, _ in row.spans]
        return row

    # ------------------------------------------------------------------ prompts at inference

    def drawing_prompts(self, prompts: Sequence[str], *, start: str = IMAGE_START) -> Layout:
        """Left-padded rows that end in ``start``; an empty prompt is the null prompt."""
        self.token(start)
        rows = [self._prompt([([TextSegment(prompt)], [])], after=start) for prompt in prompts]
        return self._pad(rows, left=True)

    def answer_prompts(self, chats: Sequence[Sequence[Segment]]) -> Layout:
        """Left-padded rows of chats that end in the assistant's mark, ready for the answer."""
        for chat in chats:
            self._check_marks(chat)
        return self._pad([self._prompt(open_turns(chat)) for chat in chats], left=True)

    def _prompt(self, chat: Sequence[Turn], *, after: str = "") -> _Row:
        row = _Row()
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

    def _write(self, row: _Row, parts: Sequence[Part]) -> None:
        """Append parts: words are tokenised in one piece from image to image."""
        piece: list[Words] = []
        for part in parts:
            if isinstance(part, Place):
                self._write_piece(row, piece)
                row.image(part.image, self.num_positions, target=part.target)
                piece = []
            elif part.text:
                piece.append(part)
        self._write_piece(row, piece)

    def _write_piece(self, row: _Row, piece: Sequence[Words]) -> None:
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

    def _chat(self, row: _Row, chat: Sequence[Turn], *, system: bool = True) -> None:
        for number, (context, answer) in enumerate(chat):
            self._user_turn(row, context, system=system and number == 0)
            for segment in answer:
                self._segment(row, segment)
            if answer:
                row.text([self.tokenizer.eos_token_id], target=True)

    def _user_turn(self, row: _Row, context: Sequence[Segment], *, system: bool) -> None:
        words = self.prompt.system if system else ""
        empty = all(isinstance(s, TextSegment) and not s.text.strip() for s in context)
        # An empty turn loses its separators too: the published null prompt "... USER:ASSISTANT:".
        row.text(self.ids_of(f"{words} {self.prompt.user}" if words else self.prompt.user))
        if not empty:
            for segment in context:
                self._segment(row, segment)
        row.text(self.ids_of(self.prompt.assistant if empty else f" {self.prompt.assistant}"))

    def _segment(self, row: _Row, segment: Segment) -> None:
        if isinstance(segment, TextSegment):
            if segment.text.strip():
                row.text(self.ids_of(" " + segment.text.strip()), target=segment.target)
            return
        single = isinstance(segment, ImageSegment)
        start, end = (IMAGE_START, IMAGE_END) if single else (VIDEO_START, VIDEO_END)
        if not segment.bare:
            row.text([self.token(start)], target=segment.target)
        for index in (segment.index,) if isinstance(segment, ImageSegment) else segment.indices:
            row.image(index, self.num_positions, target=segment.target)
        if not segment.bare:
            row.text([self.token(end)], target=segment.target)

    # ------------------------------------------------------------------ padding

    def _pad(self, rows: Sequence[_Row], *, left: bool) -> Layout:
        length = max(len(row.ids) for row in rows)
        ids, mask, targets = [], [], []
        spans: list[tuple[int, int, int, bool]] = []
        for number, row in enumerate(rows):
            gap = length - len(row.ids)
            before, after = (gap, 0) if left else (0, gap)
            ids.append([0] * before + row.ids + [0] * after)
            mask.append([0] * before + [1] * len(row.ids) + [0] * after)
            targets.append([False] * before + row.targets + [False] * after)
            spans.extend((number, start + before, image, t) for start, image, t in row.spans)
        columns = list(zip(*spans, strict=True)) if spans else [(), (), (), ()]
        return Layout(
            ids=torch.tensor(ids),
            mask=torch.tensor(mask),
            targets=torch.tensor(targets),
            span_rows=torch.tensor(columns[0], dtype=torch.int64),
            span_starts=torch.tensor(columns[1], dtype=torch.int64),
            span_images=torch.tensor(columns[2], dtype=torch.int64),
            span_targets=torch.tensor(columns[3], dtype=torch.bool),
        )
