"""Shards: the one stored form of every data set, litdata chunks beside a manifest of our own.

A sample is the tuple ``(image, texts, scene)``: encoded PNG or JPEG bytes (empty for text-only
samples; codes in a set that was tokenized), a JSON list of strings, and the drawn world's ground
truth as JSON (else ""). A tuple, because litdata would store a dict as an Arrow table wherever
pyarrow happens to be installed, and the same data should give the same files everywhere. litdata
keeps no checksums: the manifest has sizes, compared when a set is opened, and SHA-256 sums.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from vilau.data.cache import disk_errors, temporary_folder
from vilau.data.chunks import INDEX, Chunk, Head, Record, head_at, record_at
from vilau.data.codes import Coding
from vilau.errors import DataError

MANIFEST = "manifest.json"
UNREADABLE = "unreadable.txt"
"""Lists what was skipped when a set was prepared: name, tab, reason."""
FORMAT_VERSION = 1
CHUNK_BYTES = 4 << 20
"""Small chunks: a batch drawn at random touches several, and a short set still has a few."""


MAX_MAPS = 512
"""Chunks kept mapped at a time: more than a shuffling window, far less than systems allow."""


@dataclass(frozen=True)
class Manifest:
    """What a set holds and where it came from."""

    kind: str
    """``image_text``, ``instructions`` or ``classes``."""
    count: int
    chunks: tuple[Chunk, ...]
    source: str
    spec: dict[str, Any]
    """How the set was made: the world's specification, or the options of ``vilau data prepare``."""
    versions: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @staticmethod
    def read(folder: Path) -> Manifest:
        """Read ``folder/manifest.json``.

        Raises:
            DataError: the file is missing, damaged or of another format version.
        """
        path = folder / MANIFEST
        if not folder.is_dir():
            raise DataError(
                f"{folder} does not exist; write it with `vilau data prepare SRC {folder}`."
            )
        if not path.exists():
            raise DataError(
                f"{folder} holds no {MANIFEST}, so it is no finished shard folder; "
                f"write one with `vilau data prepare {folder} DST`."
            )
        try:
            content = json.loads(path.read_text())
            found = content["format_version"]
            content["chunks"] = tuple(Chunk(**chunk) for chunk in content["chunks"])
            manifest = Manifest(**content)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} is damaged ({error}); delete {folder} and write it again."
            ) from error
        if found != FORMAT_VERSION:
            raise DataError(
                f"{path} has format version {found}, this vilau reads {FORMAT_VERSION}; "
                f"delete {folder} and write it again."
            )
        return manifest


class ShardWriter:
    """Writes a set in one step: into a hidden folder beside ``folder``, renamed when complete.

    Use as a context manager; an exception inside leaves nothing behind.

    Args:
        folder: the folder to bring into being; must not exist.
        kind: see ``Manifest``.
        source: where the samples come from, for people.
        spec: how they were made, for people and programs.
        chunk_bytes: size at which a new chunk begins.

    Raises:
        DataError: ``folder`` exists, cannot be written, or the disk is full.
    """

    def __init__(
        self,
        folder: Path,
        *,
        kind: str,
        source: str,
        spec: dict[str, Any],
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self.folder, self.kind, self.source, self.spec = folder, kind, source, spec
        self.chunk_bytes = chunk_bytes
        self.count = 0

    def __enter__(self) -> Self:
        refuse_existing(self.folder)
        with disk_errors(self.folder):
            self._temporary = temporary_folder(self.folder)
            self._temporary.mkdir(parents=True)
        # Imported here: it brings torch along, which reading and the workers do without.
        from litdata.streaming.writer import BinaryWriter

        self._writer = BinaryWriter(str(self._temporary), chunk_bytes=self.chunk_bytes)
        return self

    def add(self, record: Record) -> None:
        """Append one sample; raises ``DataError`` when the disk is full."""
        texts = json.dumps(list(record.texts), ensure_ascii=False)
        with disk_errors(self.folder):
            self._writer[self.count] = (bytes(record.image), texts, record.scene)
        self.count += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                with disk_errors(self.folder):
                    self._finish()
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _finish(self) -> None:
        self._writer.done()
        self._writer.merge()
        chunks = _chunks_of(self._temporary)
        write_manifest(
            self._temporary, kind=self.kind, chunks=chunks, source=self.source, spec=self.spec
        )
        os.replace(self._temporary, self.folder)


def write_manifest(
    folder: Path, *, kind: str, chunks: Sequence[Chunk], source: str, spec: dict[str, Any]
) -> None:
    """Write the manifest: it comes last and is the mark of a finished folder."""
    manifest = Manifest(
        kind=kind,
        count=sum(chunk.count for chunk in chunks),
        chunks=tuple(chunks),
        source=source,
        spec=spec,
        versions={"litdata": version("litdata"), "vilau": version("vilau")},
    )
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1) + "\n")


