"""Places that hold encoded images: files, members of tars, rows of tables, samples of shards, videos."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from vilau.data.media.images import UnreadableImageError, encode_image, encode_png
from vilau.data.shards import ShardSet
from vilau.data.sources.parquet import encoded_image


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
class StoredInParquet:
    """An encoded image in a column of a parquet file, whose row groups can only be read whole."""

    path: str
    group: int
    row: int
    column: str

    def read(self) -> bytes:
        """Return the bytes."""
        return encoded_image(self.path, self.group, self.row, self.column)


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


@dataclass(frozen=True)
class StoredClip:
    """A video file, an animation or a folder of frames; which frames are taken is decided when it is read."""

    path: str

    def read(self) -> bytes:
        """A clip is no encoded image: ``vilau.data.preparing.encoding`` takes its frames."""
        raise UnreadableImageError(f"{self.path} is a clip where an image is needed")


@dataclass(frozen=True)
class StoredMedia:
    """The images and clips of a document, in the order of the marks in its texts."""

    parts: tuple[Stored, ...]
    spare: bool = False
    """A document keeps its texts when one of these cannot be read; else it is left out whole."""

    def read(self) -> bytes:
        """Several images are no encoded image: they are read part by part."""
        raise UnreadableImageError("a document of several images where an image is needed")


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


_FORMS = {
    form.__name__: form
    for form in (
        StoredFile, StoredInTar, StoredInParquet, StoredInShards, StoredByLitdata, StoredClip,
    )
}  # fmt: skip


def block_of(stored: Stored | None) -> Hashable:
    """What has to be read whole to read ``stored``; None where it can be read alone."""
    return (stored.path, stored.group) if isinstance(stored, StoredInParquet) else None


def to_plain(stored: Stored | None) -> list[Any] | None:
    """Return a place as what JSON can hold."""
    if stored is None:
        return None
    if isinstance(stored, StoredMedia):
        return [StoredMedia.__name__, stored.spare, *map(to_plain, stored.parts)]
    return [type(stored).__name__, *astuple(stored)]  # type: ignore[call-overload]


def from_plain(plain: list[Any] | None) -> Stored | None:
    """Return the place that ``to_plain`` wrote."""
    if plain is None:
        return None
    if plain[0] == StoredMedia.__name__:
        parts = (from_plain(part) for part in plain[2:])
        return StoredMedia(tuple(part for part in parts if part is not None), plain[1])
    form: Stored = _FORMS[plain[0]](*plain[1:])
    return form
