"""WebDataset: tar files whose members ``key.jpg`` and ``key.txt`` (or ``key.json``) form a sample."""

from __future__ import annotations

import glob
import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vilau.data.sources.items import (
    IMAGE_SUFFIXES,
    TEXT_FIELDS,
    Item,
    Source,
    clean_texts,
    first_field,
)
from vilau.data.sources.parquet import PARQUET
from vilau.data.sources.side import side_table
from vilau.data.sources.stored import StoredInTar
from vilau.errors import DataError

TEXT_SUFFIXES = (".txt", ".caption", ".text")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")

Parts = dict[str, tarfile.TarInfo]
"""Members of a sample by their suffix."""


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
    """Tar files, each with its ``.parquet`` beside it where img2dataset wrote one."""
    return Source(
        f"{len(paths)} WebDataset tar files from {paths[0]} on",
        files=[*paths, *(path.with_suffix(PARQUET) for path in paths)],
        units=[TarUnit(str(path)) for path in paths],
    )


@dataclass(frozen=True)
class TarUnit:
    """One tar file; a damaged one counts as unreadable from the damage on."""

    path: str

    def listed(self, columns: Sequence[str]) -> Source:
        """List the samples.

        Columns come from a sample's ``.json``; where none of the wanted ones stands there, from the
        row with its key in the parquet file beside the tar.
        """
        path, members = Path(self.path), dict[str, Parts]()
        source = Source(self.path)
        try:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    if member.isfile():
                        key, suffix = _split(member.name)
                        members.setdefault(key, {})[suffix] = member
        except (tarfile.TarError, OSError) as error:
            reason = "it is compressed; unpack it with gunzip" if _gzipped(path) else str(error)
            source.unreadable.append((str(path), f"no whole tar file: {reason}"))
        if members:
            with path.open("rb") as file:
                for key, parts in members.items():
                    _add_sample(source, Sample(path, key, parts, file), columns)
        return source


def _gzipped(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(2) == b"\x1f\x8b"
    except OSError:
        return False


def _split(name: str) -> tuple[str, str]:
    folder, _, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    return f"{folder}/{stem}" if folder else stem, (dot + suffix).lower()


@dataclass(frozen=True)
class Sample:
    """The members of one key, and the open tar file to read them from."""

    path: Path
    key: str
    parts: Parts
    file: Any

    def read(self, suffix: str) -> bytes:
        """Return the content of the member with ``suffix``."""
        member = self.parts[suffix]
        self.file.seek(member.offset_data)
        content: bytes = self.file.read(member.size)
        return content


def _add_sample(source: Source, sample: Sample, columns: Sequence[str]) -> None:
    name, parts = f"{sample.path}:{sample.key}", sample.parts
    image = next((parts[suffix] for suffix in IMAGE_SUFFIXES if suffix in parts), None)
    row = _row(sample) if columns or not parts.keys() & set(TEXT_SUFFIXES) else {}
    texts = _texts(sample, row)
    if image is None and texts:
        source.unpaired.append((name, "the image it describes is missing"))
    elif image is not None and texts is None:
        source.unpaired.append((name, "its caption (.txt, or a caption in .json) is missing"))
    elif image is not None and texts is not None:
        stored = StoredInTar(str(sample.path), image.offset_data, image.size)
        found = {column: row[column] for column in columns if column in row}
        if columns and not found:
            rows = side_table(str(sample.path.with_suffix(PARQUET)), tuple(columns))
            found = dict(rows.get(sample.key.rpartition("/")[2], {}))
        source.items.append(Item(name, texts, stored, columns=found))


def _texts(sample: Sample, row: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Captions of a sample, perhaps none in the place of captions; None where there is no place."""
    for suffix in TEXT_SUFFIXES:
        if suffix in sample.parts:
            return clean_texts(sample.read(suffix).decode("utf-8", errors="replace"))
    field = first_field(list(row), TEXT_FIELDS)
    return clean_texts(row[field]) if field else None


def _row(sample: Sample) -> Mapping[str, Any]:
    if ".json" not in sample.parts:
        return {}
    try:
        row = json.loads(sample.read(".json"))
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}