def refuse_existing(folder: Path) -> None:
    """Raise ``DataError`` if ``folder`` exists: nothing is ever written into or over a folder."""
    if folder.exists():
        raise DataError(f"{folder} already exists; delete it or name another folder.")


class ShardSet:
    """A finished set, read by index.

    Chunks are read where they lie, through memory maps: with litdata's own reader a sample costs
    five times as much in a shuffled order. Opening checks that every chunk has the size the
    manifest states. A set may be handed to loader workers: maps are made where they are used.

    Raises:
        DataError: the folder is no finished set, or a file is missing or has another size.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.manifest = Manifest.read(self.folder)
        self.coding = Coding.of(self.manifest.spec, self.folder)
        for chunk in self.manifest.chunks:
            self._check_size(chunk)
        self._ends = np.cumsum(self.chunk_sizes)
        self._maps: OrderedDict[int, mmap.mmap] = OrderedDict()

    def __len__(self) -> int:
        return self.manifest.count

    @property
    def chunk_sizes(self) -> list[int]:
        """Number of samples in each chunk, in index order."""
        return [chunk.count for chunk in self.manifest.chunks]

    def read(self, indices: Sequence[int] | np.ndarray) -> list[Record]:
        """Return the samples at ``indices``, in that order."""
        chunks = np.searchsorted(self._ends, indices, side="right")
        return [
            record_at(self._map(chunk), int(index - self._ends[chunk]))
            for index, chunk in zip(indices, chunks.tolist(), strict=True)
        ]

    def heads(self) -> Iterator[Head]:
        """Yield what is known of every sample beside its image, in index order."""
        for chunk, size in enumerate(self.chunk_sizes):
            content = self._map(chunk)
            yield from (head_at(content, index) for index in range(size))

    def verify(self) -> None:
        """Compare every chunk with its SHA-256 sum; raises ``DataError`` if one differs."""
        for chunk in self.manifest.chunks:
            if _sha256(self.folder / chunk.file) != chunk.sha256:
                raise DataError(
                    f"{self.folder / chunk.file} is damaged: its SHA-256 differs from the "
                    f"manifest; delete {self.folder} and write it again."
                )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": OrderedDict()}

    def _map(self, chunk: int) -> mmap.mmap:
        if chunk not in self._maps:
            with (self.folder / self.manifest.chunks[chunk].file).open("rb") as file:
                self._maps[chunk] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            if len(self._maps) > MAX_MAPS:
                self._maps.popitem(last=False)[1].close()
        return self._maps[chunk]

    def _check_size(self, chunk: Chunk) -> None:
        path = self.folder / chunk.file
        size = path.stat().st_size if path.exists() else 0
        if size != chunk.bytes:
            raise DataError(
                f"{path} holds {size} bytes where the manifest says {chunk.bytes}; "
                f"delete {self.folder} and write it again."
            )


def check_kind(shards: ShardSet, kind: str, *, coded: bool = False) -> None:
    """Raise ``DataError`` unless the set holds samples of ``kind``, with images (or codes where ``coded`` allows)."""
    found = shards.manifest.kind
    if found != kind:
        raise DataError(
            f"{shards.folder} holds samples of kind {found} where {kind} is needed; give data of "
            "that kind."
        )
    if shards.coding is not None and not coded:
        raise DataError(
            f"{shards.folder} holds codes of images where pixels are needed; give the set that it was encoded "
            f"from ({shards.manifest.source})."
        )


def _chunks_of(folder: Path) -> tuple[Chunk, ...]:
    listed = json.loads((folder / INDEX).read_text())["chunks"]
    return tuple(
        Chunk(
            file=item["filename"],
            count=item["chunk_size"],
            bytes=(folder / item["filename"]).stat().st_size,
            sha256=_sha256(folder / item["filename"]),
        )
        for item in listed
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
