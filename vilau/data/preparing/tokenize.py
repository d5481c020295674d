"""A prepared set once more with codes in the place of its images: ``vilau data tokenize``.

Chunk by chunk: chunk n of the new set holds the samples of the source's chunk n, so that training goes through both in
the same order, and what is finished survives a kill.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from vilau.data.bundle import is_bundle, pack, unpack
from vilau.data.cache import disk_errors, short_hash
from vilau.data.chunks import Chunk, ChunkWriter, Record, write_index
from vilau.data.codes import CODES, Coding
from vilau.data.media.images import ImageTransform
from vilau.data.pairs import load_picture
from vilau.data.preparing.workers import usable_cores
from vilau.data.preparing.workplace import Workplace, workplace_of, write_record
from vilau.data.progress import Bar
from vilau.data.shards import CHUNK_BYTES, MANIFEST, ShardSet, refuse_existing, write_manifest
from vilau.data.sources.forms import CLASSES
from vilau.errors import DataError

Encode = Callable[[np.ndarray], np.ndarray]
"""Takes uint8 ``(B, H, W, 3)``, returns the codes, integers ``(B, P, D)``."""
WORK_VERSION = 1
"""Raised when what lies in a workplace, or what is made of an image, changes."""
WHOLE_CHUNK_BYTES = 1 << 31
"""Codes of a chunk are one file; places in it are 32-bit numbers."""


@dataclass(frozen=True)
class Tokenized:
    """What came of it."""

    folder: Path
    source: str
    coding: Coding
    count: int
    megabytes: float
    already: bool = False
    """The folder held all of it before."""

    def summary(self) -> str:
        """A few lines for people."""
        done = f"{self.folder} holds them already; nothing was done"
        written = f"written to {self.folder}, {self.megabytes:.2f} MB"
        return (
            f"{self.count} samples from {self.source}\n{self.coding.title}\n"
            f"{done if self.already else written}"
        )


def mark_of(source: ShardSet, coding: Coding) -> str:
    """12 hex digits over all that decides what the codes are: the source's files, the tower and its number format."""
    # Where the tower lies says nothing of its codes.
    of = asdict(replace(coding, encoded_by=""))
    return short_hash([WORK_VERSION, [asdict(chunk) for chunk in source.manifest.chunks], of])


def unfinished(source: ShardSet, folder: Path, coding: Coding) -> Path | None:
    """Where the finished chunks of interrupted work lie, if there are any."""
    place = workplace_of(folder, mark_of(source, coding))
    return place if place.exists() else None


def tokenize(
    source: ShardSet, folder: Path, coding: Coding, encode: Encode, *, batch_size: int
) -> Tokenized:
    """Write the samples of ``source`` to ``folder`` with codes in the place of their images.

    Every image, and every frame of a clip, is scaled by its short side, cut in the centre to ``coding.image_size`` and
    encoded once; texts and scenes stay as they are, samples without an image have no codes.

    The same call gives the same files, however often it was interrupted: what was finished is found again in
    ``.<folder>.preparing-<mark>`` beside the folder. A folder that holds the result already is left as it is.

    Args:
        source: a set of images.
        folder: the set to be.
        coding: what ``encode`` gives, for the manifest.
        encode: the tower.
        batch_size: images that it is given at a time; at most so many, since a batch ends with its chunk.

    Raises:
        DataError: the source holds codes or classes, or an image that cannot be read; ``folder`` was made of something
            else or cannot be written; or the disk is full.
    """
    _check_source(source)
    mark = mark_of(source, coding)
    if folder.exists():
        return _done_before(source, folder, mark)
    with Workplace(folder, mark) as work:
        chunks = _write_chunks(source, work, coding, encode, batch_size)
        spec = {**source.manifest.spec, CODES: coding.to_dict(), "made_from": mark}
        with disk_errors(folder):
            write_index(work.set, chunks, chunk_bytes=CHUNK_BYTES, mark=mark)
            kind, title = source.manifest.kind, source.manifest.source
            write_manifest(work.set, kind=kind, chunks=chunks, source=title, spec=spec)
        refuse_existing(folder)
        work.deliver()
    return _result(source, ShardSet(folder))


def _result(source: ShardSet, made: ShardSet, *, already: bool = False) -> Tokenized:
    assert made.coding is not None
    megabytes = sum(chunk.bytes for chunk in made.manifest.chunks) / 1e6
    title = source.manifest.source
    return Tokenized(made.folder, title, made.coding, len(made), megabytes, already=already)


