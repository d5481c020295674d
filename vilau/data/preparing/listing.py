"""All samples of a source as one file on the disk, from which any part can be read.

Sources of many millions of samples do not fit into memory as objects; here they are a line of JSON
each, with an array of offsets.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vilau.data.cache import disk_errors
from vilau.data.chunks import write_whole
from vilau.data.preparing.filters import Filters
from vilau.data.preparing.workers import Crew
from vilau.data.preparing.workplace import LISTING, Workplace, plain_bytes, write_record
from vilau.data.progress import Bar
from vilau.data.sources.items import Item, Source, Unit
from vilau.data.sources.stored import block_of, from_plain, to_plain

ITEMS, OFFSETS, BLOCKS, SKIPPED = "items.jsonl", "offsets.npy", "blocks.npy", "skipped.tsv"
EMPTY = "its caption is empty"
SKIPS = ("unreadable", "unpaired", "empty", "lost")
"""What a record lists by name and reason."""


@dataclass
class Counts:
    """How many samples of a source there are, and what became of the others."""

    items: int = 0
    """Samples whose image is to be read."""
    unreadable: int = 0
    unpaired: int = 0
    empty: int = 0
    """Images whose caption is empty and which are left out for it."""
    filtered: dict[str, int] = field(default_factory=dict)
    """Left out by each filter over rows and captions."""
    first_unpaired: tuple[str, str] | None = None
    first_unreadable: tuple[str, str] | None = None
    columns_seen: dict[str, int] = field(default_factory=dict)
    """For each column a filter asks for, how many samples have it."""
    listed: int = 0
    """Samples before any filter."""
    lost: int = 0
    """Images that documents do without since their files are missing."""
    images_left_out: dict[str, int] = field(default_factory=dict)
    """Images that documents do without on purpose, by reason."""


@dataclass(frozen=True)
class Listing:
    """What ``list_source`` wrote."""

    folder: Path
    counts: Counts

    @staticmethod
    def read(folder: Path) -> Listing:
        """Open the listing in a workplace."""
        content = json.loads((folder / LISTING).read_bytes())
        for key in ("first_unpaired", "first_unreadable"):
            content[key] = tuple(content[key]) if content[key] else None
        return Listing(folder, Counts(**content))

    def items(self, indices: np.ndarray) -> Iterator[Item]:
        """Yield the samples at ``indices``."""
        offsets = np.load(self.folder / OFFSETS, mmap_mode="r")
        with (self.folder / ITEMS).open("rb") as file:
            for index in indices:
                file.seek(int(offsets[index]))
                name, texts, stored, scene = json.loads(file.readline())
                yield Item(name, tuple(texts), from_plain(stored), scene)

    def parts(self, *, seed: int, samples: int) -> list[np.ndarray]:
        """Indices of the samples of each part: a shuffle of the whole, cut into pieces of ``samples``.

        What can only be read in blocks (row groups of parquet files) stays in them: the blocks are
        shuffled, the rows within each, and a part has whole blocks.
        """
        rng = np.random.default_rng((seed, self.counts.items))
        if not (self.folder / BLOCKS).exists():
            order = rng.permutation(self.counts.items)
            return [order[start : start + samples] for start in range(0, len(order), samples)]
        ends = [*np.load(self.folder / BLOCKS).tolist(), self.counts.items]
        parts: list[np.ndarray] = []
        gathered: list[np.ndarray] = []
        for block in rng.permutation(len(ends) - 1):
            gathered.append(ends[block] + rng.permutation(ends[block + 1] - ends[block]))
            if sum(map(len, gathered)) >= samples:
                parts.append(np.concatenate(gathered))
                gathered = []
        return [*parts, np.concatenate(gathered)] if gathered else parts


def list_source(source: Source, work: Workplace, filters: Filters, crew: Crew) -> Listing:
    """List all pieces of a source that are not listed yet, and join them.

    Raises:
        DataError: a piece cannot be read, or the disk is full.
    """
    if not (work.path / LISTING).exists():
        done = work.finished(work.units)
        units: list[Unit] = [Listed(source), *source.units]
        jobs = [(number, unit) for number, unit in enumerate(units) if number not in done]
        list_one = partial(_list_unit, work.units, work.folder, filters)
        with Bar(f"listing {source.title}", total=len(units), done=len(done)) as bar:
            # What is listed already is in this process and need not be sent to another.
            for job in [job for job in jobs if job[0] == 0]:
                bar.add(list_one(job))
            for count in crew.run(list_one, [job for job in jobs if job[0] > 0]):
                bar.add(count)
        with disk_errors(work.folder):
            _join(work, len(units))
    return Listing.read(work.path)


@dataclass(frozen=True)
class Listed:
    """What a source holds beside its units, as a unit."""

    source: Source

    def listed(self, columns: Any) -> Source:
        """Return it."""
        return self.source


def _list_unit(folder: Path, goal: Path, filters: Filters, job: tuple[int, Unit]) -> int:
    """List one piece, ask the filters that need no image, and write the record; returns 1."""
    number, unit = job
    found = unit.listed(filters.columns)
    conditions = filters.conditions()
    kept: list[Item] = []
    empty: list[tuple[str, str]] = []
    filtered, seen = Counter[str](found.left_out), Counter[str]()
    for item in found.items:
        seen.update(name for name in filters.columns if (item.columns or {}).get(name) is not None)
        item, by = filters.by_row(item, conditions)
        if by:
            filtered[by] += 1
        elif not item.texts and not filters.keep_empty:
            empty.append((item.name, EMPTY))
        else:
            kept.append(item)
    record = {
        "items": [[i.name, i.texts or ("",), to_plain(i.image), i.scene] for i in kept],
        "blocks": _block_starts(kept),
        "unreadable": found.unreadable,
        "unpaired": found.unpaired,
        "empty": empty,
        "filtered": filtered,
        "columns_seen": seen,
        "listed": len(found.items) + sum(found.left_out.values()),
        "lost": found.lost,
        "images_left_out": found.images_left_out,
    }
    with disk_errors(goal):
        write_record(folder, number, record)
    return 1


def _block_starts(items: list[Item]) -> list[int]:
    """Where among items a new block begins; empty if they can be read one by one."""
    blocks = [block_of(item.image) for item in items]
    if not blocks or blocks[0] is None:
        return []
    return [n for n, block in enumerate(blocks) if n == 0 or block != blocks[n - 1]]


def _join(work: Workplace, number_of_units: int) -> None:
    """Join the records of all pieces, in their order, into the files of a listing."""
    counts, offsets, blocks = Counts(), list[np.ndarray](), list[int]()
    skipped = work.path / SKIPPED
    with (work.path / ITEMS).open("wb") as items, skipped.open("wb") as lines:
        for number in range(number_of_units):
            record = work.record(work.units, number)
            blocks += [counts.items + start for start in record["blocks"]]
            _count(counts, record)
            start = items.tell()
            sizes = [items.write(plain_bytes(item) + b"\n") for item in record["items"]]
            offsets.append(start + np.cumsum([0, *sizes], dtype=np.int64)[:-1])
            for what in SKIPS:
                lines.writelines(skipped_line(*entry) for entry in record.get(what, ()))
        os.fsync(items.fileno())
    np.save(work.path / OFFSETS, np.concatenate(offsets))
    if blocks:
        np.save(work.path / BLOCKS, np.array(blocks, dtype=np.int64))
    write_whole(work.path / LISTING, plain_bytes(counts.__dict__))
    for path in work.units.glob("*.json"):
        path.unlink()


def _count(counts: Counts, record: dict[str, Any]) -> None:
    counts.items += len(record["items"])
    counts.listed += record["listed"]
    for what in SKIPS:
        setattr(counts, what, getattr(counts, what) + len(record.get(what, ())))
    for name in ("filtered", "columns_seen", "images_left_out"):
        total = Counter(getattr(counts, name))
        total.update(record.get(name, {}))
        setattr(counts, name, dict(total))
    missing = [*record["unpaired"], *record["empty"], *record.get("lost", ())]
    if missing and counts.first_unpaired is None:
        counts.first_unpaired = tuple(missing[0])
    if record["unreadable"] and counts.first_unreadable is None:
        counts.first_unreadable = tuple(record["unreadable"][0])


def skipped_line(name: str, reason: str) -> bytes:
    """A line of ``unreadable.txt``: name, tab, reason."""
    words = (" ".join(text.splitlines()) for text in (name, reason))
    return ("\t".join(words) + "\n").encode("utf-8", "backslashreplace")
