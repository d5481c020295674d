"""Readers of the benchmarks with lettered options: SEED-Bench, MMBench, ScienceQA."""

from __future__ import annotations

import base64
import binascii
import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from vilau.data.published.questions import (
    LETTER,
    EmbeddedPicture,
    PublishedBenchmark,
    PublishedQuestion,
    fields,
    lettered,
    read_list,
    read_mapping,
)
from vilau.errors import DataError
from vilau.types import LETTERS

MMBENCH = "mmbench_dev_en_20231003.tsv"
MMBENCH_OPTIONS = "ABCD"
MMBENCH_COLUMNS = ("index", "question", "hint", *MMBENCH_OPTIONS, "answer", "category", "image")
ROTATION = 1_000_000
"""MMBench: question i with its options moved on k places has the index i + k * ROTATION."""
LONGEST_REFERENCE = 64
"""A cell for a picture that is no longer holds the index of a row with the same picture."""
LONGEST_CELL = 2**30
"""Characters of a cell; the standard library's limit of 131,072 is shorter than a photograph."""


def read_seedbench(folder: Path, *, ranked: bool = False) -> list[PublishedQuestion]:
    """``SEED-Bench.json``; without the folder of videos the questions about pictures alone.

    ``ranked``: the options are not shown but ranked by likelihood, as SEED-Bench itself does.
    """
    path = folder / "SEED-Bench.json"
    videos = folder / "SEED-Bench-video"
    found = []
    for row in read_list(path, "questions"):
        number, kind, name, question, answer = fields(
            row,
            ("question_id", "data_type", "data_id", "question", "answer"),
            path,
            texts=("data_id", "question", "answer"),
        )
        if kind == "video" and not videos.is_dir():
            continue
        choices = fields(row, ("choice_a", "choice_b", "choice_c", "choice_d"), path)
        columns = {"question_id": number, "question": question, "answer": answer, "data_type": kind}
        place = videos if kind == "video" else folder / "SEED-Bench-image"
        prompt = question if ranked else f"{question}\n{lettered(choices)}{LETTER}"
        options = tuple(map(str, choices)) if ranked else ()
        found.append(
            PublishedQuestion(
                prompt, columns, (place / name,), video=kind == "video", options=options
            )
        )
    return found


# ------------------------------------------------------------------ ScienceQA


def read_scienceqa_img(folder: Path) -> list[PublishedQuestion]:
    """The test questions that have a picture: ``pid_splits.json`` {test: [id]}, ``problems.json`` by id.

    A problem is {question, choices, answer, hint, image}: the answer counts from 0, ``image`` is null without one.
    Pictures are ``images/test/<id>/<image>``.
    """
    splits, path = folder / "pid_splits.json", folder / "problems.json"
    problems = read_mapping(path)
    found = []
    for number in map(str, read_list(splits, "test")):
        if number not in problems:
            raise DataError(f"{path} has no problem {number} of {splits.name}; put the pair there.")
        question, choices, answer, hint, image = fields(
            problems[number], ("question", "choices", "answer", "hint", "image"), path
        )
        if not image:
            continue
        if not isinstance(choices, list) or answer not in range(min(len(choices), len(LETTERS))):
            raise DataError(
                f"{path}, problem {number} has the answer {answer!r}, which must be the place of one of its choices, "
                "counted from 0; put the published file there."
            )
        context = f"Context: {hint}\n" if hint else ""
        columns = {
            "id": number, "question": question, "choices": choices, "answer": answer, "hint": hint,
        }  # fmt: skip
        prompt = f"{context}{question}\n{lettered(choices)}{LETTER}"
        media = (folder / "images" / "test" / number / image,)
        found.append(PublishedQuestion(prompt, columns, media))
    return found


# ------------------------------------------------------------------ MMBench


def read_mmbench(folder: Path) -> list[PublishedQuestion]:
    """MMBench's table of English development questions, rotations behind the question they are of.

    Columns: ``index``, ``question``, ``hint``, ``A`` to ``D``, ``answer``, ``category``, ``image`` (base64, or the
    index of a row with the same picture). Cells that are empty or ``nan`` hold nothing.
    """
    path = folder / MMBENCH
    rows: dict[int, dict[str, Any]] = {}
    for place, row in _table(path):
        columns, index = _mmbench_columns(row, place)
        if index in rows:
            raise DataError(f"{place} holds index {index} once more; put the published file there.")
        rows[index] = columns
    shown = _pictures(path, {index: columns.pop("image") for index, columns in rows.items()})
    if rows and max(rows) < ROTATION:
        raise DataError(
            f"{path} holds no rotated questions (index from {ROTATION} on), by which circular accuracy goes; put the "
            "published file there."
        )
    found = []
    for index in sorted(rows, key=lambda index: (index % ROTATION, index)):
        together = str(index % ROTATION)
        media = (shown[index],)
        prompt = _mmbench_prompt(rows[index])
        found.append(PublishedQuestion(prompt, rows[index], media, together=together))
    return found


