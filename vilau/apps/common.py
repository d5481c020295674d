"""What the verbs over trained models share: their options, opening models, and the words they print.

Nothing heavy is imported before a verb runs: parsers are made from this module's functions too.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vilau.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from vilau.data.media.pictures import Fit, Quirks

T = TypeVar("T")

DEVICES = ("cpu", "cuda", "mps")
DTYPES = ("float32", "bfloat16", "float16")
MODEL_HELP = (
    "folder of a trained model: of a finished run (runs/<study>/<variant>/<stage>), of vilau.export, "
    "or a published VILA-U checkpoint"
)
TOWER_HELP = "folder of a vision tower, or of a whole model that holds one"
TOKENIZER_HELP = "folder of a vision tower, of another image tokenizer, or of a whole model"
RUN_MODEL = "model"
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
"""Where a run leaves its product."""
PUBLISHED_PARTS = ("llm", "vision_tower")
LARGEST = 2**63 - 1
"""The largest whole number an option takes: a conversation adds its turns to the seed, and torch counts to 2^64."""


# ---------------------------------------------------------------------- options


def make_parser(
    subparsers: Any, verb: str, text: str, *, example: str, more: str = ""
) -> argparse.ArgumentParser:
    """Add a verb with its help; ``more`` says what a line of help has no room for."""
    return subparsers.add_parser(
        verb,
        help=text,
        description=f"{text[0].upper()}{text[1:]}. {more}".strip(),
        epilog=f"example: {example}",
    )


def add_model(parser: argparse.ArgumentParser, name: str = "model") -> None:
    """Add the model, tower or tokenizer and how it is opened."""
    helps = {"tower": TOWER_HELP, "tokenizer": TOKENIZER_HELP}
    parser.add_argument(name, metavar=name.upper(), help=helps.get(name, MODEL_HELP))
    add_opening(parser)


def add_opening(parser: argparse.ArgumentParser) -> None:
    """Add how a model or tower is opened."""
    parser.add_argument(
        "--device", help="cpu, cuda, cuda:1 or mps (default: cuda where there is one, else cpu)"
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, help="number format of the weights (default: as stored)"
    )
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="also read weights stored as .bin, .pth or .ckpt, tensors alone (default: refuse them)",
    )


def add_images(parser: argparse.ArgumentParser, *, needed: bool = True) -> None:
    """Add the images to read, and how they become what the model reads."""
    parser.set_defaults(spill="images")
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+" if needed else "*",
        help="image files, or folders of them",
    )
    add_pictures(parser)


def add_pictures(parser: argparse.ArgumentParser) -> None:
    """Add how pictures become what the model reads."""
    parser.add_argument(
        "--fit",
        choices=("squash", "pad", "crop"),
        default="squash",
        help="how a picture becomes a square: resize both sides, pad, or cut out the middle "
        "(default: squash, as VILA-U's code)",
    )
    parser.add_argument(
        "--quirks",
        choices=("published",),
        help="prepare pictures with the bugs of the published code, to compare with its numbers",
    )


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add the seed of what is drawn at random."""
    parser.add_argument("--seed", type=whole, default=0, help="same seed, same result (default: 0)")


