"""``vilau data show DST``: what a shard folder holds, in words and as a contact sheet."""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vilau.apps.common import add_force, whole
from vilau.apps.files import check_free, shard_folder, written
from vilau.errors import DataError

if TYPE_CHECKING:
    from vilau.data.bundle import Medium
    from vilau.data.shards import Record, ShardSet

SHOWN = 400
"""Characters of a sample's captions that are printed."""
SHOWN_MARK = "<image>"
"""What is printed where an image or clip stands in a text."""
SHEET_SUFFIXES = (".png", ".jpg", ".jpeg")
COLUMNS = 8
"""Of a contact sheet, which has as many rows at most."""


def add_parser(verbs: Any) -> None:
    """Add ``show`` to the verbs of ``vilau data``."""
    show = verbs.add_parser(
        "show",
        help="print what a shard folder holds",
        description="Print what a shard folder holds: where it came from, what was left out, its first samples.",
        epilog="example: vilau data show shards/photos --verify --sheet photos.png",
    )
    show.add_argument("dst", metavar="DST", help="a folder written by prepare or tokenize")
    show.add_argument("--verify", action="store_true", help="compare every file's SHA-256 sum")
    show.add_argument(
        "--sheet", metavar="PNG", help="write a contact sheet of the first samples (.png or .jpg)"
    )
    show.add_argument("--samples", type=whole, default=8, help="captions to print (default 8)")
    add_force(show, "replace a contact sheet that exists")


def run(args: argparse.Namespace) -> int:
    """Print what was asked for; returns the exit code. Raises the errors of ``vilau.errors``."""
    # Imported here: the data rooms load torch, and the command line must answer at once.
    from vilau.data.bundle import MARK
    from vilau.data.preparing.prepare import describe
    from vilau.data.shards import ShardSet

    shards = ShardSet(shard_folder(args.dst))
    images: list[bytes] = []
    if args.sheet:
        _check_sheet(Path(args.sheet).expanduser(), force=args.force)
        images = _sheet_images(shards)
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
        _write_sheet(Path(args.sheet).expanduser(), images)
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


def _check_sheet(path: Path, *, force: bool) -> None:
    if path.suffix.lower() not in SHEET_SUFFIXES and not path.is_dir():
        raise DataError(f"{path} is no name for a picture; end it in .png or .jpg.")
    check_free([path], force=force, option="--sheet")


def _sheet_images(shards: ShardSet) -> list[bytes]:
    """The encoded images and frames of the first samples; raises ``DataError`` where there are none."""
    if shards.coding is not None:
        raise DataError(
            f"{shards.folder} holds codes, which show nothing without their tower; leave out --sheet, or give the "
            f"set that it was encoded from ({shards.manifest.source})."
        )
    count = min(COLUMNS * COLUMNS, len(shards))
    media = [medium for record in shards.read(range(count)) for medium in _media(record)]
    images = [image for one in media for image in ((one,) if isinstance(one, bytes) else one)]
    if not images:
        raise DataError(
            f"{shards.folder} holds no image in its first {count} samples; leave out --sheet."
        )
    return images[: COLUMNS * COLUMNS]


def _write_sheet(path: Path, images: Sequence[bytes], *, tile: int = 96) -> None:
    """Write images, each cut to a square of ``tile`` pixels."""
    step = tile + 4
    # Imported here for the same reason.
    from PIL import Image

    from vilau.data.media.images import ImageTransform

    rows = -(-len(images) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * step, rows * step), "white")
    transform = ImageTransform(tile)
    for number, data in enumerate(images):
        picture = Image.fromarray(transform(data, random.Random(0)))
        sheet.paste(picture, (number % COLUMNS * step, number // COLUMNS * step))
    with written(path) as part:
        sheet.save(part)


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
