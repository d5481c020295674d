"""Side files of img2dataset: for each shard a parquet table with what is known of its images."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from os.path import isfile
from pathlib import Path
from typing import Any

from vilau.data.sources.parquet import column_types, read_columns

KEY = "key"
"""Column that names the sample, as its files do."""


@lru_cache(maxsize=2)
def side_table(path: str, columns: tuple[str, ...]) -> dict[str, Mapping[str, Any]]:
    """The wanted columns by key; empty where the table is missing or has none of them. The last tables
    are kept, for a shard's samples are asked for one after another.

    Raises:
        DataError: the table is there and cannot be read.
    """
    if not isfile(path):
        return {}
    there = column_types(path)
    wanted = [column for column in columns if column in there]
    if KEY not in there or not wanted:
        return {}
    rows = read_columns(path, [KEY, *wanted]).to_pylist()
    return {str(row[KEY]): row for row in rows}


def is_side_file(path: Path) -> bool:
    """Whether a table describes the tar file or the folder of the same name beside it."""
    beside = path.with_suffix("")
    return beside.is_dir() or beside.with_name(f"{beside.name}.tar").is_file()