def _done_before(source: ShardSet, folder: Path, mark: str) -> Tokenized:
    if not (folder / MANIFEST).exists():
        refuse_existing(folder)
    made = ShardSet(folder)
    if made.coding is None or made.manifest.spec.get("made_from") != mark:
        what = "holds no codes" if made.coding is None else f"holds {made.coding.title}"
        raise DataError(
            f"{folder} already exists and was made from another source, or with another tower or number format (it "
            f"{what}, from {made.manifest.source}); delete it or name another folder."
        )
    return _result(source, made, already=True)


def _check_source(source: ShardSet) -> None:
    if source.coding is not None:
        raise DataError(
            f"{source.folder} holds codes already ({source.coding.title}); give the set that it was encoded from."
        )
    if source.manifest.kind == CLASSES:
        raise DataError(
            f"{source.folder} holds images in classes, which only measurements read, as pixels; give pairs or "
            "conversations."
        )


def _write_chunks(
    source: ShardSet, work: Workplace, coding: Coding, encode: Encode, batch_size: int
) -> list[Chunk]:
    """Encode the chunks that are not finished; returns all."""
    sizes = source.chunk_sizes
    starts = np.cumsum([0, *sizes]).tolist()
    finished = {n for n in work.finished(work.parts) if _intact(work, n)}
    done = sum(sizes[number] for number in finished)
    title = f"encoding {work.folder.name}"
    coder = _Coder(source, coding, encode, batch_size=batch_size)
    with Bar(title, total=len(source), done=done) as bar, coder:
        for number, size in enumerate(sizes):
            if number in finished:
                continue
            # Whatever a killed run left of the chunk is written over.
            writer = ChunkWriter(work.set, number, chunk_bytes=WHOLE_CHUNK_BYTES)
            records = source.read(range(starts[number], starts[number] + size))
            with disk_errors(work.folder):
                for record in coder.coded(records):
                    writer.add(record)
                    bar.add(1)
                chunks = [asdict(chunk) for chunk in writer.done()]
                write_record(work.parts, number, {"chunks": chunks})
    written = (work.record(work.parts, number)["chunks"] for number in range(len(sizes)))
    return [Chunk(**chunk) for chunks in written for chunk in chunks]


def _intact(work: Workplace, number: int) -> bool:
    """Whether the files of a finished chunk have their sizes."""
    listed = work.record(work.parts, number)["chunks"]
    paths = [(work.set / chunk["file"], chunk["bytes"]) for chunk in listed]
    return all(path.exists() and path.stat().st_size == size for path, size in paths)


class _Coder:
    """Records of images to records of codes: threads decode the next batch while the tower encodes one.

    A codec does not hold the interpreter up, so threads are enough.
    """

    def __init__(
        self, source: ShardSet, coding: Coding, encode: Encode, *, batch_size: int
    ) -> None:
        self._source, self._coding = source, coding
        self._encode, self._batch_size = encode, batch_size
        # Neither a random crop nor a draft: one encoding stands for the image in every epoch.
        self._transform = ImageTransform(coding.image_size)

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(usable_cores())
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def coded(self, records: Sequence[Record]) -> Iterator[Record]:
        """Yield the records of a chunk with codes in the place of images, in order."""
        codes = self._codes([image for record in records for image in _images(record.image)])
        for record in records:
            yield replace(record, image=_with_codes(record.image, codes))

    def _codes(self, images: Sequence[bytes]) -> Iterator[bytes]:
        size = self._batch_size
        batches = [images[first : first + size] for first in range(0, len(images), size)]
        asked = deque(map(self._ask, batches[:1]))
        for number in range(len(batches)):
            asked.extend(map(self._ask, batches[number + 1 : number + 2]))
            pixels = np.stack([future.result() for future in asked.popleft()])
            yield from map(self._coding.pack, self._encode(pixels))

    def _ask(self, images: Sequence[bytes]) -> list[Future[np.ndarray]]:
        def decoded(image: bytes) -> np.ndarray:
            return load_picture(image, self._transform, random.Random(0), self._source)

        return [self._pool.submit(decoded, image) for image in images]


def _images(field: bytes) -> list[bytes]:
    """The encoded images in a record's field, in order; none in an empty one."""
    if not is_bundle(field):
        return [field] if field else []
    return [part for one in unpack(field) for part in ((one,) if isinstance(one, bytes) else one)]


def _with_codes(field: bytes, codes: Iterator[bytes]) -> bytes:
    """A record's field with the next of ``codes`` in the place of each image."""
    if not is_bundle(field):
        return next(codes) if field else b""
    return pack(
        [
            next(codes) if isinstance(one, bytes) else tuple(next(codes) for _ in one)
            for one in unpack(field)
        ]
    )
