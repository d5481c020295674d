"""What ``vilau eval`` leaves in its folder: what was measured, and the numbers."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vilau.apps.common import model_folder, note, say
from vilau.apps.files import check_writable, written
from vilau.errors import DataError

RESULTS, RECORD = "results.json", "eval.json"
BESIDE = (
    "chance",
    "blind",
    "ceiling",
    "random_scene",
    "empty_image",
    "real",
    "reconstruction",
    "floor",
    "rebuilt",
)
"""What a score's name ends in where it is that of a guesser, an oracle or other pictures, printed in its line."""
ITSELF = ""


@contextmanager
def recorded(out: Path, args: argparse.Namespace, *, world: bool = False) -> Iterator[None]:
    """Note what is measured inside; what is refused before anything was measured leaves nothing behind.

    Raises:
        DataError: the folder holds something of another model or settings.
    """
    new, before, known = not out.exists(), _others(out), (out / RECORD).exists()
    begin(out, args, world=world)
    try:
        yield
    except BaseException:
        if not known and _others(out) == before:
            (out / RECORD).unlink()
            if new and not any(out.iterdir()):
                out.rmdir()
        raise


def _others(out: Path) -> set[Path]:
    """The files in a folder beside its record: answers, drawings, numbers."""
    return {path for path in out.rglob("*") if path.is_file() and path != out / RECORD}


def begin(out: Path, args: argparse.Namespace, *, world: bool = False) -> None:
    """Note what is measured; raises ``DataError`` where the folder holds something of another model or settings."""
    from vilau import __version__
    from vilau.data.cache import short_hash

    folder = model_folder(args.model)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = [(str(p.relative_to(folder)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    names = (
        "guidance_scale", "seed", "max_new_tokens", "dtype", "fit", "quirks", "ocr", "without_images",
    )  # fmt: skip
    record = {
        "model": str(folder.resolve()), "files": short_hash(sizes),
        **{name: getattr(args, name) for name in names},
        **({"level": args.level} if world else {}),
    }  # fmt: skip
    check_writable(out)
    path = out / RECORD
    held = _read(path) if path.exists() and _others(out) else {}
    if held:
        held = {"ocr": False, "without_images": False, **held}  # a folder of before these options
        # A folder of published benchmarks may also take in twins, of one level.
        held = {"level": args.level, **held} if world else held
        unlike = [name for name, value in record.items() if held.get(name) != value]
        if unlike:
            raise DataError(
                f"{out} holds an evaluation with {unlike[0]} {held.get(unlike[0])!r}, now it is {record[unlike[0]]!r}; "
                "write another --out, or delete that folder."
            )
    with written(path) as part:
        text = json.dumps({"vilau": __version__, **held, **record}, indent=1)
        part.write_text(text + "\n", encoding="utf-8")


def kept(out: Path) -> dict[str, Any]:
    """Return the numbers in ``results.json``, none where there is no such file."""
    path = out / RESULTS
    return _read(path) if path.exists() else {}


def keep(out: Path, numbers: dict[str, Any], *, twin: str = "") -> None:
    """Print numbers and add them to ``results.json``, in the place of all that a ``twin`` has there."""
    path = out / RESULTS
    held = {
        name: found for name, found in kept(out).items() if not twin or found.get("twin") != twin
    }
    with written(path) as part:
        text = json.dumps(held | numbers, indent=1, ensure_ascii=False)
        part.write_text(text + "\n", encoding="utf-8")
    show(numbers)
    note(f"written to {path}")


def show(numbers: dict[str, Any]) -> None:
    """Print a line per score, with those beside it that tell how good it is."""
    lines: dict[str, dict[str, float]] = {}
    for name, found in numbers.items():
        base, kind = _parted(name, numbers)
        lines.setdefault(base, {})[kind] = found["value"]
    width = max(map(len, lines), default=0)
    for name, values in lines.items():
        shown = [
            f"{kind.replace('_', ' ')} {values[kind]:.4f}" for kind in BESIDE if kind in values
        ]
        say(f"{name:<{width}}  {'  '.join([f'{values[ITSELF]:.4f}', *shown])}")


def _parted(name: str, numbers: dict[str, Any]) -> tuple[str, str]:
    """``test/world_pope_f1_chance`` is ``test/world_pope_f1``'s ``chance``; others stand by themselves."""
    for kind in BESIDE:
        base = re.sub(f"_{kind}(?=/|$)", "", name)
        if base != name and base in numbers:
            return base, kind
    return name, ITSELF


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); delete it.") from error
