"""Text alone: .txt files of one document per line or between blank lines, .jsonl files with ``text``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vilau.data.sources.items import Item, Source, whole_text
from vilau.data.sources.lines import JSONL, ends_in, files_at, opened_lines
from vilau.data.sources.tables import jsonl_rows
from vilau.errors import DataError

TXT = (".txt", ".txt.gz")
FIELD = "text"


def text_source(path: str) -> Source:
    """A file of texts, a folder or a pattern of such.

    A .txt file with a blank line between two of its lines holds documents between blank lines, any other
    one document per line; the title says which files are which. A .jsonl file has one object with ``text``
    per line.

    Raises:
        DataError: there is no such file.
    """
    files = files_at(path, (*TXT, *JSONL), "texts")
    units = [TextUnit(str(file), ends_in(file, TXT) and _has_blank_lines(file)) for file in files]
    blocks = sum(unit.blocks for unit in units)
    rows = sum(ends_in(file, JSONL) for file in files)
    forms = (
        (len(files) - rows - blocks, "one document per line"),
        (blocks, "documents between blank lines"),
        (rows, f"JSON lines with {FIELD}"),
    )
    told = ", ".join(f"{number} of {form}" for number, form in forms if number)
    many = f"{len(files)} text files from {files[0]} on" if len(files) > 1 else f"text {files[0]}"
    return Source(f"{many} ({told})", files=files, units=list(units))


def _has_blank_lines(path: Path) -> bool:
    """Whether a line with text follows a blank line that follows a line with text."""
    seen = gap = False
    with opened_lines(path) as lines:
        for line in lines:
            if not line.strip():
                gap = seen
            elif gap:
                return True
            else:
                seen = True
    return False


@dataclass(frozen=True)
class TextUnit:
    """One file of texts."""

    path: str
    blocks: bool
    """Documents stand between blank lines."""

    def listed(self, columns: Sequence[str]) -> Source:
        """List the documents.

        Raises:
            DataError: the file is no UTF-8 text, or a line of JSON has no text.
        """
        source = Source(self.path)
        path = Path(self.path)
        with opened_lines(path) as lines:
            if ends_in(path, JSONL):
                for number, row in jsonl_rows(path, lines):
                    found = {column: row[column] for column in columns if column in row}
                    _add(source, f"{path}:{number}", _text(path, number, row), found)
            else:
                for number, text in _documents(lines, self.blocks):
                    _add(source, f"{path}:{number}", text, {})
        return source


def _add(source: Source, name: str, text: str, columns: dict[str, object]) -> None:
    text = whole_text(text).strip()
    if text:
        source.items.append(Item(name, (text,), None, columns=columns))
    else:
        source.unpaired.append((name, "its text is empty"))


def _text(path: Path, number: int, row: dict[str, object]) -> str:
    text = row.get(FIELD)
    if not isinstance(text, str):
        raise DataError(
            f"{path}:{number} has {'no' if FIELD not in row else 'something else as'} {FIELD}; write an "
            f'object with it on every line, e.g. {{"{FIELD}": "a sentence"}}.'
        )
    return text


def _documents(lines: Iterator[str], blocks: bool) -> Iterator[tuple[int, str]]:
    """Yield the number of its first line and the text of each document."""
    gathered: list[str] = []
    first = 0
    for number, line in enumerate(lines, start=1):
        if line.strip():
            first = first if gathered else number
            gathered.append(line)
        if gathered and (not blocks or not line.strip()):
            yield first, "".join(gathered)
            gathered = []
    if gathered:
        yield first, "".join(gathered)