def _mmbench_columns(row: dict[str, str], place: str) -> tuple[dict[str, Any], int]:
    """Return the columns that are kept, None for a cell that holds nothing, and the index."""
    cells = fields(row, MMBENCH_COLUMNS, place)
    columns: dict[str, Any] = {
        name: None if cell.strip() in ("", "nan") else cell
        for name, cell in zip(MMBENCH_COLUMNS, cells, strict=True)
    }
    if not str(columns["index"]).isdecimal():
        raise DataError(
            f"{place} has the index {columns['index']!r}, which must be a whole number; put the published file there."
        )
    offered = [letter for letter in MMBENCH_OPTIONS if columns[letter] is not None]
    if columns["answer"] not in offered:
        raise DataError(
            f"{place} offers the options {', '.join(offered) or 'nothing'} but has the answer {columns['answer']!r}; "
            "put the published file there."
        )
    columns["index"] = int(columns["index"])
    return columns, columns["index"]


def _mmbench_prompt(columns: dict[str, Any]) -> str:
    lines = [f"{one}. {columns[one]}" for one in MMBENCH_OPTIONS if columns[one] is not None]
    asked = [columns["hint"], columns["question"], "There are several options:"]
    words = " ".join(str(part) for part in asked if part is not None)
    # The empty line before the demand for a letter is lmms-eval's.
    return "\n".join([words, *lines]) + "\n" + LETTER


def _pictures(path: Path, cells: dict[int, str | None]) -> dict[int, EmbeddedPicture]:
    """Return the picture of each index; rows with the same picture share it."""
    decoded: dict[str, EmbeddedPicture] = {}
    found = {}
    for index, cell in cells.items():
        where = f"{path}, index {index}"
        held = cell
        if cell is not None and len(cell) <= LONGEST_REFERENCE:
            held = cells.get(int(cell)) if cell.isdecimal() else None
        if held is None or len(held) <= LONGEST_REFERENCE:
            raise DataError(
                f"{where} holds {(cell or 'nothing')!r} in the place of a picture; put the published file there."
            )
        if held not in decoded:
            try:
                decoded[held] = EmbeddedPicture(base64.b64decode(held, validate=True), where)
            except (binascii.Error, ValueError) as error:
                raise DataError(
                    f"{where} holds a picture that is no base64 ({error}); put the published file there."
                ) from None
        found[index] = decoded[held]
    return found


def _table(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the rows of a table with tabs between its cells, each with its place for messages."""
    limit = csv.field_size_limit(LONGEST_CELL)
    try:
        # Line breaks inside a quoted cell belong to it: the reader of the table must see them.
        with path.open(encoding="utf-8-sig", newline="") as file:
            # strict: without it a quote that is never closed would swallow the rest of the table.
            reader = csv.DictReader(file, delimiter="\t", strict=True)
            for number, row in enumerate(reader, 1):
                place = f"{path}, row {number}"
                if None in row or None in row.values():
                    raise DataError(
                        f"{place} has not one cell in each column; put the whole published file there."
                    )
                yield place, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read ({error}); put the published file there."
        ) from error
    finally:
        csv.field_size_limit(limit)


CHOICE_BENCHMARKS = (
    PublishedBenchmark(
        "seedbench", "SEED-Bench", ("SEED-Bench.json", "SEED-Bench-image"), read_seedbench,
        remark="questions about videos only where SEED-Bench-video lies there too",
    ),
    PublishedBenchmark(
        "seedbench_ranked", "SEED-Bench, options ranked by likelihood", ("SEED-Bench.json", "SEED-Bench-image"),
        partial(read_seedbench, ranked=True), files_of="seedbench",
        remark="as its authors measure; the papers ask for a letter; videos only where SEED-Bench-video lies there too",
    ),
    PublishedBenchmark(
        "mmbench", "MMBench dev (English)", (MMBENCH,), read_mmbench, max_new_tokens=1024,
        remark="static matcher; where it finds no option the papers ask a judge model",
    ),
    PublishedBenchmark(
        "scienceqa_img", "ScienceQA test with pictures", ("problems.json", "pid_splits.json", "images/test"),
        read_scienceqa_img,
    ),
)  # fmt: skip
