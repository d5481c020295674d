"""Parquet files: the optional package that reads them, and images that lie inside them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from os.path import dirname, join
from pathlib import Path
from typing import Any

from vilau.data.media.images import UnreadableImageError
from vilau.errors import DataError

PARQUET = ".parquet"


def open_parquet(path: Path | str) -> Any:
    """Return pyarrow's ``ParquetFile`` over ``path``.

    Raises:
        DataError: pyarrow is not installed, or the file is broken.
    """
    # Imported here: pyarrow is optional, and large.
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise DataError(
            f"{path} needs the package pyarrow; run `pip install 'vilau[parquet]'`, or save the table as csv."
        ) from error
    try:
        return ParquetFile(path)
    except (ArrowException, OSError) as error:
        raise DataError(f"{path} is no readable parquet file ({error}); write it again.") from error


def column_types(path: Path | str) -> dict[str, str]:
    """Names and types of the columns; raises ``DataError`` as ``open_parquet`` does."""
    schema = open_parquet(path).schema_arrow
    return {name: str(schema.field(name).type) for name in schema.names}


def holds_images(kind: str) -> bool:
    """Whether a column of this type holds encoded images: bytes, or a struct with bytes in it."""
    return kind in ("binary", "large_binary", "binary_view") or (
        kind.startswith("struct<") and "bytes: " in kind
    )


def read_columns(path: Path | str, columns: Sequence[str], group: int | None = None) -> Any:
    """Return some columns as a pyarrow table, of one row group or of all.

    Raises:
        DataError: the file cannot be read.
    """
    file = open_parquet(path)
    try:
        if group is None:
            return file.read(columns=list(columns))
        return file.read_row_group(group, columns=list(columns))
    except Exception as error:  # pyarrow's decoders raise many types for broken bytes
        raise DataError(f"{path} is no readable parquet file ({error}); write it again.") from error
    finally:
        file.close()


def encoded_image(path: str, group: int, row: int, column: str) -> bytes:
    """Bytes of the image in ``row`` of a row group; raises ``OSError`` or ``UnreadableImageError``.

    A struct may name a file instead of holding its bytes, as the hub's image data sets can.
    """
    value = _group(path, group, column)[row].as_py()
    if isinstance(value, dict):
        name = value.get("path")
        if value.get("bytes") is None and name:
            return Path(join(dirname(path), name)).read_bytes()
        value = value.get("bytes")
    if value is None:
        raise UnreadableImageError("the row holds no image")
    return bytes(value)


@lru_cache(maxsize=1)
def _group(path: str, group: int, column: str) -> Any:
    """One column of one row group, kept while its rows are read one after another."""
    try:
        return read_columns(path, [column], group).column(0)
    except DataError as error:
        raise UnreadableImageError(str(error)) from error
