"""``vilau encode TOWER IMAGE...``: images to a file of codes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vilau.apps.common import (
    add_force,
    add_images,
    add_model,
    at_least_one,
    batches,
    make_parser,
    open_tokenizer,
    read_for,
    say,
)
from vilau.apps.files import check_free, find_images


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = make_parser(
        subparsers,
        "encode",
        "turn images into a file of codes",
        more="The file holds int32 codes (images, positions, residual depth), the names of the images, "
        "the shape of the codes and the hash of the codebook; vilau decode makes images of it again.",
        example="vilau encode runs/quickstart/aligned/tower photos/ --out codes.safetensors",
    )
    add_model(parser, "tokenizer")
    add_images(parser)
    parser.add_argument(
        "--batch-size", type=at_least_one, default=16, help="encoded at once (default: 16)"
    )
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="file to write: .safetensors or .npz"
    )
    add_force(parser)


def run(args: argparse.Namespace) -> int:
    """Encode and write; returns the exit code."""
    import torch

    from vilau.apps.codes_file import CodesFile, check_suffix, tower_hash, write_codes

    files, out = find_images(args.images), Path(args.out).expanduser()
    check_suffix(out)
    check_free([out], force=args.force)
    tower = open_tokenizer(args.tokenizer, args)
    size, pieces = tower.spec.image_size, []
    with torch.inference_mode():
        for batch in batches(files, args.batch_size, "encoding"):
            images = read_for(tower, batch, size, args.fit, args.quirks)
            pieces.append(tower.encode(images).cpu())
    codes = torch.cat(pieces)
    names = [str(file) for file in files]
    write_codes(out, CodesFile(codes, names, tower.spec, tower_hash(tower)))
    count, positions, depth = codes.shape
    pictures, depths = f"image{'s' * (count > 1)}", f"depth{'s' * (depth > 1)}"
    say(f"{out}: {count} {pictures}, {positions} positions x {depth} {depths} each")
    return 0
