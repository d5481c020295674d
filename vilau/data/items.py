"""What a source of user data is made of: items to read one by one, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from vilau.data.images import UnreadableImageError, encode_image, encode_png, storable
from vilau.data.shards import ShardSet

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff",
    ".jfif", ".avif", ".ppm", ".pgm", ".heic",
)  # fmt: skip
"""Files taken for images. What Pillow cannot decode among them is listed as unreadable."""
IMAGE_FIELDS = ("file_name", "image", "image_path", "filepath", "path", "filename", "file", "img")
TEXT_FIELDS = ("text", "caption", "captions", "texts", "title", "prompt", "description")


class Stored(Protocol):
    """A place that holds an encoded image. Small, and fit to be sent to a worker process."""

    def read(self) -> bytes:
        """Return the bytes; raises ``OSError`` or ``UnreadableImageError``."""
        ...


@dataclass(frozen=True)
class StoredFile:
    """A file of its own."""

    path: str

    def read(self) -> bytes:
        """Return the bytes."""
        return Path(self.path).read_bytes()


@dataclass(frozen=True)
class StoredInTar:
    """A member of an uncompressed tar file."""

    path: str
    offset: int
    size: int

    def read(self) -> bytes:
        """Return the bytes."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True)
class StoredInShards:
    """A sample of a set that this kit wrote."""

    folder: str
    index: int

    def read(self) -> bytes:
        """Return the bytes."""
        return _shards(self.folder).read([self.index])[0].image


@dataclass(frozen=True)
class StoredByLitdata:
    """A field of a sample that litdata wrote for somebody else."""

    folder: str
    index: int
    field: str

    def read(self) -> bytes:
        """Return the bytes; images that are stored as pixels become PNG."""
        return _as_bytes(litdata_reader(self.folder)[self.index][self.field])


@lru_cache(maxsize=8)
def _shards(folder: str) -> ShardSet:
    return ShardSet(folder)


@lru_cache(maxsize=8)
def litdata_reader(folder: str) -> Any:
    """Open a litdata folder for reading by index."""
    # Imported here: only foreign litdata folders need the reader and all it brings along.
    from litdata import StreamingDataset

    return StreamingDataset(folder, shuffle=False)


def _as_bytes(value: Any) -> bytes:
    """Encoded bytes of an image that litdata gave back as bytes, Pillow image or pixels."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if hasattr(value, "convert"):
        return encode_image(value.convert("RGB"))
    pixels = value.numpy() if hasattr(value, "numpy") else value
    if getattr(pixels, "ndim", 0) == 3 and str(pixels.dtype) == "uint8":
        # litdata gives JPEGs back channels first.
        pixels = pixels.transpose(1, 2, 0) if pixels.shape[0] == 3 else pixels
        if pixels.shape[2] == 3:
            return encode_png(pixels)
    raise UnreadableImageError(f"the field holds {type(value).__name__}, not an image")


@dataclass(frozen=True)
class Item:
    """One sample to be."""

    name: str
    """How a person finds it: path, or path and line or member."""
    texts: tuple[str, ...]
    image: Stored | None
    """None: a text-only conversation."""
    scene: str = ""


def read_image(item: Item, *, image_size: int | None) -> tuple[bytes, str]:
    """Bytes to store for an item and "", or nothing and the reason why it cannot be read."""
    if item.image is None:
        return b"", ""
    try:
        return storable(item.image.read(), image_size=image_size), ""
    except (UnreadableImageError, OSError) as error:
        return b"", str(error)


@dataclass
class Source:
    """All that was found at a path."""

    title: str
    """One line for people: what form, which columns were used."""
    items: list[Item] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """Files whose content is broken: name and reason."""
    unpaired: list[tuple[str, str]] = field(default_factory=list)
    """Images without a caption and captions without their image: name and what is missing."""
    files: list[Path] = field(default_factory=list)
    """Files whose size and time decide whether a prepared copy is still good."""


def first_field(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """The first of ``wanted`` among ``names``, ignoring case, as it is spelt there."""
    by_lower = {name.strip().lower(): name for name in names if isinstance(name, str)}
    return next((by_lower[want] for want in wanted if want in by_lower), None)


def clean_texts(value: Any) -> tuple[str, ...]:
    """Captions in a field: a string or a list of strings, white space collapsed, empty ones gone."""
    values = value if isinstance(value, list | tuple) else [value]
    texts = (" ".join(text.split()) for text in values if isinstance(text, str))
    return tuple(text for text in texts if text)
