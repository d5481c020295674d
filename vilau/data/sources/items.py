"""What a source of user data is made of: items to read one by one, and what is wrong with it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from vilau.data.sources.stored import Stored

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff",
    ".jfif", ".avif", ".ppm", ".pgm", ".heic",
)  # fmt: skip
"""Files taken for images. What Pillow cannot decode among them is listed as unreadable."""
IMAGE_FIELDS = ("file_name", "image", "image_path", "filepath", "path", "filename", "file", "img")
ENCODED_FIELDS = ("jpg", "jpeg", "png", "webp", "image_bytes", "img_bytes")
"""Columns that hold encoded images, never paths; img2dataset names one after the encoding."""
URL_FIELDS = ("url", "image_url", "img_url")
VIDEO_FIELDS = ("video", "video_path", "clip", "path", "file_name", "filename", "file")
TEXT_FIELDS = ("text", "caption", "captions", "texts", "title", "prompt", "description")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f]")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Item:
    """One sample to be."""

    name: str
    """How a person finds it: path, or path and line or member."""
    texts: tuple[str, ...]
    """Captions, the turns of a conversation, or a document; empty where the caption is. Where ``image`` is
    ``StoredMedia``, a ``MARK`` of ``vilau.data.bundle`` for each of its parts."""
    image: Stored | None
    """None: text alone."""
    scene: str = ""
    columns: Mapping[str, Any] | None = field(default=None, compare=False)
    """Other columns of its row, where a filter asks for them."""


class Unit(Protocol):
    """A piece of a source that one process lists. Small, and fit to be sent to a worker process."""

    def listed(self, columns: Sequence[str]) -> Source:
        """Return what the piece holds, items with those of the named ``columns`` that they have."""
        ...


@dataclass
class Source:
    """All that was found at a path: items listed already, and pieces that are still to be listed."""

    title: str
    """One line for people: what form, which columns were used."""
    items: list[Item] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """Files whose content is broken: name and reason."""
    unpaired: list[tuple[str, str]] = field(default_factory=list)
    """Images without a caption and captions without their image: name and what is missing."""
    lost: list[tuple[str, str]] = field(default_factory=list)
    """Missing images that their documents, which are among ``items``, can do without."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Samples that are none of ``items`` on purpose, by reason."""
    images_left_out: dict[str, int] = field(default_factory=dict)
    """Images that their documents do without on purpose, by reason."""
    files: list[Path] = field(default_factory=list)
    """Files whose size and time decide whether a prepared copy is still good."""
    units: list[Unit] = field(default_factory=list)
    """Pieces beyond ``items``."""

    def state(self) -> str:
        """Hash of the path, size and time of every file, and of the title."""
        digest = hashlib.sha256(os.fsencode(self.title))
        for file in self.files:
            try:
                found = os.stat(file)
            except OSError:
                continue
            where = os.path.abspath(file)
            digest.update(os.fsencode(f"{where}\n{found.st_size} {found.st_mtime_ns}\n"))
        return digest.hexdigest()


def first_field(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """The first of ``wanted`` among ``names``, ignoring case, as it is spelt there."""
    by_lower = {name.strip().lower(): name for name in names if isinstance(name, str)}
    return next((by_lower[want] for want in wanted if want in by_lower), None)


def clean_texts(value: Any) -> tuple[str, ...]:
    """Captions in a field: a string or a list of strings, each cleaned, empty ones gone."""
    values = value if isinstance(value, list | tuple) else [value]
    texts = (clean_text(text) for text in values if isinstance(text, str))
    return tuple(text for text in texts if text)


def clean_text(text: str) -> str:
    """Collapse white space in a ``whole_text``. All else stays, in any script and at any length: what
    is too long for a text encoder, its tokenizer cuts."""
    return " ".join(whole_text(text).split())


def whole_text(text: str) -> str:
    """Turn NUL and other control characters into spaces, and halves of surrogate pairs, which JSON can
    hold and UTF-8 cannot, into U+FFFD."""
    return _CONTROL.sub(" ", _SURROGATE.sub("\ufffd", text))
