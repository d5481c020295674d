"""Rows of tokens: one document a row or several, padded, with what predicts what written out.

B rows, T tokens, P visual positions of an image to be drawn, n image spans, t text tokens that bear loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor


@dataclass
class Layout:
    """A padded batch of rows."""

    ids: Tensor
    """int64 ``(B, T)``; 0 under images and padding (their embeddings come from elsewhere or nowhere)."""
    mask: Tensor
    """int64 ``(B, T)``: 1 where there is a token."""
    targets: Tensor
    """bool ``(B, T)``: text tokens that bear loss; never the first of a document, which nothing predicts."""
    text_rows: Tensor
    """int64 ``(t,)``: row of each text token that bears loss."""
    text_columns: Tensor
    """int64 ``(t,)``: its column. The state in the column before predicts it."""
    span_rows: Tensor
    """int64 ``(n,)``: row of each image span."""
    span_starts: Tensor
    """int64 ``(n,)``: first column of each span."""
    span_sources: Tensor
    """int64 ``(n, P)``: column of the state that predicts the codes of each position: what stands before an
    image (``<im_start>``, ``<vi_start>``, the last position of the frame before) its first, each position the next; or
    each position its own. Without a meaning for images that are read at another number of positions.
    """
    span_images: Tensor
    """int64 ``(n,)``: which image of the batch stands there."""
    span_targets: Tensor
    """bool ``(n,)``: images that bear loss."""
    span_drawn: Tensor
    """bool ``(n,)``: images of the model's own turns, whether they bear loss or not; the others are read alone."""
    documents: Tensor | None = None
    """int64 ``(B, T)``: which document of its row a token belongs to, padding to one of its own.
    None: one document a row."""
    prefixes: Tensor | None = None
    """int64 ``(B, T)``: the document whose tokens a token's document goes on from, its own where it begins
    itself. None: every document begins itself."""
    positions: Tensor | None = None
    """int64 ``(B, T)``: place of a token in its document, what it goes on from included; None where ``documents``
    is."""
    dropped: int = 0
    """Documents left out because an image of theirs would have been cut."""
    cut: int = 0
    """Documents that lost text at their end."""

    def to(self, device: torch.device) -> "Layout":
        """Return the layout with all its tensors on ``device``."""
        moved: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            moved[item.name] = value.to(device) if isinstance(value, Tensor) else value
        return Layout(**moved)


class Span(NamedTuple):
    """Where an image stands."""

    start: int
    length: int
    image: int
    """Which one of the batch."""
    target: bool
    """Whether it bears loss."""
    drawn: bool
    """Whether it is the model's own, bearing loss or not."""

    @property
    def end(self) -> int:
        """The column behind it."""
        return self.start + self.length

    def moved(self, by: int) -> "Span":
        """The same image, so many columns later."""
        return self._replace(start=self.start + by)


@dataclass
class Row:
    """Tokens one after another: a document, or several."""

    ids: list[int] = field(default_factory=list)
    targets: list[bool] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    starts: list[int] = field(default_factory=lambda: [0])
    """First column of each document."""
    prefixes: list[int] = field(default_factory=lambda: [0])
    """For each document the one, before it, whose tokens it goes on from; itself where it begins."""

    def text(self, ids: Sequence[int], *, target: bool = False) -> None:
        """Append text tokens."""
        self.ids.extend(ids)
        self.targets.extend([target] * len(ids))

    def image(self, index: int, num_positions: int, *, target: bool = False) -> None:
        """Append the positions of image ``index`` of the batch."""
        self.spans.append(Span(len(self.ids), num_positions, index, target, drawn=target))
        self.text([0] * num_positions)

    def without_targets(self) -> "Row":
        """Return the row with nothing that bears loss."""
        spans = [span._replace(target=False) for span in self.spans]
        return Row(self.ids, [False] * len(self.ids), spans)

    def shown(self) -> int:
        """Count the tokens up to the end of the last image that stands before all that bears loss.

        0 where there is none, or where what bears loss follows at once: what predicts it then lies in the image.
        """
        bearing = [n for n, target in enumerate(self.targets) if target]
        bearing += [span.start for span in self.spans if span.target]
        first = min(bearing, default=len(self.ids))
        end = max((span.end for span in self.spans if span.end <= first), default=0)
        return end if end < first else 0

    def cut(self, limit: int) -> "Row | None":
        """Return the first ``limit`` tokens; None where an image would be cut."""
        if any(span.end > limit for span in self.spans):
            return None
        return Row(self.ids[:limit], self.targets[:limit], self.spans)


# ---------------------------------------------------------------------- sharing, packing and grouping


def sharing(documents: Sequence[Row], room: int | None = None) -> list[Row]:
    """Join documents that begin with the same images, so that these stand once, before all that goes on from them.

    What is shared ends with the last image before anything that bears loss. Joined rows come in the order of
    their first documents and are no longer than ``room``.
    """
    groups: list[list[Row]] = []
    latest: dict[tuple[Any, ...], tuple[list[Row], int]] = {}
    for document in documents:
        end = document.shown()
        if not end:
            groups.append([document])
            continue
        known = (*document.ids[:end], *(span for span in document.spans if span.start < end))
        group, length = latest.get(known, ([], end))
        length += len(document.ids) - end
        if not group or (room is not None and length > room):
            group, length = [], len(document.ids)
            groups.append(group)
        group.append(document)
        latest[known] = group, length
    return [group[0] if len(group) == 1 else _going_on(group) for group in groups]


