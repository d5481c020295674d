"""``vilau data prepare SRC DST`` and ``vilau data show DST``: user data into shards, and a look."""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vilau.data.shards import Record, ShardSet


def add_parser(subparsers: Any) -> None:
    """Add the verb ``data`` to the command line."""
    data = subparsers.add_parser("data", help="prepare and look at data sets")
    verbs = data.add_subparsers(dest="data_verb", required=True)

    prepare = verbs.add_parser(
        "prepare",
        help="turn images with captions, or conversations, into shards",
        description="SRC: a folder of images with captions (a.jpg and a.txt, or metadata.csv or "
        ".jsonl), a csv, tsv, jsonl or parquet table, WebDataset tars, a litdata folder, or (with "
        "--instructions) a LLaVA-style json file.",
    )
    prepare.add_argument(
        "src", metavar="SRC", help="folder, file or pattern such as d/{000..9}.tar"
    )
    prepare.add_argument("dst", metavar="DST", help="folder to write; must not exist")
    size = prepare.add_mutually_exclusive_group()
    size.add_argument("--image-size", type=int, help="shrink the short side to so many pixels")
    size.add_argument("--keep", action="store_true", help="keep images as they are (default)")
    prepare.add_argument("--image-folder", help="where the image paths in a table begin")
    prepare.add_argument("--instructions", action="store_true", help="SRC holds conversations")
    prepare.add_argument(
        "--max-unreadable", type=float, default=0.05, help="largest share to skip (default 0.05)"
    )
    prepare.add_argument(
        "--allow-unpaired", action="store_true", help="skip and list files without partner"
    )
    prepare.add_argument("--workers", type=int, default=0, help="processes that decode (default 0)")
    prepare.add_argument("--seed", type=int, default=0, help="order of the samples (default 0)")

    show = verbs.add_parser("show", help="print what a shard folder holds")
    show.add_argument("dst", metavar="DST", help="a folder written by prepare")
    show.add_argument("--verify", action="store_true", help="compare every file's SHA-256 sum")
    show.add_argument("--sheet", metavar="PNG", help="write a contact sheet of the first samples")
    show.add_argument("--samples", type=int, default=8, help="captions to print (default 8)")


def run(args: argparse.Namespace) -> int:
    """Do what was asked; returns the exit code. Raises the errors of ``vilau.errors``."""
    return _prepare(args) if args.data_verb == "prepare" else _show(args)


def _prepare(args: argparse.Namespace) -> int:
    # Imported here: the data rooms load torch, and the command line must answer at once.
    from vilau.data.prepare import CONVERSATIONS, PAIRS, Options, prepare
    from vilau.data.shards import refuse_existing
    from vilau.data.sources import find_source

    folder = Path(args.dst).expanduser()
    refuse_existing(folder)
    kind = CONVERSATIONS if args.instructions else PAIRS
    options = Options(
        image_size=args.image_size,
        max_unreadable=args.max_unreadable,
        allow_unpaired=args.allow_unpaired,
        workers=args.workers,
        seed=args.seed,
    )
    source = find_source(args.src, kind=kind, image_folder=args.image_folder)
    _print(prepare(source, folder, options, kind=kind).summary())
    return 0


def _show(args: argparse.Namespace) -> int:
    # Imported here for the same reason.
    from vilau.data.prepare import describe
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
        _print(f"{index}: {_size(record)} {' | '.join(record.texts)}")
    if args.sheet:
        _write_sheet(shards, Path(args.sheet))
        _print(f"contact sheet: {args.sheet}")
    return 0


def _size(record: Record) -> str:
    from vilau.data.images import open_rgb

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
    from vilau.data.images import ImageTransform

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
