"""What drawn pictures and clips begin with: the top of an image, the codes of one, first frames."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vilau.apps.common import read_for, share
from vilau.apps.files import find_images
from vilau.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor

CODES_SUFFIXES = (".safetensors", ".npz")
KEEP = 0.5


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to a verb that draws; it has ``--video`` and ``--frames`` too."""
    parser.add_argument(
        "--complete",
        metavar="FILE",
        help="complete this image, or the one in a file of codes (vilau encode), from its top",
    )
    parser.add_argument(
        "--keep",
        type=share,
        help=f"how much of it is kept, as a share of its positions (default: {KEEP})",
    )
    parser.add_argument(
        "--first-frame",
        metavar="IMAGE",
        action="append",
        default=[],
        help="let every clip begin with this image; write it again for a second frame",
    )


def check(args: argparse.Namespace) -> None:
    """Complain before the model is opened; raises ``ConfigError`` and ``DataError``."""
    if args.first_frame and not args.video:
        raise ConfigError("--first-frame is of a clip; write --video too, or leave it out.")
    if args.keep is not None and not args.complete:
        raise ConfigError(
            "--keep is of a picture to complete; write --complete too, or leave it out."
        )
    if args.complete and args.video:
        raise ConfigError("--complete is of a picture; for a clip write --first-frame.")
    if len(args.first_frame) > args.frames:
        raise ConfigError(
            f"--first-frame is given {len(args.first_frame)} times for {args.frames} frames; write fewer, "
            "or more --frames."
        )
    find_images(args.first_frame)
    if args.complete and not _holds_codes(args.complete):
        find_images([args.complete])


def settings(model: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Return what ``generate_images`` or ``generate_videos`` takes for it."""
    # Images are cut to a square as the pictures were that the model learnt to draw.
    size = model.tokenizer.spec.image_size
    if args.first_frame:
        return {"first_frames": read_for(model, args.first_frame, size, "crop", None)[None]}
    if not args.complete:
        return {}
    if _holds_codes(args.complete):
        codes = _stored_codes(model, Path(args.complete).expanduser())
    else:
        codes = model.tokenizer.encode(read_for(model, [args.complete], size, "crop", None))
    return {"given_codes": codes[:, : max(1, round(_share(args) * codes.shape[1]))]}


def record(args: argparse.Namespace) -> dict[str, Any]:
    """Return what ``prompts.json`` keeps of it."""
    kept: dict[str, Any] = {"first_frames": args.first_frame} if args.first_frame else {}
    return kept | ({"complete": args.complete, "keep": _share(args)} if args.complete else {})


def _share(args: argparse.Namespace) -> float:
    return KEEP if args.keep is None else float(args.keep)


def _holds_codes(path: str) -> bool:
    return Path(path).suffix.lower() in CODES_SUFFIXES


def _stored_codes(model: Any, path: Path) -> Tensor:
    from vilau.apps.codes_file import check_same_tower, read_codes

    content = read_codes(path)
    if len(content.codes) != 1:
        raise DataError(
            f"{path} holds the codes of {len(content.codes)} images, but --complete takes one; encode it alone."
        )
    check_same_tower(path, content, model.tokenizer, force=False)
    return content.codes
