"""Files of answers: one JSON object per line."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vilau.errors import DataError
from vilau.metrics.answer_metric import AnswerMetric

PREDICTION = "prediction"
"""The field of a row with published columns that holds what the model said."""
HIDDEN = {"images_shown": False}
"""What stands in the row of a model that was not shown what it was asked about."""


def score_predictions(paths: Sequence[str | Path], metric: AnswerMetric) -> dict[str, float]:
    """Score files of answers to one benchmark again: rows with its published columns and ``prediction``.

    Args:
        paths: the files of one evaluation, one per rank.
        metric: the benchmark's, fresh, e.g. ``answer_metric("world_mme", style="llava")``.

    Raises:
        DataError: a file is broken, see `read_predictions`, or its rows are not of this benchmark.
    """
    for path in paths:
        rows = read_predictions(path, key=PREDICTION)
        try:
            metric.update_rows([row[PREDICTION] for row in rows], rows)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
    return {name: float(value) for name, value in metric.compute().items()}


def read_predictions(
    path: str | Path, *, key: str = "answer", expected: int | None = None
) -> list[dict[str, Any]]:
    """Return the rows of a JSONL file of answers, as `QuestionAnswering` and LLaVA's scripts write them.

    Args:
        path: the file.
        key: the field of each row that holds the model's answer (LLaVA: ``text``).
        expected: how many rows the file must hold; None: any number but none.

    Raises:
        DataError: the file is missing, empty, cut short, of another length, or a line is no JSON
            object with a text under ``key``; the message names file and line.
    """
    file = Path(path)
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(
            f"{file} cannot be read ({error.strerror}); name a file of predictions (JSONL)."
        ) from error
    # What follows the last line break is nothing, or a line that was cut or not ended.
    unended = lines.pop() if lines[-1].strip() else None
    rows = [_row(file, number, line, key) for number, line in enumerate(lines, 1) if line.strip()]
    if unended is not None:
        rows.append(_row(file, len(lines) + 1, unended, key, last=True))
    if not rows:
        raise DataError(f"{file} holds no predictions; evaluate again, or name another file.")
    if expected is not None and len(rows) != expected:
        raise DataError(
            f"{file} holds {len(rows)} predictions, but {expected} questions were asked; it may have been cut "
            "short: evaluate again."
        )
    return rows


def _row(file: Path, number: int, line: bytes, key: str, *, last: bool = False) -> dict[str, Any]:
    """Return the object on a line."""
    try:
        row = json.loads(line.decode("utf-8"))
    except ValueError as error:  # of the JSON or of the encoding
        what = "is cut short" if last else "is not JSON"
        raise DataError(
            f"{file}, line {number} {what}; evaluate again, or remove the line."
        ) from error
    if not isinstance(row, dict):
        raise DataError(
            f"{file}, line {number} holds a {type(row).__name__}; write an object with '{key}'."
        )
    if not isinstance(row.get(key), str):
        raise DataError(
            f"{file}, line {number} has no text under '{key}', only {', '.join(row) or 'nothing'}; name the field "
            "that holds the answer."
        )
    return row
