"""``vilau data show DST``: what a shard folder holds, in words and as a contact sheet."""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vilau.data.bundle import Medium
    from vilau.data.shards import Record, ShardSet

SHOWN = 400
"""Characters of a sample's captions that are printed."""
SHOWN_MARK = "<image>"
"""What is printed where an image or clip stands in a text."""


def add_parser(verbs: Any) -> None:
    """Add ``show`` to the verbs of ``vilau data``."""
    show = verbs.add_parser("show", help="print what a shard folder holds")
    show.add_argument("dst", metavar="DST", help="a folder written by prepare or tokenize")
    show.add_argument("--verify", action="store_true", help="compare every file's SHA-256 sum")
    show.add_argument("--sheet", metavar="PNG", help="write a contact sheet of the first samples")
    show.add_argument("--samples", type=int, default=8, help="captions to print (default 8)")


def run(args: argparse.Namespace) -> int:
    """Print what was asked for; returns the exit code. Raises the errors of ``vilau.errors``."""
    # Imported here: the data rooms load torch, and the command line must answer at once.
    from vilau.data.bundle import MARK
    from vilau.data.preparing.prepare import describe
    from vilau.data.shards import ShardSet
    from vilau.errors import DataError

    shards = ShardSet(Path(args.dst).expanduser())
    if args.sheet and shards.coding is not None:
        raise DataError(
            f"{shards.folder} holds codes, which show nothing without their tower; leave out --sheet, or give the "
            f"set that it was encoded from ({shards.manifest.source})."
        )
    if args.verify:
        shards.verify()
    for key, value in describe(shards).items():
        _print(f"{key}: {value if isinstance(value, str) else json.dumps(value)}")
    if args.verify:
        _print("all files match their SHA-256 sums")
    records = shards.read(range(min(args.samples, len(shards))))
    for index, record in enumerate(records):
        texts = " | ".join(record.texts).replace(MARK, SHOWN_MARK)
        _print(
            f"{index}: {_size(record, shards)} {texts if len(texts) <= SHOWN else texts[:SHOWN] + '…'}"
        )
    if args.sheet:
        _write_sheet(shards, Path(args.sheet))
        _print(f"contact sheet: {args.sheet}")
    return 0


def _size(record: Record, shards: ShardSet) -> str:
    if not record.image:
        return "(no image)"
    if shards.coding is not None:
        return "(codes)"
    return " ".join(map(_size_of, _media(record)))


def _size_of(medium: Medium) -> str:
    from vilau.data.media.images import open_rgb

    first, frames = (medium, "") if isinstance(medium, bytes) else (medium[0], f"x{len(medium)}")
    width, height = open_rgb(first).size
    return f"{width}x{height}{frames}"


def _media(record: Record) -> list[Medium]:
    """The encoded images and clips of a sample."""
    from vilau.data.bundle import is_bundle, unpack

    return unpack(record.image) if is_bundle(record.image) else [record.image] * bool(record.image)


def _write_sheet(shards: ShardSet, path: Path, *, columns: int = 8, tile: int = 96) -> None:
    """Write the images and frames of the first samples, each cut to a square of ``tile`` pixels."""
    step = tile + 4
    # Imported here for the same reason.
    from PIL import Image

    from vilau.data.cache import disk_errors
    from vilau.data.media.images import ImageTransform

    records = shards.read(range(min(columns * columns, len(shards))))
    media = [medium for record in records for medium in _media(record)]
    images = [image for one in media for image in ((one,) if isinstance(one, bytes) else one)]
    images = images[: columns * columns]
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
