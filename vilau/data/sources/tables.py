"""Tables of images and captions: csv, tsv, jsonl and parquet of paths, parquet with images inside."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os.path import isfile  # unlike Path.is_file, quiet about names that no file can have
from pathlib import Path
from typing import Any

from vilau.data.sources.items import (
    ENCODED_FIELDS,
    IMAGE_FIELDS,
    TEXT_FIELDS,
    URL_FIELDS,
    Item,
    Source,
    clean_texts,
    first_field,
)
from vilau.data.sources.parquet import (
    PARQUET,
    column_types,
    holds_images,
    open_parquet,
    read_columns,
)
from vilau.data.sources.stored import StoredFile, StoredInParquet
from vilau.errors import DataError

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", PARQUET)
STATUS, SUCCESS, MESSAGE = "status", "success", "error_message"
"""img2dataset's column that says how a download went, what it says of a good one, and the column by
which such a table is known."""


def table_source(path: Path, image_folder: Path | None = None) -> Source:
    """Read a table with a column of image paths and one of captions.

    Paths are relative to ``image_folder``, by default the table's own folder. Column names may be
    any of ``IMAGE_FIELDS`` and ``TEXT_FIELDS``; the first that occurs is used and named in the
    title. A parquet table may hold the images themselves.

    Raises:
        DataError: the table is empty or damaged, or lacks a column.
    """
    if path.suffix.lower() == PARQUET and _image_column(path):
        return parquet_source([path])
    rows = list(table_rows(path))
    if not rows:
        raise DataError(f"{path} holds no rows; give it a header line and one line per image.")
    names = list(rows[0][1])
    image_field = needed_field(path, names, IMAGE_FIELDS, "image files")
    text_field = needed_field(path, names, TEXT_FIELDS, "captions")
    source = Source(f"table {path} (images from column {image_field}, captions from {text_field})")
    source.files.append(path)
    folder = image_folder or path.parent
    for number, row in rows:
        _add_row(source, f"{path}:{number}", row, (image_field, text_field), folder)
    return source


def _add_row(
    source: Source, where: str, row: dict[str, Any], fields: tuple[str, str], folder: Path
) -> None:
    name = row.get(fields[0])
    if not isinstance(name, str) or not name.strip():
        source.unpaired.append((where, "no image file is named"))
        return
    image = folder / name.strip()
    texts = clean_texts(row.get(fields[1]))
    if name.startswith(("http://", "https://")):
        source.unpaired.append((where, f"{name} is a web address, but nothing is downloaded"))
    elif not isfile(image):
        source.unpaired.append((where, f"its image {image} does not exist"))
    else:
        shown = str(image) if texts else f"{where} ({name})"
        source.items.append(Item(shown, texts, StoredFile(str(image)), columns=row))
        source.files.append(image)


def needed_field(path: Path, names: Sequence[str], wanted: Sequence[str], what: str) -> str:
    """The column of ``wanted`` that a table has; raises ``DataError`` where there is none."""
    found = first_field(names, wanted)
    if found is not None:
        return found
    url = first_field(names, URL_FIELDS)
    if url is not None and IMAGE_FIELDS[0] in wanted:
        raise DataError(
            f"{path} has web addresses in the column {url} and no images; download them with "
            "img2dataset and give the folder that it wrote, which holds the captions and the other "
            "columns too."
        )
    raise DataError(
        f"{path} has the columns {', '.join(map(str, names))} but none of {what}; name one "
        f"{wanted[0]} (or {', '.join(wanted[1:])})."
    )


# ------------------------------------------------------------------ rows of paths


def table_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line (parquet: row) numbers from 1 and rows of a table; raises ``DataError``."""
    try:
        if path.suffix.lower() == PARQUET:
            names = column_types(path)
            yield from enumerate(read_columns(path, list(names)).to_pylist(), start=1)
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


# ------------------------------------------------------------------ images inside parquet


def parquet_source(paths: Sequence[Path]) -> Source:
    """Parquet files with encoded images in them, as the hub's image data sets are stored.

    The image column holds bytes, or a struct with ``bytes`` (and perhaps ``path``).

    Raises:
        DataError: a file is broken, or lacks one of the two columns.
    """
    units, names = [], set()
    for path in paths:
        columns = list(column_types(path))
        image = _image_column(path) or needed_field(path, columns, IMAGE_FIELDS, "images")
        text = needed_field(path, columns, TEXT_FIELDS, "captions")
        if not _image_column(path):
            raise DataError(
                f"{path} holds paths of images in the column {image}, unlike the tables beside it; "
                "give tables of one form, or one table."
            )
        names.add(f"images from column {image}, captions from {text}")
        units.append(ParquetUnit(str(path), image, text))
    many = f"{len(paths)} tables from {paths[0]} on" if len(paths) > 1 else f"table {paths[0]}"
    title = f"{many} ({'; '.join(sorted(names))})"
    return Source(title, files=list(paths), units=list(units))


def _image_column(path: Path) -> str | None:
    """The column that holds encoded images, if there is one."""
    types = column_types(path)
    inside = [name for name, kind in types.items() if holds_images(kind)]
    return first_field(inside, (*IMAGE_FIELDS, *ENCODED_FIELDS))


@dataclass(frozen=True)
class ParquetUnit:
    """One parquet file with images inside."""

    path: str
    image: str
    text: str

    def listed(self, columns: Sequence[str]) -> Source:
        """List the rows; the images themselves stay unread."""
        source = Source(self.path)
        there = column_types(self.path)
        status = (STATUS,) if MESSAGE in there else ()
        wanted = [name for name in dict.fromkeys((self.text, *status, *columns)) if name in there]
        file = open_parquet(self.path)
        number = 0
        for group in range(file.num_row_groups):
            rows = read_columns(self.path, wanted, group).to_pylist()
            for index, row in enumerate(rows):
                number += 1
                if status and row.get(STATUS) not in (None, SUCCESS):
                    source.unpaired.append(
                        (f"{self.path}:{number}", "its image was not downloaded")
                    )
                    continue
                stored = StoredInParquet(self.path, group, index, self.image)
                found = {column: row[column] for column in columns if column in row}
                texts = clean_texts(row[self.text])
                source.items.append(Item(f"{self.path}:{number}", texts, stored, columns=found))
        file.close()
        return source
