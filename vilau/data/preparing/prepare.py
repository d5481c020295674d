"""Any data a user has into shards: every image is decoded once, what cannot be read is listed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from vilau.data.cache import cache_folder, disk_errors, short_hash, written_once
from vilau.data.chunks import write_index
from vilau.data.codes import CODES
from vilau.data.preparing.listing import SKIPPED, Listing, list_source, skipped_line
from vilau.data.preparing.options import MAX_UNREADABLE, OPTIONS, Options
from vilau.data.preparing.parts import PartCounts, being_read, clear_places, write_part
from vilau.data.preparing.report import Prepared, spec_of
from vilau.data.preparing.workers import Crew, WorkerLostError, usable_cores
from vilau.data.preparing.workplace import Workplace, workplace_of
from vilau.data.progress import Bar
from vilau.data.shards import (
    MANIFEST,
    UNREADABLE,
    Chunk,
    ShardSet,
    check_kind,
    refuse_existing,
    write_manifest,
)
from vilau.data.sources.class_folders import class_source
from vilau.data.sources.documents import LIMITS, DocumentLimits
from vilau.data.sources.forms import CLASSES, CONVERSATIONS, ONE, PAIRS, find_source
from vilau.data.sources.items import Source
from vilau.data.sources.stored import StoredClip
from vilau.errors import DataError, VilauError

__all__ = [
    "CLASSES", "CONVERSATIONS", "MAX_UNREADABLE", "PAIRS", "UNREADABLE", "Options", "Prepared",
    "describe", "prepare", "unfinished", "user_set",
]  # fmt: skip


def prepare(source: Source, folder: Path, options: Options, *, kind: str = PAIRS) -> Prepared:
    """Write the samples of ``source`` to shards in ``folder``, shuffled.

    The result depends on source and settings alone, not on the number of workers or on how often the
    work was interrupted: what was finished is found again in ``.<folder>.preparing-<mark>`` beside
    the folder. A folder that holds the result already is left as it is.

    Skipped samples are listed in ``folder/unreadable.txt``; when the work is refused, in
    ``<folder>.unreadable.txt`` beside it.

    Raises:
        ConfigError: an option makes no sense.
        DataError: nothing or too little can be read, files lack their partner, ``folder`` was made
            of something else or cannot be written, or the disk is full.
    """
    options.check(kind=kind)
    mark = options.mark(source, kind)
    if folder.exists():
        return _done_before(folder, source, mark)
    workers = usable_cores() if options.workers is None else options.workers
    with Workplace(folder, mark) as work, Crew(workers) as crew:
        try:
            listing = list_source(source, work, options.filters, crew)
            _check_listing(listing, source, options, kind)
            chunks, counts = _write_parts(listing, work, options, crew)
        except WorkerLostError as error:
            raise _lost(work) from error
        _check_left(listing, counts, source)
        spec = spec_of(listing.counts, counts, filters=options.filters.names) | {"made_from": mark}
        spec = {"image_size": options.image_size, "seed": options.seed, **spec}
        if any(isinstance(item.image, StoredClip) for item in source.items):
            spec["num_frames"] = options.num_frames
        with disk_errors(folder):
            _write_skipped(work.set / UNREADABLE, work, counts)
            write_index(work.set, chunks, chunk_bytes=options.chunk_bytes, mark=mark)
            write_manifest(work.set, kind=kind, chunks=chunks, source=source.title, spec=spec)
        refuse_existing(folder)
        work.deliver()
    return Prepared(folder, source.title, counts.count, spec)


def _done_before(folder: Path, source: Source, mark: str) -> Prepared:
    if not (folder / MANIFEST).exists():
        refuse_existing(folder)
    manifest = ShardSet(folder).manifest
    if manifest.spec.get("made_from") != mark:
        raise DataError(
            f"{folder} already exists and was made from another source, another state of it or with other "
            f"settings ({manifest.source}); delete it or name another folder."
        )
    return Prepared(folder, source.title, manifest.count, manifest.spec, already=True)


def unfinished(source: Source, folder: Path, options: Options, *, kind: str = PAIRS) -> Path | None:
    """Where the finished pieces of an interrupted preparation lie, if there are any."""
    place = workplace_of(folder, options.mark(source, kind))
    return place if place.exists() else None


def user_set(
    path: str,
    *,
    kind: str = PAIRS,
    image_folder: str | None = None,
    video_folder: str | None = None,
    limits: DocumentLimits = LIMITS,
    options: Options = OPTIONS,
    coded: bool = False,
) -> ShardSet:
    """Open shards at ``path``, or prepare the data there into the cache and open that.

    The cached copy is made anew when a file's size or time changes, or with other ``options``. ``coded``
    takes shards of codes too.

    Raises:
        DataError: see ``prepare``; or the shards hold samples of another kind.
    """
    place = Path(path).expanduser()

    def find() -> Source:
        return find_source(
            path, kind=kind, image_folder=image_folder, video_folder=video_folder, limits=limits
        )

    if not (place / MANIFEST).exists():
        place = _cached(path, kind, find, options)
    shards = ShardSet(place)
    check_kind(shards, kind, coded=coded)
    return shards


def class_folder_set(path: str) -> ShardSet:
    """Open shards of classes, or prepare class folders (see ``class_source``) into the cache."""
    place = Path(path).expanduser()
    if not (place / MANIFEST).exists():
        place = _cached(path, CLASSES, lambda: class_source(Path(path).expanduser()))
    shards = ShardSet(place)
    check_kind(shards, CLASSES)
    return shards


def _cached(path: str, kind: str, find: Callable[[], Source], options: Options = OPTIONS) -> Path:
    source = find()
    chosen = [repr(options)] if options != OPTIONS else []
    key = short_hash([str(Path(path).expanduser().resolve()), kind, source.state(), *chosen])
    folder = cache_folder() / f"data-{kind}-{key}"

    def write() -> None:
        try:
            prepare(source, folder, options, kind=kind)
        except VilauError:
            # Nobody would find it again once the data are mended.
            shutil.rmtree(workplace_of(folder, options.mark(source, kind)), ignore_errors=True)
            raise

    return written_once(folder, write, marker=MANIFEST)


# ------------------------------------------------------------------ writing


def _write_parts(
    listing: Listing, work: Workplace, options: Options, crew: Crew
) -> tuple[list[Chunk], PartCounts]:
    """Write the parts that are not finished, then gather all; refuses early when too much is broken."""
    parts = listing.parts(seed=options.seed, samples=options.part_samples)
    clear_places(work)
    counts = PartCounts()
    finished = {n for n in work.finished(work.parts) if _intact(work, n)}
    for number in sorted(finished):
        counts.add(work.record(work.parts, number))
    _check_unreadable(listing, counts, work, options)
    jobs = [(number, part) for number, part in enumerate(parts) if number not in finished]
    done = sum(len(parts[number]) for number in finished)
    write = partial(write_part, work.folder, work.path, options.part_settings)
    title = f"preparing {work.folder.name}"
    with Bar(title, total=listing.counts.items, done=done) as bar:
        for number, samples in crew.run(write, jobs):
            bar.add(samples)
            counts.add(work.record(work.parts, number))
            _check_unreadable(listing, counts, work, options)
    records = (work.record(work.parts, number) for number in range(len(parts)))
    return [Chunk(**chunk) for record in records for chunk in record["chunks"]], counts


def _intact(work: Workplace, number: int) -> bool:
    """Whether the chunks of a finished part have their sizes."""
    for chunk in work.record(work.parts, number)["chunks"]:
        path = work.set / chunk["file"]
        if not path.exists() or path.stat().st_size != chunk["bytes"]:
            return False
    return True


def _write_skipped(path: Path, work: Workplace, counts: PartCounts) -> None:
    """Write the list of what was skipped, if anything was."""
    with path.open("wb") as file:
        for number in sorted(work.finished(work.parts)):
            record = work.record(work.parts, number)
            for what in ("unreadable", "lost", "cut"):
                file.writelines(skipped_line(*entry) for entry in record.get(what, ()))
        file.write((work.path / SKIPPED).read_bytes())
    if path.stat().st_size == 0:
        path.unlink()


def _lost(work: Workplace) -> DataError:
    at = being_read(work)
    where = f", at one of {', '.join(at[:8])}" if at else ""
    return DataError(
        f"A worker process ended without a word{where}, as one does when memory runs out or a decoder "
        "crashes; what was finished is kept: run again with fewer --workers, or take the file away."
    )


# ------------------------------------------------------------------ refusing


def _check_listing(listing: Listing, source: Source, options: Options, kind: str) -> None:
    counts = listing.counts
    missing = counts.unpaired + counts.empty + counts.lost
    if missing and counts.first_unpaired and not options.allow_unpaired:
        name, reason = counts.first_unpaired
        more = f" (and {missing - 1} more)" if missing > 1 else ""
        raise DataError(
            f"{name}: {reason}{more}; complete the pair, delete the file, or run `vilau data "
            "prepare SRC DST --allow-unpaired` to skip and list such files."
        )
    for column in options.filters.columns:
        if counts.listed and not counts.columns_seen.get(column):
            raise DataError(
                f"No sample of {source.title} has a value in the column {column}, which --where names; "
                "write a column of its table, or of the .json beside its images."
            )
    if not counts.items and not counts.unreadable and not counts.filtered:
        raise DataError(f"No {ONE[kind]} was found in {source.title}; add some.")


def _check_left(listing: Listing, counts: PartCounts, source: Source) -> None:
    if not counts.count:
        taken = spec_of(listing.counts, counts, filters=())["left_out"]
        told = ", ".join(f"{number} by {name}" for name, number in taken.items())
        raise DataError(
            f"The filters leave nothing of {source.title} ({told}); ask less of the samples."
        )


def _check_unreadable(
    listing: Listing, counts: PartCounts, work: Workplace, options: Options
) -> None:
    """Refuse when more cannot be read than allowed, of all samples whose image is to be read."""
    unreadable = listing.counts.unreadable + counts.unreadable
    total = listing.counts.items + listing.counts.unreadable
    if not unreadable or (unreadable / total <= options.max_unreadable and unreadable < total):
        return
    listed = Path(f"{work.folder}.{UNREADABLE}")
    with suppress(DataError), disk_errors(work.folder):
        _write_skipped(listed, work, counts)
    name, reason = listing.counts.first_unreadable or counts.first_unreadable or ("", "")
    if unreadable == total:
        raise DataError(
            f"None of the {total} samples can be read, first {name} ({reason}); all are listed in "
            f"{listed}: give files that are images."
        )
    raise DataError(
        f"{unreadable} of {total} samples ({unreadable / total:.1%}) cannot be read, more than the "
        f"allowed {options.max_unreadable:.1%}, first {name} ({reason}); all are listed in {listed}: "
        "mend them, or raise --max-unreadable."
    )


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
        **({CODES: shards.coding.title} if shards.coding is not None else {}),
    }
