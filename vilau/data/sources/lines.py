"""Lines of text files, plain or compressed with gzip, and the files that a path stands for."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from vilau.data.sources.tars import expand
from vilau.errors import DataError

JSONL = (".jsonl", ".jsonl.gz")


def files_at(path: str, endings: Sequence[str], what: str) -> list[Path]:
    """Files that end in one of ``endings``: the one at ``path``, those in that folder or of that pattern.

    Raises:
        DataError: there is none; ``what`` says what the files should hold.
    """
    place = Path(path)
    if place.is_dir():
        found = sorted(file for file in place.iterdir() if file.is_file() and file.name[0] != ".")
        # Lists and readmes may lie beside the data in a folder, so only there others are passed over.
        found = [file for file in found if ends_in(file, endings)]
    elif any(mark in path for mark in "{*?") and not place.exists():
        found = expand(path)
    else:
        found = [place]
    wrong = next((file for file in found if not ends_in(file, endings)), None)
    if wrong is not None or not found:
        raise DataError(
            f"{wrong or place} holds no {what}, as far as its name tells; give a file that ends in "
            f"{' or '.join(endings)}, or a folder of such."
        )
    return found


def ends_in(file: Path, endings: Sequence[str]) -> bool:
    """Whether the name of a file has one of these endings, in any case."""
    return file.name.lower().endswith(tuple(endings))


@contextmanager
def opened_lines(path: Path) -> Iterator[IO[str]]:
    """Open a UTF-8 text file, unpacking ``.gz``; raises ``DataError`` for what is none."""
    try:
        if path.suffix.lower() == ".gz":
            with gzip.open(path, "rt", encoding="utf-8-sig") as file:
                yield file
        else:
            with path.open(encoding="utf-8-sig") as file:
                yield file
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise DataError(f"{path} is no whole UTF-8 text ({error}); save it as UTF-8.") from error
