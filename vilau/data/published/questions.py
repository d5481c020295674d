"""What published benchmarks have in common: a question with its media and published columns; reading their files."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from vilau.errors import DataError
from vilau.types import LETTERS

SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."


# Compared by identity: the bytes are long, and rotations of a question share one object.
@dataclass(frozen=True, eq=False)
class EmbeddedPicture:
    """A picture that lies inside a published table instead of in a file of its own."""

    data: bytes
    """The encoded picture."""
    where: str
    """Table and question, for messages."""

    def open(self) -> Image.Image:
        """Decode the picture in the mode it has; raises ``DataError`` naming the question."""
        try:
            image = Image.open(io.BytesIO(self.data))
            image.load()
        except Exception as error:  # Pillow's decoders raise many types for broken bytes
            raise DataError(
                f"{self.where} holds a picture that cannot be read ({error}); put the published file there."
            ) from error
        return image


@dataclass(frozen=True)
class PublishedQuestion:
    """One question of a published benchmark."""

    prompt: str
    """What the model is asked, with the published ending."""
    row: dict[str, Any]
    """The published columns that its score reads."""
    media: tuple[Path | EmbeddedPicture, ...]
    """A picture, or the one video that ``video`` says it is."""
    video: bool = False
    together: str = ""
    """Neighbours that share it count only together: MME's pairs, MMBench's rotations. Empty: it counts alone."""
    options: tuple[str, ...] = ()
    """What the model chooses from by likelihood, without being shown it; empty: it answers."""


@dataclass(frozen=True)
class PublishedBenchmark:
    """A benchmark, the files it needs, and how they are read; ``needs`` are paths under its ``folder``."""

    name: str
    """Lmms-eval's, where it has one; `vilau.metrics.answers` knows the score by it."""
    title: str
    needs: tuple[str, ...]
    read: Callable[[Path], list[PublishedQuestion]]
    max_new_tokens: int = 16
    remark: str = ""
    """What a number of it is not."""
    files_of: str = ""
    """The benchmark whose files it reads, where these are not its own."""

    @property
    def folder(self) -> str:
        """Its folder's name."""
        return self.files_of or self.name


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
        # Lines end in \n: JSON may hold U+2028 and other ends of lines within its texts.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
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


def read_list(path: Path, key: str) -> list[Any]:
    """Return the list that a JSON file holds under a key; raises ``DataError`` naming both."""
    content = read_json_file(path)
    if not isinstance(content, dict) or not isinstance(content.get(key), list):
        raise DataError(f"{path} has no list '{key}'; put the published file there.")
    return list(content[key])


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the questions by id that a JSON file holds; raises ``DataError`` naming it."""
    content = read_json_file(path)
    if not isinstance(content, dict):
        raise DataError(f"{path} is no object of questions by id; put the published file there.")
    return content


def lettered(options: Iterable[str]) -> str:
    """Return options as lines ``A. ...``, ``B. ...``."""
    # Options beyond the last letter would be left out in silence: the readers count them first.
    return "\n".join(
        f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)
    )


def fields(
    row: Any, names: Sequence[str], where: Path | str, *, texts: Sequence[str] = ()
) -> list[Any]:
    """Return some fields of a row; raises ``DataError`` naming the file where one is missing, or where one
    named in ``texts`` is no text."""
    if not isinstance(row, dict) or any(name not in row for name in names):
        held = ", ".join(row) if isinstance(row, dict) else type(row).__name__
        raise DataError(
            f"{where} holds a question with {held or 'nothing'}, but {', '.join(names)} are wanted; put the "
            "published file there."
        )
    for name in texts:
        if not isinstance(row[name], str):
            raise DataError(
                f"{where} holds a question whose {name} is {row[name]!r}; it must be a text. Put the published file "
                "there."
            )
    return [row[name] for name in names]


def annotators(answers: Any, where: Path | str) -> list[Any]:
    """Return a question's answers as they are; raises ``DataError`` where they are no texts or ``{answer: text}``."""
    given = answers if isinstance(answers, list) else [None]
    said = [one.get("answer") if isinstance(one, dict) else one for one in given]
    if not all(isinstance(one, str) for one in said):
        raise DataError(
            f"{where} holds a question with the answers {str(answers)[:60]}; they must be a list of annotators' "
            "answers. Put the published file there."
        )
    return given


def limited(questions: list[PublishedQuestion], limit: int | None) -> list[PublishedQuestion]:
    """Return the first ``limit`` questions, and those behind them that count only together with the last."""
    if limit is None or limit >= len(questions):
        return questions
    end, together = limit, questions[limit - 1].together
    while together and end < len(questions) and questions[end].together == together:
        end += 1
    return questions[:end]
