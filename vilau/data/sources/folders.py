"""Folders of images with captions beside them, as people and img2dataset's ``files`` write them."""

from __future__ import annotations

import json
import os
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
from vilau.data.sources.stored import StoredFile
from vilau.errors import DataError

CAPTION_SUFFIX, ROW_SUFFIX = ".txt", ".json"
CLASS_NAMES = "classes.txt"
LISTS = {
    CLASS_NAMES, "unreadable.txt", "readme.txt", "license.txt", "requirements.txt",
    "loc_synset_mapping.txt", "synset_words.txt",
}  # fmt: skip
"""Text files that are no captions."""
UNIT_IMAGES = 4096
"""Images listed as one piece of work."""


def folder_source(folder: Path) -> Source:
    """Images with ``name.txt`` (or a caption in ``name.json``) beside ``name.jpg``, in the folder and
    all folders below it.

    Raises:
        DataError: there is no image at all.
    """
    files = list(files_below(str(folder)))
    images = [path for path in files if suffix_of(path) in IMAGE_SUFFIXES]
    captions = {os.path.splitext(path)[0]: path for path in files if _is_caption(path)}
    if not images and not captions:
        raise DataError(
            f"{folder} holds no images ({len(files)} other files); put images there with a caption "
            "beside each (a.jpg and a.txt), or a metadata.csv with the columns file_name and text."
        )
    rows = {os.path.splitext(path)[0] for path in files if suffix_of(path) == ROW_SUFFIX}
    source = Source(f"folder {folder} (a caption file beside each image)")
    # Captions and columns may also stand in a .json beside an image and in a table beside its folder.
    beside = [path for path in files if suffix_of(path) in (ROW_SUFFIX, PARQUET)]
    tables = [f"{folder}{PARQUET}", *beside]
    source.files = [Path(path) for path in (*images, *captions.values(), *tables)]
    with_image = {os.path.splitext(path)[0] for path in images}
    for stem, caption in captions.items():
        if stem not in with_image:
            source.unpaired.append((caption, "the image it describes is missing"))
    stems = ((path, os.path.splitext(path)[0]) for path in images)
    known = [_Image(path, captions.get(stem), stem in rows) for path, stem in stems]
    source.units = [
        FolderUnit(tuple(known[start : start + UNIT_IMAGES]))
        for start in range(0, len(known), UNIT_IMAGES)
    ]
    return source


def files_below(folder: str) -> Iterator[str]:
    """All files in a folder and the folders below it in order of their names, hidden ones left out.

    Raises:
        DataError: a folder may not be listed.
    """
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except PermissionError as error:
        raise DataError(
            f"{folder} cannot be read ({error.strerror}); allow reading it, or give another path."
        ) from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from files_below(entry.path)
        elif entry.is_file():
            yield entry.path


def suffix_of(path: str) -> str:
    """The end of a file's name from the last dot on, in lower case."""
    return os.path.splitext(path)[1].lower()


def _is_caption(path: str) -> bool:
    return suffix_of(path) == CAPTION_SUFFIX and os.path.basename(path).lower() not in LISTS


@dataclass(frozen=True)
class _Image:
    path: str
    caption: str | None
    has_row: bool


@dataclass(frozen=True)
class FolderUnit:
    """Some images of a folder."""

    images: tuple[_Image, ...]

    def listed(self, columns: Sequence[str]) -> Source:
        """List them with their captions.

        Columns come from an image's ``.json``; where none of the wanted ones stands there, from the
        row of its key in the parquet file beside its folder.
        """
        source = Source("images of a folder")
        for image in self.images:
            _add_image(source, image, columns)
        return source


def _add_image(source: Source, image: _Image, columns: Sequence[str]) -> None:
    stem = os.path.splitext(image.path)[0]
    try:
        row = _row(stem) if image.has_row and (columns or not image.caption) else {}
        field = first_field(list(row), TEXT_FIELDS)
        if image.caption:
            texts = clean_texts(Path(image.caption).read_text(encoding="utf-8-sig"))
        elif field:
            texts = clean_texts(row[field])
        else:
            missing = f"its caption {os.path.basename(stem)}{CAPTION_SUFFIX} is missing"
            source.unpaired.append((image.path, missing))
            return
    except (UnicodeDecodeError, OSError) as error:
        source.unreadable.append((str(image.caption), f"the caption is no UTF-8 text ({error})"))
        return
    found = {column: row[column] for column in columns if column in row}
    if columns and not found:
        table = os.path.dirname(stem) + PARQUET
        found = dict(side_table(table, tuple(columns)).get(os.path.basename(stem), {}))
    source.items.append(Item(image.path, texts, StoredFile(image.path), columns=found))


def _row(stem: str) -> Mapping[str, Any]:
    try:
        row = json.loads(Path(stem + ROW_SUFFIX).read_bytes())
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}
