"""Several images and clips as the one stored field of a sample, and where they stand among its texts.

A sample about one image keeps that image's bytes as they are. Where a document has several, or one in the
middle of a text, or a clip, the field is a bundle: a line that tells it, a JSON list of sizes (a number for
an image, a list of numbers for the frames of a clip), then the encoded images one after another. Chunks,
manifests and sets of single images do not know of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import count

from vilau.errors import DataError

MARK = "\ufffc"
"""Stands in a bundle's texts where the next image or clip is: Unicode's own sign for an object in a text."""
BEGIN = b"vilau media 1\n"
"""No image file begins so."""

Medium = bytes | tuple[bytes, ...]
"""An encoded image, or the encoded frames of a clip."""


def pack(media: Sequence[Medium]) -> bytes:
    """Return the field that holds ``media``."""
    sizes = [len(one) if isinstance(one, bytes) else list(map(len, one)) for one in media]
    parts = [part for one in media for part in ((one,) if isinstance(one, bytes) else one)]
    return b"".join((BEGIN, json.dumps(sizes, separators=(",", ":")).encode(), b"\n", *parts))


def is_bundle(field: bytes) -> bool:
    """Whether a stored field is a bundle rather than an image."""
    return field.startswith(BEGIN)


def unpack(field: bytes) -> list[Medium]:
    """Return what ``pack`` was given; raises ``DataError`` for a damaged bundle."""
    start = field.find(b"\n", len(BEGIN)) + 1
    try:
        sizes = json.loads(field[len(BEGIN) : start])
        flat = [n for size in sizes for n in (size if isinstance(size, list) else [size])]
        whole = len(field) - start == sum(flat)
    except (ValueError, TypeError):
        whole = False
    if not whole:
        raise DataError("a bundle of images is damaged; prepare its set again.")

    def taken() -> Iterator[bytes]:
        at = start
        for size in flat:
            yield field[at : at + size]
            at += size

    parts = taken()
    return [
        tuple(next(parts) for _ in size) if isinstance(size, list) else next(parts)
        for size in sizes
    ]


def without_marks(texts: Sequence[str], gone: set[int]) -> tuple[str, ...]:
    """Take the marks with the numbers ``gone`` out of texts, and the white space they leave double."""
    numbers = count()

    def kept(text: str) -> str:
        first, *rest = text.split(MARK)
        pieces = [first, *(piece if next(numbers) in gone else MARK + piece for piece in rest)]
        return " ".join("".join(pieces).split())

    return tuple(map(kept, texts))
