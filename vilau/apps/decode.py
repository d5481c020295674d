"""``vilau decode TOWER CODES``: a file of codes to images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vilau.apps.common import (
    add_force,
    add_model,
    at_least_one,
    make_parser,
    open_tokenizer,
    say,
)
from vilau.apps.files import check_free, unique_names, write_png
from vilau.errors import ConfigError


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = make_parser(
        subparsers,
        "decode",
        "turn a file of codes into images",
        more="Writes one PNG per image, named after the image that was encoded.",
        example="vilau decode runs/quickstart/aligned/tower codes.safetensors --out decoded --upto 2",
    )
    add_model(parser, "tokenizer")
    parser.add_argument("codes", metavar="CODES", help="a file written by vilau encode")
    parser.add_argument(
        "--upto",
        type=at_least_one,
        metavar="D",
        help="use the first D depths, or scales (default: all)",
    )
    parser.add_argument(
        "--batch-size", type=at_least_one, default=16, help="decoded at once (default: 16)"
    )
    parser.add_argument(
        "--out", default="decoded", metavar="DIR", help="folder to write (default: decoded)"
    )
    add_force(parser, "replace files that exist, and decode codes of another codebook")


def run(args: argparse.Namespace) -> int:
    """Decode and write; returns the exit code."""
    import torch

    from vilau.apps.codes_file import check_same_tower, read_codes
    from vilau.data.progress import progress
    from vilau.layers.pixels import to_uint8

    source, out = Path(args.codes).expanduser(), Path(args.out).expanduser()
    content = read_codes(source)
    parts = content.spec.num_parts
    if args.upto is not None and args.upto > parts:
        what = "depths" if len(content.spec.levels) == 1 else "scales"
        raise ConfigError(
            f"--upto is {args.upto}, but {source} holds {parts} {what}; write at most that."
        )
    names = unique_names(Path(name).stem for name in content.files)
    files = [out / f"{name}.png" for name in names]
    check_free(files, force=args.force)
    tower = open_tokenizer(args.tokenizer, args)
    check_same_tower(source, content, tower, force=args.force)
    device = next(tower.parameters()).device
    remaining = iter(files)
    with torch.inference_mode():
        batches = content.codes.split(args.batch_size)
        for batch in progress(batches, len(batches), "decoding"):
            pictures = to_uint8(tower.decode(batch.to(device), upto=args.upto))
            for picture, file in zip(pictures, remaining, strict=False):
                write_png(file, picture)
                say(str(file))
    return 0
