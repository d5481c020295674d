"""``vilau reconstruct TOWER IMAGE...``: what is left of an image after each residual depth."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vilau.apps.common import (
    add_images,
    add_model,
    add_out,
    make_parser,
    open_tokenizer,
    parts_of,
    read_for,
    read_frames,
    say,
)
from vilau.apps.files import check_free, find_images, unique_names, write_png
from vilau.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = make_parser(
        subparsers,
        "reconstruct",
        "show what each residual depth of a tower adds",
        more="Images are encoded to codes and decoded again. Writes a labelled strip per image (the "
        "original, then its reconstruction from depth 1, depths 1-2, ... all; of a tokenizer over scales from "
        "scale 1, scales 1-2, ...) and prints the PSNR of each. A clip gives one row per frame.",
        example="vilau reconstruct runs/quickstart/aligned/tower photos/ --out strips",
    )
    add_model(parser, "tokenizer")
    add_images(parser, needed=False)
    parser.add_argument(
        "--video", metavar="CLIP", action="append", default=[], help="a video; may be repeated"
    )
    add_out(parser, "reconstructed")


def run(args: argparse.Namespace) -> int:
    """Write the strips, print the PSNR; returns the exit code."""
    # Imported here, as everywhere in this room: torch takes seconds, and --help must answer at once.
    import torch

    from vilau.callbacks.sheets import grid
    from vilau.data.progress import progress

    images, clips = find_images(args.images), [Path(clip).expanduser() for clip in args.video]
    sources = [*images, *clips]
    if not sources:
        raise ConfigError("there is nothing to reconstruct; name images, or --video CLIP.")
    out = Path(args.out).expanduser()
    files = [out / f"{name}.png" for name in unique_names(path.stem for path in sources)]
    check_free(files, force=args.force)
    tower = open_tokenizer(args.tokenizer, args)
    size, headings = tower.spec.image_size, parts_of(tower.spec)
    table = []
    for number, source in enumerate(progress(sources, len(sources), "reconstructing")):
        if number < len(images):
            pixels = read_for(tower, [source], size, args.fit, args.quirks)
        else:
            pixels = read_frames(tower, source, size, args)
        rows, decibels = reconstruct(tower, pixels)
        write_png(files[number], grid(list(rows), ["original", *headings]))
        table.append(decibels.mean(dim=0))
    for line in psnr_table([path.name for path in sources], torch.stack(table), headings):
        say(line)
    for file in files:
        say(str(file))
    return 0


def reconstruct(tower: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Decode images ``(B, 3, H, W)`` in [-1, 1] from the first, the first two, ... all D parts of their codes.

    Returns:
        uint8 ``(B, 1 + D, 3, H, W)`` on the CPU, the original first, and PSNR in dB ``(B, D)``.
    """
    import torch

    from vilau.layers.pixels import to_uint8
    from vilau.metrics.similarity import psnr

    with torch.inference_mode():
        codes = tower.encode(pixels)
        decoded = [tower.decode(codes, upto=n + 1) for n in range(tower.spec.num_parts)]
    original, *parts = [to_uint8(images).cpu() for images in (pixels, *decoded)]
    decibels = torch.stack([psnr(original, images) for images in parts], dim=1)
    return torch.stack([original, *parts], dim=1), decibels


def psnr_table(names: Sequence[str], decibels: Tensor, headings: Sequence[str]) -> list[str]:
    """Lines of a table: one per image, and their mean where there are several."""
    rows = [(name, row.tolist()) for name, row in zip(names, decibels, strict=True)]
    if len(rows) > 1:
        rows.append(("mean", decibels.mean(dim=0).tolist()))
    width = max(len("PSNR, dB"), *(len(name) for name, _ in rows))
    columns = [max(7, len(heading)) for heading in headings]
    line = "PSNR, dB".ljust(width)
    lines = [line + "".join(f"  {h:>{w}}" for h, w in zip(headings, columns, strict=True))]
    for name, row in rows:
        cells = "".join(f"  {value:>{w}.2f}" for value, w in zip(row, columns, strict=True))
        lines.append(name.ljust(width) + cells)
    return lines
