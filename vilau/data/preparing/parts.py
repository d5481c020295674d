"""Parts of a set: some hundred samples that one process reads, checks and writes to chunks."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from PIL import Image

from vilau.data.cache import disk_errors
from vilau.data.chunks import ChunkWriter, Record
from vilau.data.preparing.encoding import Encoded, PartSettings, encode
from vilau.data.preparing.listing import Listing
from vilau.data.preparing.workers import stopping
from vilau.data.preparing.workplace import Workplace, write_record
from vilau.data.sources.items import Item

AT = ".at"
"""Ending of the file that says at which sample a part stands, for when a decoder takes a worker along."""


class StoppedError(Exception):
    """The work was left; nothing of this part is kept."""


def write_part(
    goal: Path, work: Path, settings: PartSettings, job: tuple[int, np.ndarray]
) -> tuple[int, int]:
    """Write the chunks of one part and then its record; returns the part's number and samples.

    Args:
        goal: the folder to be, for messages.
        work: the workplace.
        settings: how.
        job: the part's number, and the indices of its samples in the listing.

    Raises:
        DataError: the disk is full or forbidden.
    """
    number, indices = job
    listing = Listing.read(work)
    filtered, without = Counter[str](), Counter[str]()
    animated, unreadable, lost, cut = 0, *(list[tuple[str, str]]() for _ in range(3))
    with disk_errors(goal), _Place(work / "parts" / f"{number:06d}{AT}") as place:
        writer = ChunkWriter(work / "set", number, chunk_bytes=settings.chunk_bytes)
        for item, encoded in _encoded(listing, indices, settings, place):
            if encoded.problem:
                unreadable.append((item.name, encoded.problem))
            elif encoded.left_out_by:
                filtered[encoded.left_out_by] += 1
            else:
                animated += encoded.animated
                without.update(encoded.without)
                lost += encoded.lost
                cut += [(item.name, encoded.note)] if encoded.note else []
                texts = item.texts if encoded.texts is None else encoded.texts
                writer.add(Record(encoded.data, texts, item.scene))
        record = {
            "chunks": [asdict(chunk) for chunk in writer.done()],
            "unreadable": unreadable,
            "filtered": filtered,
            "animated": animated,
            "lost": lost,
            "cut": cut,
            "images_left_out": without,
        }
        write_record(work / "parts", number, record)
    return number, len(indices)


def _encoded(
    listing: Listing, indices: np.ndarray, settings: PartSettings, place: _Place
) -> Iterator[tuple[Item, Encoded]]:
    with warnings.catch_warnings():
        # Pillow warns of images that are refused here.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for item in listing.items(indices):
            if stopping():
                raise StoppedError
            place.tell(item.name)
            yield item, encode(item, settings)


class _Place:
    """Says in a file which sample is being read; the file is gone afterwards."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._file)
        self._path.unlink(missing_ok=True)

    def tell(self, name: str) -> None:
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, os.fsencode(name), 0)


def being_read(work: Workplace) -> list[str]:
    """Names of the samples at which parts stand, or stood when their workers ended."""
    files = sorted(work.parts.glob(f"*{AT}"))
    return [name for name in (os.fsdecode(path.read_bytes()) for path in files) if name]


def clear_places(work: Workplace) -> None:
    """Delete what killed runs left of where they stood."""
    for path in work.parts.glob(f"*{AT}"):
        path.unlink(missing_ok=True)


@dataclass
class PartCounts:
    """What became of the samples of some parts."""

    count: int = 0
    unreadable: int = 0
    animated: int = 0
    filtered: Counter[str] | None = None
    first_unreadable: tuple[str, str] | None = None
    lost: int = 0
    """Images that documents do without since they cannot be read."""
    cut: int = 0
    """Clips that break off and are used up to there."""
    images_left_out: Counter[str] | None = None

    def add(self, record: dict[str, Any]) -> None:
        """Count one part's record in."""
        self.count += sum(chunk["count"] for chunk in record["chunks"])
        self.unreadable += len(record["unreadable"])
        self.animated += record["animated"]
        self.lost += len(record.get("lost", ()))
        self.cut += len(record.get("cut", ()))
        self.filtered = (self.filtered or Counter()) + Counter(record["filtered"])
        without = Counter(record.get("images_left_out", {}))
        self.images_left_out = (self.images_left_out or Counter()) + without
        if record["unreadable"] and self.first_unreadable is None:
            name, reason = record["unreadable"][0]
            self.first_unreadable = (name, reason)
