"""WebDataset: tar files whose members ``key.jpg`` and ``key.txt`` (or ``key.json``) form a sample."""

from __future__ import annotations

import glob
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from vilau.data.items import (
    IMAGE_SUFFIXES,
    TEXT_FIELDS,
    Item,
    Source,
    StoredInTar,
    clean_texts,
    first_field,
)
from vilau.errors import DataError

TEXT_SUFFIXES = (".txt", ".caption", ".text")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def expand(pattern: str) -> list[Path]:
    """Files a pattern stands for: ``{000..012}`` counts up, ``*`` and ``?`` match.

    Raises:
        DataError: a counted file is missing, or nothing matches.
    """
    counted = list(_counted(pattern))
    found: list[Path] = []
    for name in counted:
        matches = [Path(match) for match in sorted(glob.glob(name))]
        if not matches:
            raise DataError(f"{name} does not exist (from data path {pattern}); check the pattern.")
        found += matches
    return found


def _counted(pattern: str) -> Iterator[str]:
    found = _RANGE.search(pattern)
    if found is None:
        yield pattern
        return
    first, last = found.groups()
    for number in range(int(first), int(last) + 1):
        text = str(number).zfill(len(first))
        yield from _counted(pattern[: found.start()] + text + pattern[found.end() :])


def tar_source(paths: list[Path]) -> Source:
    """List the samples of tar files; a damaged file counts as unreadable from the damage on."""
    source = Source(f"{len(paths)} WebDataset tar files from {paths[0]} on", files=list(paths))
    for path in paths:
        members: dict[str, dict[str, tarfile.TarInfo]] = {}
        try:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    if member.isfile():
                        key, suffix = _split(member.name)
                        members.setdefault(key, {})[suffix] = member
        except (tarfile.TarError, OSError) as error:
            compressed = path.open("rb").read(2) == b"\x1f\x8b"
            reason = "it is compressed; unpack it with gunzip" if compressed else str(error)
            source.unreadable.append((str(path), f"no whole tar file: {reason}"))
        for key, parts in members.items():
            _add_sample(source, path, key, parts)
    return source


def _split(name: str) -> tuple[str, str]:
    folder, _, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    return f"{folder}/{stem}" if folder else stem, (dot + suffix).lower()


def _add_sample(source: Source, path: Path, key: str, parts: dict[str, tarfile.TarInfo]) -> None:
    name = f"{path}:{key}"
    image = next((parts[suffix] for suffix in IMAGE_SUFFIXES if suffix in parts), None)
    texts = _texts(path, parts)
    if image is None and texts:
        source.unpaired.append((name, "the image it describes is missing"))
    elif image is not None and not texts:
        source.unpaired.append((name, "its caption (.txt, or a caption in .json) is missing"))
    elif image is not None:
        stored = StoredInTar(str(path), image.offset_data, image.size)
        source.items.append(Item(name, texts, stored))


def _texts(path: Path, parts: dict[str, tarfile.TarInfo]) -> tuple[str, ...]:
    for suffix in TEXT_SUFFIXES:
        if suffix in parts:
            return clean_texts(_read(path, parts[suffix]).decode("utf-8", errors="replace"))
    if ".json" in parts:
        try:
            row = json.loads(_read(path, parts[".json"]))
        except ValueError:
            return ()
        field = first_field(list(row), TEXT_FIELDS) if isinstance(row, dict) else None
        return clean_texts(row[field]) if field else ()
    return ()


def _read(path: Path, member: tarfile.TarInfo) -> bytes:
    return StoredInTar(str(path), member.offset_data, member.size).read()
