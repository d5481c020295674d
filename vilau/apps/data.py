"""``vilau data prepare SRC DST`` and ``vilau data show DST``: user data into shards, and a look."""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vilau.data.preparing.prepare import Options
    from vilau.data.shards import Record, ShardSet

SHOWN = 400
"""Characters of a sample's captions that are printed."""


def add_parser(subparsers: Any) -> None:
    """Add the verb ``data`` to the command line."""
    data = subparsers.add_parser("data", help="prepare and look at data sets")
    verbs = data.add_subparsers(dest="data_verb", required=True)

    prepare = verbs.add_parser(
        "prepare",
        help="turn images with captions, classes or conversations into shards",
        description="SRC: a folder of images with captions (a.jpg and a.txt, or metadata.csv or "
        ".jsonl), what img2dataset wrote (tars, files or parquet), a csv, tsv, jsonl or parquet table, "
        "parquet files with images inside, WebDataset tars, ImageNet, a litdata folder, (with "
        "--classes) a folder of images per class, or (with --instructions) a LLaVA-style json file. "
        "What a run that was stopped had finished is kept: the same command goes on from there.",
    )
    prepare.add_argument(
        "src", metavar="SRC", help="folder, file or pattern such as d/{000..9}.tar"
    )
    prepare.add_argument("dst", metavar="DST", help="folder to write")
    form = prepare.add_mutually_exclusive_group()
    form.add_argument("--instructions", action="store_true", help="SRC holds conversations")
    form.add_argument(
        "--classes", action="store_true", help="SRC holds a folder of images per class (zero-shot)"
    )
    prepare.add_argument("--image-folder", help="where the image paths in a table begin")
    size = prepare.add_mutually_exclusive_group()
    size.add_argument("--image-size", type=int, help="shrink the short side to so many pixels")
    size.add_argument("--keep", action="store_true", help="keep images as they are (default)")
    prepare.add_argument(
        "--workers", type=int, help="processes that read and decode (default: one per core)"
    )
    prepare.add_argument("--seed", type=int, default=0, help="order of the samples (default 0)")
    prepare.add_argument(
        "--chunk-megabytes", type=float, default=4.0, help="size of the files of DST (default 4)"
    )
    _add_filters(prepare)

    show = verbs.add_parser("show", help="print what a shard folder holds")
    show.add_argument("dst", metavar="DST", help="a folder written by prepare")
    show.add_argument("--verify", action="store_true", help="compare every file's SHA-256 sum")
    show.add_argument("--sheet", metavar="PNG", help="write a contact sheet of the first samples")
    show.add_argument("--samples", type=int, default=8, help="captions to print (default 8)")


def _add_filters(prepare: argparse.ArgumentParser) -> None:
    skipped = prepare.add_argument_group("what is skipped and listed")
    skipped.add_argument(
        "--max-unreadable", type=float, default=0.05, help="largest share to skip (default 0.05)"
    )
    skipped.add_argument(
        "--allow-unpaired",
        action="store_true",
        help="skip images without a caption or with an empty one, and captions without image",
    )
    filters = prepare.add_argument_group("what is left out on purpose, and counted")
    filters.add_argument(
        "--min-side", type=int, default=0, metavar="PIXELS", help="shorter side of an image"
    )
    filters.add_argument(
        "--max-aspect", type=float, metavar="RATIO", help="longer side over the shorter"
    )
    filters.add_argument("--min-caption", type=int, default=0, metavar="CHARACTERS")
    filters.add_argument("--max-caption", type=int, metavar="CHARACTERS")
    filters.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="'COLUMN >= VALUE'",
        help="keep samples of which this holds (>=, <=, >, <, ==, !=); may be given several times",
    )
    filters.add_argument(
        "--keep-empty-captions", action="store_true", help="keep images whose caption is empty"
    )


def run(args: argparse.Namespace) -> int:
    """Do what was asked; returns the exit code. Raises the errors of ``vilau.errors``."""
    return _prepare(args) if args.data_verb == "prepare" else _show(args)


def _prepare(args: argparse.Namespace) -> int:
    # Imported here: the data rooms load torch, and the command line must answer at once.
    from vilau.data.preparing.prepare import CLASSES, CONVERSATIONS, PAIRS, prepare, unfinished
    from vilau.data.shards import MANIFEST, refuse_existing
    from vilau.data.sources.forms import find_source
    from vilau.errors import DataError

    folder = Path(args.dst).expanduser()
    if not (folder / MANIFEST).exists():
        refuse_existing(folder)
    kind = CONVERSATIONS if args.instructions else CLASSES if args.classes else PAIRS
    options = _options(args)
    options.check(kind=kind)
    source = find_source(args.src, kind=kind, image_folder=args.image_folder)
    try:
        result = prepare(source, folder, options, kind=kind)
    except (KeyboardInterrupt, DataError):
        left = unfinished(source, folder, options, kind=kind)
        if left:
            sys.stderr.write(f"What was finished is kept in {left}; the same command goes on.\n")
        raise
    _print(result.summary())
    return 0


def _options(args: argparse.Namespace) -> Options:
    from vilau.data.preparing.filters import Filters
    from vilau.data.preparing.prepare import Options

    return Options(
        image_size=args.image_size,
        max_unreadable=args.max_unreadable,
        allow_unpaired=args.allow_unpaired,
        workers=args.workers,
        seed=args.seed,
        chunk_bytes=round(args.chunk_megabytes * (1 << 20)),
        filters=Filters(
            min_side=args.min_side,
            max_aspect=args.max_aspect,
            min_caption=args.min_caption,
            max_caption=args.max_caption,
            where=tuple(args.where),
            keep_empty=args.keep_empty_captions,
        ),
    )


def _show(args: argparse.Namespace) -> int:
    # Imported here for the same reason.
    from vilau.data.preparing.prepare import describe
    from vilau.data.shards import ShardSet

    shards = ShardSet(Path(args.dst).expanduser())
    if args.verify:
        shards.verify()
    for key, value in describe(shards).items():
        _print(f"{key}: {value if isinstance(value, str) else json.dumps(value)}")
    if args.verify:
        _print("all files match their SHA-256 sums")
    records = shards.read(range(min(args.samples, len(shards))))
    for index, record in enumerate(records):
        texts = " | ".join(record.texts)
        _print(f"{index}: {_size(record)} {texts if len(texts) <= SHOWN else texts[:SHOWN] + '…'}")
    if args.sheet:
        _write_sheet(shards, Path(args.sheet))
        _print(f"contact sheet: {args.sheet}")
    return 0


def _size(record: Record) -> str:
    from vilau.data.media.images import open_rgb

    if not record.image:
        return "(no image)"
    width, height = open_rgb(record.image).size
    return f"{width}x{height}"


def _write_sheet(shards: ShardSet, path: Path, *, columns: int = 8, tile: int = 96) -> None:
    """Write up to ``columns * columns`` images, each cut to a square of ``tile`` pixels."""
    step = tile + 4
    # Imported here for the same reason.
    from PIL import Image

    from vilau.data.cache import disk_errors
    from vilau.data.media.images import ImageTransform

    records = shards.read(range(min(columns * columns, len(shards))))
    images = [record.image for record in records if record.image]
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * step, max(1, rows) * step), "white")
    transform = ImageTransform(tile)
    for number, data in enumerate(images):
        picture = Image.fromarray(transform(data, random.Random(0)))
        sheet.paste(picture, (number % columns * step, number // columns * step))
    with disk_errors(path):
        sheet.save(path)


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
