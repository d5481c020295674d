"""The paper's sentences held against the measured numbers: do they hold, by how much, for how many seeds?"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vilau.study.numbers import deviation, show_number
from vilau.study.plan import Plan
from vilau.study.schema import Claim


@dataclass
class Checked:
    """A claim held against the measured means."""

    claim: Claim
    holds: bool | None
    """None where a number is missing."""
    shown: str
    """The comparison with the measured numbers in place of the names."""
    seeds_holding: int = 0
    seeds: int = 0
    margin: str = ""
    """By how much the comparison holds, in the unit of its column: mean, and standard deviation over seeds.
    Empty for a comparison of several columns."""

    @property
    def mark(self) -> str:
        """``✓`` where it holds on the means and for every seed, ``~`` on the means alone, ``✗``; ``?`` if not known."""
        if self.holds is None:
            return "?"
        if not self.holds:
            return "✗"
        return "✓" if self.seeds_holding == self.seeds else "~"


def check_claim(claim: Claim, cells: Mapping[str, Mapping[int, float]], plan: Plan) -> Checked:
    """Evaluate a claim on the means, and on each seed that has all its numbers.

    Args:
        claim: what is said, and the comparison.
        cells: ``row.Column`` -> seed -> value.
        plan: whose seeds count.
    """
    columns = plan.study.columns
    names = claim.holds.names()
    known = {name: statistics.fmean(cells[name].values()) for name in names if cells.get(name)}

    def column(name: str) -> str:
        return next(heading for heading in columns if name.endswith(f".{heading}"))

    text = claim.holds.show(lambda name: show_number(known.get(name), columns[column(name)]))
    if len(known) < len(names):
        return Checked(claim, None, text)
    whole = [
        values
        for seed in plan.seeds
        if len(values := {name: cells[name][seed] for name in names if seed in cells[name]})
        == len(names)
    ]
    margins = [margin for values in whole if (margin := _margin(claim, values)) is not None]
    headings = {column(name) for name in names}
    unit = columns[headings.pop()] if len(headings) == 1 else None
    return Checked(
        claim,
        _true(claim, known),
        text,
        seeds_holding=sum(_true(claim, values) for values in whole),
        seeds=len(whole),
        margin="" if unit is None else _spread(margins, lambda value: show_number(value, unit)),
    )


def _spread(margins: Sequence[float], show: Callable[[float], str]) -> str:
    if not margins:
        return ""
    mean = show(statistics.fmean(margins))
    return mean if len(margins) < 2 else f"{mean} ± {show(deviation(margins))}"


def _margin(claim: Claim, values: Mapping[str, float]) -> float | None:
    try:
        return claim.holds.margin(values)
    except ZeroDivisionError:
        return None


def _true(claim: Claim, values: Mapping[str, float]) -> bool:
    try:
        return bool(claim.holds.value(values))
    except ZeroDivisionError:
        return False
