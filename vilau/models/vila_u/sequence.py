"""From documents to token rows: prompts, image places, and what bears loss (VILA-U section 3.2, reference 3.2).

B rows, T tokens, P visual positions per image, n image spans.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vilau.errors import DataError
from vilau.models.vila_u.config import PromptConfig
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
    """int64 ``(n,)``: first column of each span; the column before it holds ``<im_start>``."""
    span_images: Tensor
    """int64 ``(n,)``: which image of the batch stands there."""
    span_targets: Tensor
    """bool ``(n,)``: images to be drawn."""

    def to(self, device: torch.device) -> "Layout":
        """Move all tensors."""
        return Layout(**{name: value.to(device) for name, value in self.__dict__.items()})


@dataclass
class _Row:
    ids: list[int] = field(default_factory=list)
    targets: list[bool] = field(default_factory=list)
    spans: list[tuple[int, int, bool]] = field(default_factory=list)  # start, image, target

    def text(self, ids: Sequence[int], *, target: bool = False) -> None:
        self.ids.extend(ids)
        self.targets.extend([target] * len(ids))


class SequenceLayout:
    """Lays documents out as rows of one tokenizer's ids."""

    def __init__(self, tokenizer: Any, prompt: PromptConfig, *, num_positions: int) -> None:
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.num_positions = num_positions
        self._pieces: dict[str, list[int]] = {}

    def ids_of(self, text: str) -> list[int]:
        """Token ids of a piece of text, without special tokens (remembered: prompts repeat)."""
        if text not in self._pieces:
            if len(self._pieces) > 100_000:
                self._pieces.clear()
            self._pieces[text] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._pieces[text]

    def token(self, name: str) -> int:
        """The id of a special token such as ``<im_start>``."""
        return self.tokenizer.convert_tokens_to_ids(name)

    def opening(self) -> list[int]:
        """Ids every row starts with: BOS."""
        return [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]

    # ------------------------------------------------------------------ documents

    def lay_out(self, documents: Sequence[Document]) -> Layout:
        """Lay out documents as right-padded rows."""
        return self._pad([self._row(d) for d in documents], left=False)

    def _row(self, document: Document) -> _Row:
        row = _Row()
        row.text(self.opening())
        if not document.chat:
            for segment in document.segments:
                self._segment(row, segment)
            return row
        for number, (context, answer) in enumerate(turns(document.segments)):
            self._user_turn(row, context, first=number == 0)
            for segment in answer:
                self._segment(row, segment)
            row.text([self.tokenizer.eos_token_id], target=True)
        return row

    def _user_turn(self, row: _Row, context: Sequence[Segment], *, first: bool) -> None:
        system = self.prompt.system if first else ""
        empty = all(isinstance(s, TextSegment) and not s.text.strip() for s in context)
        # An empty turn loses its separators too: the published null prompt "... USER:ASSISTANT:".
        row.text(self.ids_of(f"{system} {self.prompt.user}" if system else self.prompt.user))
        if not empty:
            for segment in context:
                self._segment(row, segment)
        row.text(self.ids_of(self.prompt.assistant if empty else f" {self.prompt.assistant}"))

    def _segment(self, row: _Row, segment: Segment) -> None:
        if isinstance(segment, TextSegment):
            if segment.text.strip():
                row.text(self.ids_of(" " + segment.text.strip()), target=segment.target)
            return
        row.text([self.token("<im_start>")], target=segment.target)
        row.spans.append((len(row.ids), segment.index, segment.target))
        row.text([0] * self.num_positions)
        row.text([self.token("<im_end>")], target=segment.target)

    # ------------------------------------------------------------------ prompts at inference

    def drawing_prompts(self, prompts: Sequence[str]) -> Layout:
        """Left-padded rows that end in ``<im_start>``; an empty prompt is the null prompt."""
        rows = []
        for prompt in prompts:
            row = _Row()
            row.text(self.opening())
            self._user_turn(row, (TextSegment(prompt),), first=True)
            row.text([self.token("<im_start>")])
            rows.append(row)
        return self._pad(rows, left=True)

    def question_prompts(self, prompts: Sequence[str], *, with_images: bool) -> Layout:
        """Left-padded rows that end in the assistant's mark; row i shows image i."""
        rows = []
        for index, prompt in enumerate(prompts):
            row = _Row()
            row.text(self.opening())
            image: tuple[Segment, ...] = (ImageSegment(index),) if with_images else ()
            self._user_turn(row, (*image, TextSegment(prompt)), first=True)
            rows.append(row)
        return self._pad(rows, left=True)

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


def turns(segments: Sequence[Segment]) -> list[tuple[list[Segment], list[Segment]]]:
    """Split a chat into (user segments, assistant segments) turns.

    Raises ``DataError`` for a chat without a target, which could teach nothing.
    """
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
    if not found or not found[-1][1]:
        raise DataError(
            "a chat document ends without a target segment; give its last turn an answer."
        )
    return found
