"""What verbs read and write: images in files and folders, lists in text files, files written whole."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vilau.apps.common import note
from vilau.errors import DataError, DiskError

if TYPE_CHECKING:
    from torch import Tensor

LONGEST_SLUG = 40


# ---------------------------------------------------------------------- reading


def find_images(paths: Sequence[str]) -> list[Path]:
    """The image files among ``paths``: files as they are, of a folder its images in order of name.

    Raises ``DataError`` for what does not exist, a folder without images, and a URL.
    """
    from vilau.data.media.pictures import refuse_url
    from vilau.data.sources.items import IMAGE_SUFFIXES

    files = []
    for text in paths:
        refuse_url(text)
        path = Path(text).expanduser()
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
            if not inside:
                raise DataError(f"{path} holds no images; give image files or a folder of them.")
            files += inside
        elif path.exists():
            files.append(path)
        else:
            raise DataError(f"{path} does not exist; give image files or a folder of them.")
    return files


def read_lines(path: str, what: str) -> list[str]:
    """The lines of a text file that are not blank; raises ``DataError`` where there are none.

    ``what`` names a line: "prompt", "class", "template".
    """
    file = Path(path).expanduser()
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{file} is no UTF-8 text; write one {what} per line.") from None
    except FileNotFoundError:
        raise DataError(f"{file} does not exist; give a text file, one {what} per line.") from None
    except OSError as error:
        raise DataError(
            f"{file} cannot be read ({error.strerror}); give a text file, one {what} per line."
        ) from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise DataError(f"{file} is empty; write one {what} per line.")
    return lines


def shard_folder(path: str) -> Path:
    """The folder of a prepared set; raises ``DataError`` for a file, folders are looked into by ``ShardSet``."""
    folder = Path(path).expanduser()
    if folder.is_file():
        raise DataError(
            f"{folder} is a file; give the folder that vilau data prepare or vilau data tokenize wrote."
        )
    return folder


# ---------------------------------------------------------------------- writing


def unique_names(stems: Iterable[str]) -> list[str]:
    """Make file stems differ, also where case does not count: the second ``cat`` becomes ``cat-2``."""
    seen: Counter[str] = Counter()
    names = []
    for stem in stems:
        name = stem
        while seen[name.lower()]:
            seen[stem.lower()] += 1
            name = f"{stem}-{seen[stem.lower()]}"
        seen[name.lower()] += 1
        names.append(name)
    return names


def slug(text: str) -> str:
    """Turn a prompt into a piece of a file name."""
    words = re.sub(r"[^a-z0-9]+", "-", text.lower())[:LONGEST_SLUG].strip("-")
    return words or "untitled"


def check_free(paths: Iterable[Path], *, force: bool, option: str = "--out") -> None:
    """Raise ``DataError`` where one of the files exists (without ``force``) or cannot be written.

    Called before any work is done: nobody should wait an hour to hear that. ``option`` named the files.
    """
    paths = list(paths)
    for path in paths:
        if path.is_dir():
            raise DataError(
                f"{path} is a folder, but a file is to be written there; write another."
            )
    taken = [path for path in paths if path.exists()]
    if taken and not force:
        more = f" (and {len(taken) - 1} more)" if taken[1:] else ""
        raise DataError(
            f"{taken[0]}{more} exists already; write another {option}, or --force to replace it."
        )
    for folder in {path.parent for path in paths}:
        check_writable(folder, option=option)


def check_writable(folder: Path, *, option: str = "--out") -> None:
    """Raise ``DataError`` unless files can be written into ``folder``, which need not exist yet."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        reason = "is no folder" if not existing.is_dir() else "is closed for you"
        raise DataError(
            f"{folder} cannot be written, since {existing} {reason}; write another {option}."
        )


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """Yield a hidden path beside ``path`` to write to; it takes the name of ``path`` when complete."""
    from vilau.data.cache import disk_errors

    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def resumable(folder: Path, unfinished: Callable[[], Path | None]) -> Iterator[None]:
    """Prepare the set ``folder`` inside; ``unfinished`` tells where finished pieces of it lie, if there are any.

    They are kept, which is told, where the command may go on from them: after a stop, a full disk or a crash. Where the
    data or the filters are refused, nothing is kept.
    """
    try:
        yield
    except (KeyboardInterrupt, DataError, RuntimeError) as error:
        left = unfinished()
        if left is not None:
            _settle(left, error, taken=folder.exists())
        raise


def _settle(left: Path, error: BaseException, *, taken: bool) -> None:
    # Imported here, as everything that brings more than the standard library.
    from filelock import Timeout

    from vilau.data.preparing.workers import WorkerLostError

    if isinstance(error.__cause__, Timeout):
        return  # another process is at work there
    how = ""
    if isinstance(error, DataError) and "--max-unreadable" in str(error):
        how = " with a larger --max-unreadable"  # hours of decoding may lie there
    elif isinstance(error, DataError) and not (
        taken or isinstance(error, DiskError) or isinstance(error.__cause__, WorkerLostError)
    ):
        shutil.rmtree(left, ignore_errors=True)
        return
    note(f"What was finished is kept in {left}; the same command{how} goes on.")


def write_png(path: Path, picture: Tensor) -> None:
    """Write a uint8 picture ``(3, H, W)``."""
    from vilau.data.media.images import encode_png

    with written(path) as part:
        part.write_bytes(encode_png(picture.permute(1, 2, 0).contiguous().cpu().numpy()))
