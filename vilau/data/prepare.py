"""Any data a user has into shards: every image is decoded once, what cannot be read is listed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from vilau.data.cache import cache_folder, disk_errors, short_hash, written_once
from vilau.data.folders import class_source
from vilau.data.items import Item, Source, read_image
from vilau.data.progress import progress
from vilau.data.shards import MANIFEST, Record, ShardSet, ShardWriter, check_kind
from vilau.data.sources import CONVERSATIONS, PAIRS, find_source
from vilau.errors import ConfigError, DataError

UNREADABLE = "unreadable.txt"
MAX_UNREADABLE = 0.05
"""Share of unreadable samples up to which the rest is used."""
_BLOCK = 2048
"""Items handed to worker processes at a time, so that a list of millions is not queued at once."""

__all__ = ["CONVERSATIONS", "MAX_UNREADABLE", "PAIRS", "Options", "Prepared", "prepare", "user_set"]


@dataclass(frozen=True)
class Options:
    """How data are prepared.

    Args:
        image_size: shrink images whose short side is larger to so many pixels, stored as PNG;
            None: keep them as they are.
        max_unreadable: refuse when more than this share of the samples cannot be read.
        allow_unpaired: skip and list images without caption and captions without image; else any
            such file is an error.
        workers: processes that decode; 0: this one.
        seed: order in which samples are written.
    """

    image_size: int | None = None
    max_unreadable: float = MAX_UNREADABLE
    allow_unpaired: bool = False
    workers: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Prepared:
    """What came of it."""

    folder: Path
    title: str
    count: int
    unreadable: list[tuple[str, str]]
    unpaired: list[tuple[str, str]]

    def summary(self) -> str:
        """A few lines for people."""
        lines = [f"{self.count} samples from {self.title}", f"written to {self.folder}"]
        for what, found in (("unreadable", self.unreadable), ("unpaired", self.unpaired)):
            if found:
                listed = self.folder / UNREADABLE
                lines.append(f"{len(found)} {what}, skipped and listed in {listed}")
        return "\n".join(lines)


def prepare(source: Source, folder: Path, options: Options, *, kind: str = PAIRS) -> Prepared:
    """Write the samples of ``source`` to shards in ``folder``, shuffled.

    Skipped samples are listed in ``folder/unreadable.txt``; when the work is refused, in
    ``<folder>.unreadable.txt`` beside it.

    Raises:
        ConfigError: an option makes no sense.
        DataError: nothing or too little can be read, files lack their partner, ``folder`` exists
            or cannot be written, or the disk is full.
    """
    _check(options)
    _check_unpaired(source, options)
    items = list(source.items)
    random.Random(options.seed).shuffle(items)
    unreadable = list(source.unreadable)
    spec = {"image_size": options.image_size, "seed": options.seed}
    writer = ShardWriter(folder, kind=kind, source=source.title, spec=spec)
    with writer:
        encoded = _encoded(items, options)
        for item, (data, reason) in progress(encoded, len(items), f"preparing {source.title}"):
            if reason:
                unreadable.append((item.name, reason))
            else:
                writer.add(Record(data, item.texts, item.scene))
        _check_unreadable(folder, unreadable, len(items) + len(source.unreadable), options)
        spec |= {"unreadable": len(unreadable), "unpaired": len(source.unpaired)}
        if unreadable or source.unpaired:
            writer.extra_files[UNREADABLE] = _listing(unreadable + source.unpaired)
    return Prepared(folder, source.title, writer.count, unreadable, source.unpaired)


def user_set(path: str, *, kind: str = PAIRS, image_folder: str | None = None) -> ShardSet:
    """Open shards at ``path``, or prepare the data there into the cache and open that.

    The cached copy is made anew when a file's size or time changes.

    Raises:
        DataError: see ``prepare``; or the shards hold samples of another kind.
    """
    place = Path(path).expanduser()
    if not (place / MANIFEST).exists():
        place = _cached(path, kind, lambda: find_source(path, kind=kind, image_folder=image_folder))
    shards = ShardSet(place)
    check_kind(shards, kind)
    return shards


def class_folder_set(path: str) -> ShardSet:
    """Prepare class folders (see ``class_source``) into the cache and open them."""
    return ShardSet(_cached(path, "classes", lambda: class_source(Path(path).expanduser())))


def _cached(path: str, kind: str, find: Callable[[], Source]) -> Path:
    source = find()
    state = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in source.files if f.exists()]
    key = short_hash([str(Path(path).expanduser().resolve()), kind, source.title, state])
    folder = cache_folder() / f"data-{kind}-{key}"
    write = partial(prepare, source, folder, Options(), kind=kind)
    return written_once(folder, write, marker=MANIFEST)


# ------------------------------------------------------------------ reading


def _encoded(items: Sequence[Item], options: Options) -> Iterator[tuple[Item, tuple[bytes, str]]]:
    """Yield each item with its bytes, or with the reason why there are none."""
    read = partial(read_image, image_size=options.image_size)
    if options.workers == 0:
        yield from ((item, read(item)) for item in items)
        return
    try:
        # Spawned, not forked: torch's threads do not survive a fork.
        with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
            for start in range(0, len(items), _BLOCK):
                block = items[start : start + _BLOCK]
                yield from zip(block, pool.map(read, block, chunksize=16), strict=True)
    except BrokenProcessPool as error:
        raise DataError(
            "A worker process ended without a word, as one does when memory runs out or a decoder "
            "crashes; run again with --workers 0 to see at which image."
        ) from error


# ------------------------------------------------------------------ refusing


def _check(options: Options) -> None:
    if options.image_size is not None and options.image_size < 1:
        raise ConfigError(f"image size is {options.image_size}; write a number of pixels.")
    if not 0.0 <= options.max_unreadable <= 1.0:
        raise ConfigError(
            f"max unreadable is {options.max_unreadable}; write a share from 0 to 1, e.g. 0.05."
        )
    if options.workers < 0:
        raise ConfigError(f"workers is {options.workers}; write 0 or a number of processes.")


def _check_unpaired(source: Source, options: Options) -> None:
    if source.unpaired and not options.allow_unpaired:
        name, reason = source.unpaired[0]
        more = f" (and {len(source.unpaired) - 1} more)" if len(source.unpaired) > 1 else ""
        raise DataError(
            f"{name}: {reason}{more}; complete the pair, delete the file, or run `vilau data "
            "prepare SRC DST --allow-unpaired` to skip and list such files."
        )
    if not source.items and not source.unreadable:
        raise DataError(f"No image with a caption was found in {source.title}; add some.")


def _check_unreadable(
    folder: Path, unreadable: list[tuple[str, str]], total: int, options: Options
) -> None:
    share = len(unreadable) / total
    if not unreadable or (share <= options.max_unreadable and len(unreadable) < total):
        return
    listed = Path(f"{folder}.{UNREADABLE}")
    with suppress(DataError), disk_errors(folder):
        listed.write_text(_listing(unreadable))
    name, reason = unreadable[0]
    if len(unreadable) == total:
        raise DataError(
            f"None of the {total} samples can be read, first {name} ({reason}); all are listed in "
            f"{listed}: give files that are images."
        )
    raise DataError(
        f"{len(unreadable)} of {total} samples ({share:.1%}) cannot be read, more than the allowed "
        f"{options.max_unreadable:.1%}, first {name} ({reason}); all are listed in {listed}: mend "
        "them, or raise --max-unreadable."
    )


def _listing(found: Sequence[tuple[str, str]]) -> str:
    return "".join(f"{name}\t{reason}\n" for name, reason in found)


def describe(shards: ShardSet) -> dict[str, Any]:
    """Facts about a set for people: counts, bytes, origin."""
    manifest = shards.manifest
    return {
        "kind": manifest.kind,
        "samples": manifest.count,
        "chunks": len(manifest.chunks),
        "megabytes": round(sum(chunk.bytes for chunk in manifest.chunks) / 1e6, 2),
        "source": manifest.source,
        **manifest.spec,
    }
