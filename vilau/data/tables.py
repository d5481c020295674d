"""Tables of image paths and captions: csv, tsv, jsonl, parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from os.path import isfile  # unlike Path.is_file, quiet about names that no file can have
from pathlib import Path
from typing import Any

from vilau.data.items import (
    IMAGE_FIELDS,
    TEXT_FIELDS,
    Item,
    Source,
    StoredFile,
    clean_texts,
    first_field,
)
from vilau.errors import DataError

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


def table_source(path: Path, image_folder: Path | None = None) -> Source:
    """Read a table with a column of image paths and one of captions.

    Paths are relative to ``image_folder``, by default the table's own folder. Column names may be
    any of ``IMAGE_FIELDS`` and ``TEXT_FIELDS``; the first that occurs is used and named in the
    title.

    Raises:
        DataError: the table is empty or damaged, or lacks a column.
    """
    rows = list(_rows(path))
    if not rows:
        raise DataError(f"{path} holds no rows; give it a header line and one line per image.")
    names = list(rows[0][1])
    image_field = _needed(path, names, IMAGE_FIELDS, "image files")
    text_field = _needed(path, names, TEXT_FIELDS, "captions")
    source = Source(f"table {path} (images from column {image_field}, captions from {text_field})")
    source.files.append(path)
    folder = image_folder or path.parent
    for number, row in rows:
        _add_row(source, f"{path}:{number}", row.get(image_field), row.get(text_field), folder)
    return source


def _add_row(source: Source, where: str, name: Any, text: Any, folder: Path) -> None:
    if not isinstance(name, str) or not name.strip():
        source.unpaired.append((where, "no image file is named"))
        return
    image = folder / name.strip()
    texts = clean_texts(text)
    if not texts:
        source.unpaired.append((f"{where} ({name})", "its caption is empty"))
    elif name.startswith(("http://", "https://")):
        source.unpaired.append((where, f"{name} is a web address, but nothing is downloaded"))
    elif not isfile(image):
        source.unpaired.append((where, f"its image {image} does not exist"))
    else:
        source.items.append(Item(str(image), texts, StoredFile(str(image))))
        source.files.append(image)


def _needed(path: Path, names: list[str], wanted: tuple[str, ...], what: str) -> str:
    found = first_field(names, wanted)
    if found is None:
        raise DataError(
            f"{path} has the columns {', '.join(map(str, names))} but none of {what}; name one "
            f"{wanted[0]} (or {', '.join(wanted[1:])})."
        )
    return found


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line (parquet: row) numbers from 1 and rows."""
    try:
        if path.suffix.lower() == ".parquet":
            yield from enumerate(_parquet_rows(path), start=1)
            return
        with path.open(newline="", encoding="utf-8-sig") as file:
            if path.suffix.lower() == ".jsonl":
                yield from jsonl_rows(path, file)
            else:
                delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
                reader = csv.DictReader(file, delimiter=delimiter)
                yield from ((reader.line_num, row) for row in reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no readable table ({error}); save it as UTF-8 text.") from error


def jsonl_rows(path: Path, lines: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line numbers and objects of JSON lines; blank lines are passed over.

    Raises:
        DataError: a line is no JSON object.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(
                f"{path}:{number} is no JSON ({error}); write one object per line."
            ) from error
        if not isinstance(row, dict):
            raise DataError(
                f"{path}:{number} holds {line.strip()[:40]}, not an object; write one object per "
                'line, e.g. {"file_name": "a.jpg", "text": "a dog"}.'
            )
        yield number, row


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    # Imported here: pyarrow is optional, and large.
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise DataError(
            f"{path} needs the package pyarrow; run `pip install pyarrow`, or save the table as csv."
        ) from error
    try:
        table = parquet.read_table(path)
    except (ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is no readable parquet file ({error}); write it again.") from error
    names = [name for name in table.column_names if name.lower() in IMAGE_FIELDS]
    for name in names:
        if str(table.schema.field(name).type) != "string":
            raise DataError(
                f"{path} has the column {name} of type {table.schema.field(name).type}; it must "
                "hold the paths of image files, so write the images into files first."
            )
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows
