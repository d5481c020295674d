"""Numbers of a table: their spread over seeds, and how a column prints them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from vilau.study.schema import Column


def deviation(values: Sequence[float]) -> float:
    """Return the sample standard deviation; NaN where a value is not finite."""
    mean = statistics.fmean(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def show_number(value: float | None, column: Column) -> str:
    """Return a value as its column prints it; ``?`` where there is none."""
    if value is None:
        return "?"
    if column.format:
        return format(value, column.format)
    size = abs(value)
    decimals = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 3
    return f"{value:.{decimals}f}"