def _going_on(documents: Sequence[Row]) -> Row:
    """What the documents show, and then the rest of each."""
    first = documents[0]
    end = first.shown()
    row = Row(first.ids[:end], [False] * end, [span for span in first.spans if span.start < end])
    for document in documents:
        moved = len(row.ids) - end
        row.starts.append(len(row.ids))
        row.prefixes.append(0)
        row.ids += document.ids[end:]
        row.targets += document.targets[end:]
        row.spans += [span.moved(moved) for span in document.spans if span.start >= end]
    return row


def similar(lengths: Sequence[int], groups: int) -> list[list[int]]:
    """Part rows into ``groups`` of similar length (one each where there are fewer), so that little is padding.

    Of all such partings this has the fewest tokens when each group is padded to its longest; the longest rows
    come first. Takes time in proportion to groups times the square of the number of rows.
    """
    order = sorted(range(len(lengths)), key=lambda n: -lengths[n])
    sizes = [lengths[n] for n in order]
    # best[j]: fewest tokens of the rows from j on in so many groups, and where the first of these ends.
    best: list[tuple[int, list[int]]] = [
        ((len(sizes) - j) * size, [len(sizes)]) for j, size in enumerate(sizes)
    ]
    for count in range(2, min(groups, len(sizes)) + 1):
        best = [
            min(
                ((k - j) * sizes[j] + best[k][0], [k, *best[k][1]])
                for k in range(j + 1, len(sizes) - count + 2)
            )
            for j in range(len(sizes) - count + 1)
        ]
    ends = best[0][1]
    return [order[a:b] for a, b in zip([0, *ends], ends, strict=False)]


def first_fit(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Share documents of ``lengths`` out among rows of ``room`` tokens, few rows and always the same ones.

    The longest comes first and each goes into the first row that has room for it (first-fit decreasing: never
    more than 11/9 of the fewest rows, and one). Returns the documents of each row in their own order.
    """
    rows: list[list[int]] = []
    left: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        fits = (row for row, free in enumerate(left) if lengths[number] <= free)
        row = next(fits, len(rows))
        if row == len(rows):
            rows.append([])
            left.append(room)
        rows[row].append(number)
        left[row] -= lengths[number]
    return [sorted(row) for row in rows]


def packed(documents: Sequence[Row], room: int) -> list[Row]:
    """Join documents, or rows of documents, to rows of at most ``room`` tokens; none is longer than that."""
    lengths = [len(document.ids) for document in documents]
    return [_joined([documents[n] for n in row]) for row in first_fit(lengths, room)]


def _joined(documents: Sequence[Row]) -> Row:
    joined = Row(starts=[], prefixes=[])
    for document in documents:
        at, before = len(joined.ids), len(joined.starts)
        joined.starts += [at + start for start in document.starts]
        joined.prefixes += [before + prefix for prefix in document.prefixes]
        joined.ids += document.ids
        joined.targets += document.targets
        joined.spans += [span.moved(at) for span in document.spans]
    return joined


# ---------------------------------------------------------------------- padding


def padded(
    rows: Sequence[Row],
    num_positions: int,
    *,
    left: bool,
    isolated: bool = False,
    lag: int = 1,
) -> Layout:
    """Pad rows to one length; ``isolated`` rows tell their documents apart (padding is then on the right).

    Rows of several documents always are. ``lag`` is how many columns before a position of an image that is drawn
    (``num_positions`` of them) the state stands that predicts it.
    """
    length = max(len(row.ids) for row in rows)
    ids, mask, targets = [], [], []
    numbers: list[int] = []
    spans: list[Span] = []
    for number, row in enumerate(rows):
        gap = length - len(row.ids)
        before, after = (gap, 0) if left else (0, gap)
        ids.append([0] * before + row.ids + [0] * after)
        mask.append([0] * before + [1] * len(row.ids) + [0] * after)
        targets.append([False] * before + row.targets + [False] * after)
        numbers += [number] * len(row.spans)
        spans += [span.moved(before) for span in row.spans]
    bearing = torch.tensor(targets)
    text_rows, text_columns = bearing.nonzero(as_tuple=True)
    span_starts = torch.tensor([span.start for span in spans], dtype=torch.int64)
    layout = Layout(
        ids=torch.tensor(ids),
        mask=torch.tensor(mask),
        targets=bearing,
        text_rows=text_rows,
        text_columns=text_columns,
        span_rows=torch.tensor(numbers, dtype=torch.int64),
        span_starts=span_starts,
        span_sources=span_starts[:, None] - lag + torch.arange(num_positions),
        span_images=torch.tensor([span.image for span in spans], dtype=torch.int64),
        span_targets=torch.tensor([span.target for span in spans], dtype=torch.bool),
        span_drawn=torch.tensor([span.drawn for span in spans], dtype=torch.bool),
    )
    if isolated or any(len(row.starts) > 1 for row in rows):
        told = [_told_apart(row, length) for row in rows]
        layout.documents, prefixes, layout.positions = map(torch.stack, zip(*told, strict=True))
        if any(row.prefixes != list(range(len(row.prefixes))) for row in rows):
            layout.prefixes = prefixes
    return layout


def _told_apart(row: Row, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Document, prefix and place of every token, ``(T,)`` each."""
    starts, prefixes = list(row.starts), list(row.prefixes)
    if len(row.ids) < length:
        # Padding begins like a document: nothing of it may be seen, and its own states must be finite.
        starts.append(len(row.ids))
        prefixes.append(len(prefixes))
    lengths = [end - start for start, end in pairwise((*starts, length))]
    before = [0 if p == n else lengths[p] for n, p in enumerate(prefixes)]
    documents = torch.repeat_interleave(torch.arange(len(starts)), torch.tensor(lengths))
    first = torch.tensor(starts) - torch.tensor(before)
    return documents, torch.tensor(prefixes)[documents], torch.arange(length) - first[documents]
