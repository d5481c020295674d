"""What published benchmarks have in common: a question with its media and published columns; reading their files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vilau.errors import DataError

SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."


@dataclass(frozen=True)
class PublishedQuestion:
    """One question of a published benchmark."""

    prompt: str
    """What the model is asked, with the published ending."""
    row: dict[str, Any]
    """The published columns that its score reads."""
    media: tuple[Path, ...]
    """A picture, or the one video that ``video`` says it is."""
    video: bool = False


@dataclass(frozen=True)
class PublishedBenchmark:
    """A benchmark, the files it needs, and how they are read.

    ``needs`` are paths under the benchmark's folder. ``scored_as`` names the metric of `vilau.metrics.answers`.
    """

    name: str
    title: str
    needs: tuple[str, ...]
    read: Callable[[Path], list[PublishedQuestion]]
    scored_as: str
    max_new_tokens: int = 16
    remark: str = ""
    """What a number of it is not."""

    def missing(self, folder: Path) -> list[str]:
        """The needed paths that are not there."""
        return [need for need in self.needs if not (folder / need).exists()]


def read_json_file(path: Path) -> Any:
    """Read a JSON file; raises ``DataError`` naming it."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); put the published file there."
        ) from error


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of one JSON object per line; raises ``DataError`` naming file and line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); put the published file there."
        ) from error
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append(dict(json.loads(line)))
            except (ValueError, TypeError) as error:
                raise DataError(
                    f"{path}, line {number} is no JSON object ({error}); put the published file there."
                ) from error
    return rows


def fields(row: Any, names: Sequence[str], where: Path) -> list[Any]:
    """Return some fields of a row; raises ``DataError`` naming the file where one is missing."""
    if not isinstance(row, dict) or any(name not in row for name in names):
        held = ", ".join(row) if isinstance(row, dict) else type(row).__name__
        raise DataError(
            f"{where} holds a question with {held or 'nothing'}, but {', '.join(names)} are wanted; put the "
            "published file there."
        )
    return [row[name] for name in names]
