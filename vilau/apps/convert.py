"""``vilau convert SRC DST``: a model, or a tower alone, from one folder layout to the other."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from vilau.apps.common import (
    DTYPES,
    MODEL_HELP,
    add_force,
    at_least_one,
    dtype_of,
    make_parser,
    model_folder,
    say,
)
from vilau.apps.files import check_writable
from vilau.errors import DataError

PUBLISHED, OWN = "vila-u", "vilau"


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = make_parser(
        subparsers,
        "convert",
        "write a model or a tower in another layout or number format",
        more="vila-u is the published layout (llm/, vision_tower/, mm_projector/; of a tower alone the folder "
        "vision_tower/, without a depth transformer), vilau is ours (config.json and model.safetensors). "
        "Weights are always written as safetensors. The image tokenizers of Liquid and VARGPT are read from their "
        "files and written as ours, for reconstruct, encode and decode.",
        example="vilau convert runs/quickstart/aligned/finetune exported --layout vila-u",
    )
    parser.add_argument(
        "src",
        metavar="SRC",
        help=f"{MODEL_HELP}; or of a tower alone; or the file of a published image tokenizer: Chameleon's "
        "vqgan.ckpt (Liquid), VAR's vae_ch160v4096z32.pth (VARGPT)",
    )
    parser.add_argument("dst", metavar="DST", help="folder to write")
    parser.add_argument("--layout", required=True, choices=(PUBLISHED, OWN), help="what to write")
    parser.add_argument(
        "--dtype", choices=DTYPES, help="number format to write (default: as stored)"
    )
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="also read weights stored as .bin, .pth or .ckpt, tensors alone (default: refuse them)",
    )
    parser.add_argument(
        "--image-size",
        type=at_least_one,
        metavar="N",
        help="pixels per side that a published image tokenizer is to read (default: 512, VAR's 256)",
    )
    add_force(parser, "replace the model that stands in DST")


def run(args: argparse.Namespace) -> int:
    """Convert; returns the exit code."""
    import vilau
    from vilau.data.cache import disk_errors, temporary_folder
    from vilau.models.loading import holds_tokenizer

    file = Path(args.src).expanduser()
    source = file if file.is_file() else model_folder(args.src)
    target = Path(args.dst).expanduser()
    _check_target(target, source, force=args.force)
    options: Any = {"dtype": dtype_of(args.dtype), "allow_pickle": args.allow_pickle}
    model: Any
    if args.image_size or holds_tokenizer(source):
        model = vilau.load_tokenizer(source, image_size=args.image_size, **options)
    else:
        model = vilau.load(source, **options)
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        part = temporary_folder(target.absolute())
        try:
            if args.layout == PUBLISHED:
                vilau.export(model, part, layout=PUBLISHED)
            else:
                model.save(part)
            if target.exists():
                shutil.rmtree(target)
            part.rename(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    for file in sorted(path for path in target.rglob("*") if path.is_file()):
        say(f"{file}  {file.stat().st_size:,} bytes")
    return 0


def _check_target(target: Path, source: Path, *, force: bool) -> None:
    check_writable(target.parent, option="DST")
    if not target.exists():
        return
    if not target.is_dir():
        raise DataError(f"{target} is a file; write the name of a folder.")
    if not any(target.iterdir()):
        return
    if not force:
        raise DataError(f"{target} exists already; write another DST, or --force to replace it.")
    if not (target / "config.json").is_file():
        raise DataError(f"{target} holds no model, so it is not replaced; write another DST.")
    inside = source.resolve().parents
    if target.resolve() == source.resolve() or target.resolve() in inside:
        raise DataError(f"{target} holds the model to convert; write another DST.")
