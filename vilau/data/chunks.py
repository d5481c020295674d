"""Chunks, the files of a set, in litdata's format; read and written without litdata.

Worker processes that write them need no torch then, and reading in a shuffled order costs a fifth.

A chunk is ``uint32 n``, ``uint32 offsets[n + 1]``, then the samples; a sample is the ``uint32``
sizes of its fields, then the fields. ``vilau.data.shards`` says what the fields are.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INDEX = "index.json"
_NUMBER, _OFFSETS, _SIZES = struct.Struct("<I"), struct.Struct("<2I"), struct.Struct("<3I")


@dataclass(frozen=True, slots=True)
class Record:
    """One stored sample."""

    image: bytes
    """Encoded PNG or JPEG; empty for a text-only sample; in a tokenized set the codes (``vilau.data.codes``)."""
    texts: tuple[str, ...]
    """Captions, or the turns of a conversation (question, answer, question, ...)."""
    scene: str = ""
    """Scene of the drawn world as JSON; empty for other data."""


@dataclass(frozen=True)
class Chunk:
    """One file of a set."""

    file: str
    count: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Head:
    """A stored sample without its image."""

    texts: tuple[str, ...]
    scene: str
    has_image: bool


# ------------------------------------------------------------------ reading


def record_at(chunk: mmap.mmap, index: int) -> Record:
    """Read sample ``index`` (negative: from the end) of a chunk."""
    image_at, texts_at, scene_at, end = _places(chunk, index)
    return Record(
        image=chunk[image_at:texts_at],
        texts=tuple(json.loads(chunk[texts_at:scene_at])),
        scene=chunk[scene_at:end].decode(),
    )


def head_at(chunk: mmap.mmap, index: int) -> Head:
    """Read sample ``index`` of a chunk without its image."""
    image_at, texts_at, scene_at, end = _places(chunk, index)
    texts = tuple(json.loads(chunk[texts_at:scene_at]))
    return Head(texts, chunk[scene_at:end].decode(), texts_at > image_at)


def _places(chunk: mmap.mmap, index: int) -> tuple[int, int, int, int]:
    """Where a sample's three fields begin and the sample ends."""
    (count,) = _NUMBER.unpack_from(chunk, 0)
    start, end = _OFFSETS.unpack_from(chunk, 4 + 4 * (index % count))
    sizes = _SIZES.unpack_from(chunk, start)
    image_at = start + _SIZES.size
    texts_at = image_at + sizes[0]
    return image_at, texts_at, texts_at + sizes[1], end


# ------------------------------------------------------------------ writing


class ChunkWriter:
    """Writes samples to ``chunk-<part>-<n>.bin`` files, byte for byte as litdata's writer does.

    Args:
        folder: where the chunks go; a file of the same name is replaced.
        part: number in the files' names; litdata has the rank of a writer there.
        chunk_bytes: a sample that would make a chunk's samples larger begins the next one.
    """

    def __init__(self, folder: Path, part: int, *, chunk_bytes: int) -> None:
        self._folder, self._part, self._chunk_bytes = folder, part, chunk_bytes
        self._samples: list[bytes] = []
        self._bytes = 0
        self._chunks: list[Chunk] = []

    def add(self, record: Record) -> None:
        """Append one sample; raises ``OSError``."""
        texts = json.dumps(list(record.texts), ensure_ascii=False).encode()
        fields = (bytes(record.image), texts, record.scene.encode())
        sample = b"".join((_SIZES.pack(*map(len, fields)), *fields))
        if self._samples and self._bytes + len(sample) > self._chunk_bytes:
            self._flush()
        self._samples.append(sample)
        self._bytes += len(sample)

    def done(self) -> tuple[Chunk, ...]:
        """Write what is left and return all chunks; on return they are on the disk."""
        if self._samples:
            self._flush()
        return tuple(self._chunks)

    def _flush(self) -> None:
        header = 4 + 4 * (len(self._samples) + 1)
        offsets, end = [header], header
        for sample in self._samples:
            end += len(sample)
            offsets.append(end)
        numbers = struct.pack(f"<{len(offsets) + 1}I", len(self._samples), *offsets)
        data = b"".join((numbers, *self._samples))
        name = f"chunk-{self._part}-{len(self._chunks)}.bin"
        write_whole(self._folder / name, data)
        digest = hashlib.sha256(data).hexdigest()
        self._chunks.append(Chunk(name, len(self._samples), len(data), digest))
        self._samples, self._bytes = [], 0


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is either complete under its name or not there, also after a power cut."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_index(folder: Path, chunks: Sequence[Chunk], *, chunk_bytes: int, mark: str) -> None:
    """Write the ``index.json`` by which litdata's own readers find the chunks.

    Args:
        folder: the folder of the chunks.
        chunks: all of them, in order.
        chunk_bytes: size at which a new chunk began.
        mark: stands where litdata writes the time, so that equal sets have equal files.
    """
    listed = [
        {"chunk_bytes": c.bytes, "chunk_size": c.count, "dim": None, "filename": c.file}
        for c in chunks
    ]
    index = {"chunks": listed, "config": _litdata_config(chunk_bytes), "updated_at": mark}
    write_whole(folder / INDEX, json.dumps(index, sort_keys=True).encode())


def _litdata_config(chunk_bytes: int) -> dict[str, Any]:
    # Imported here: it brings torch along, which only this last step needs.
    from litdata.streaming.writer import BinaryWriter

    with tempfile.TemporaryDirectory() as folder:
        writer = BinaryWriter(folder, chunk_bytes=chunk_bytes)
        writer[0] = (b"", "", "")
        config: dict[str, Any] = writer.get_config()
    return config