def add_out(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the folder to write into."""
    parser.add_argument(
        "--out", default=default, metavar="DIR", help=f"folder to write (default: {default})"
    )
    add_force(parser)


def add_force(parser: argparse.ArgumentParser, text: str = "replace files that exist") -> None:
    """Add the permission to overwrite."""
    parser.add_argument("--force", action="store_true", help=text)


def whole(text: str) -> int:
    """Read a whole number from 0 to 2^63 - 1, for argparse."""
    return _whole(text, 0)


def at_least_one(text: str) -> int:
    """Read a whole number from 1 to 2^63 - 1, for argparse."""
    return _whole(text, 1)


def _whole(text: str, least: int) -> int:
    digits = text.lstrip("0") or "0"
    # Their number is looked at first: Python refuses to read thousands of them.
    if text.isdecimal() and (len(digits) > len(str(LARGEST)) or int(digits) > LARGEST):
        raise argparse.ArgumentTypeError(f"{text} is above {LARGEST}, the largest allowed")
    if not text.isdecimal() or int(digits) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} on")
    return int(digits)


def not_negative(text: str) -> float:
    """Read a number from 0 on, for argparse."""
    value = _number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def positive(text: str) -> float:
    """Read a number above 0, for argparse."""
    value = _number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def share(text: str) -> float:
    """Read a number above 0 and at most 1, for argparse."""
    value = _number(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return value


def check_text(name: str, text: str) -> None:
    """Raise ``ConfigError`` for text that was read from bytes which are no UTF-8.

    Python keeps such bytes as halves of surrogate pairs, which no tokenizer and no file takes.
    """
    odd = next((char for char in text if "\ud800" <= char <= "\udfff"), None)
    if odd is not None:
        raise not_utf8(name, ord(odd) & 0xFF)


def not_utf8(name: str, byte: int) -> ConfigError:
    """Return the error of a text that holds a byte where UTF-8 has none such."""
    return ConfigError(f"{name} holds the byte 0x{byte:02x}, which is no UTF-8; write it in UTF-8.")


# ---------------------------------------------------------------------- models


def open_model(args: argparse.Namespace) -> Any:
    """Open the unified model that ``args.model`` names."""
    import vilau

    return vilau.load(model_folder(args.model), **_opening(args))


def open_tower(path: str, args: argparse.Namespace) -> Any:
    """Open the vision tower at ``path``, which may be a whole model's."""
    import vilau

    return vilau.load_tower(model_folder(path), **_opening(args))


def open_tokenizer(path: str, args: argparse.Namespace) -> Any:
    """Open what makes codes of images at ``path``, of any family; it may be a whole model's.

    Raises ``CheckpointError`` for the file of a published one, which is to be converted first.
    """
    import vilau

    file = Path(path).expanduser()
    if file.is_file() and file.suffix in WEIGHT_SUFFIXES:
        raise CheckpointError(
            f"{path} is a file; write what it holds as a folder first: vilau convert {path} DIR --layout vilau."
        )
    return vilau.load_tokenizer(model_folder(path), **_opening(args))


def parts_of(spec: Any) -> list[str]:
    """Say what an image is decoded from: "depth 1", "depths 1-2", ... or scales, where there are several."""
    one = "depth" if len(spec.levels) == 1 else "scale"
    return [f"{one} 1", *(f"{one}s 1-{n}" for n in range(2, spec.num_parts + 1))]


def _opening(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "device": device_of(args.device),
        "dtype": dtype_of(args.dtype),
        "allow_pickle": args.allow_pickle,
    }


def model_folder(path: str) -> Path:
    """The folder that holds a model: ``path``, or the ``model`` folder of a run there.

    Raises ``CheckpointError`` where there is no folder, or several runs to choose from.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise CheckpointError(f"{path} {what}; give the {MODEL_HELP}.")
    if _holds_model(folder):
        return folder
    if _holds_model(folder / RUN_MODEL):
        return folder / RUN_MODEL
    below = [*folder.glob(f"*/{RUN_MODEL}"), *folder.glob(f"*/*/{RUN_MODEL}")]
    runs = sorted(str(model.parent) for model in below if _holds_model(model))
    if runs:
        shown = ", ".join(runs[:6]) + (f" and {len(runs) - 6} more" if runs[6:] else "")
        raise CheckpointError(
            f"{folder} is the folder of a study, not of a run; give one of: {shown}."
        )
    raise CheckpointError(f"{folder} holds no model (no config.json); give the {MODEL_HELP}.")


def _holds_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() or any((folder / p).is_dir() for p in PUBLISHED_PARTS)


def device_of(text: str | None) -> torch.device:
    """Turn ``--device`` into a device of this machine; raises ``ConfigError``."""
    import torch

    if text is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(text)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in DEVICES:
        raise ConfigError(f"--device is {text}; write one of {', '.join(DEVICES)}, or cuda:0.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"--device is {text}, but this machine has {torch.cuda.device_count()} CUDA devices; "
            "write cpu, or the number of a device that is there."
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"--device is {text}, but this machine has no such device; write cpu.")
    return device


def dtype_of(name: str | None) -> torch.dtype | None:
    """Turn ``--dtype`` into torch's own."""
    import torch

    return None if name is None else getattr(torch, name)


def read_for(
    model: nn.Module, pictures: Sequence[Any], size: int, fit: Fit, quirks: Quirks | None
) -> Tensor:
    """Read pictures as ``(N, 3, size, size)`` in [-1, 1], on the model's device and in its dtype."""
    from vilau.data.media.pictures import read_images

    return moved(read_images(pictures, size, fit=fit, quirks=quirks), model)


def moved(images: Tensor, model: nn.Module) -> Tensor:
    """Bring float images to where a model is, in the number format of its weights."""
    weight = next(model.parameters())
    return images.to(device=weight.device, dtype=weight.dtype)


def read_frames(model: nn.Module, path: Path, size: int, args: argparse.Namespace) -> Tensor:
    """Read the frames of a clip as ``(F, 3, size, size)``; what is broken in it is said on stderr."""
    from vilau.data.media.pictures import prepare
    from vilau.data.media.video import read_clip

    clip = read_clip(path, quirks=args.quirks)
    if clip.note:
        note(clip.note)
    return moved(prepare(clip.frames, size, fit=args.fit, quirks=args.quirks), model)


# ---------------------------------------------------------------------- words


def say(line: str) -> None:
    """Print a result."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def note(line: str) -> None:
    """Print a remark beside the results, on standard error."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


@contextmanager
def position_bar(title: str, parts: int) -> Iterator[Callable[[int], Callable[[int, int], None]]]:
    """Yield a function from a part's number to its ``progress(done, total)``; one bar shows all parts."""
    from tqdm import tqdm

    with tqdm(desc=title, leave=False, disable=not sys.stderr.isatty()) as bar:

        def part(number: int) -> Callable[[int, int], None]:
            def show(done: int, total: int) -> None:
                bar.total = parts * total
                bar.update(number * total + done - bar.n)

            return show

        yield part


def batches(items: Sequence[T], size: int, title: str) -> Iterator[Sequence[T]]:
    """Yield ``items`` in pieces of at most ``size``, with a progress bar on standard error."""
    from vilau.data.progress import progress

    starts = range(0, len(items), size)
    for start in progress(starts, len(starts), title):
        yield items[start : start + size]
