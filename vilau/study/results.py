"""Gather the numbers of finished runs into a table that never mixes unlike measurements."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vilau.study.claims import Checked, check_claim
from vilau.study.numbers import deviation, show_number
from vilau.study.plan import Plan
from vilau.study.schema import Column, Study
from vilau.study.store import Store, read_json
from vilau.study.suggest import did_you_mean


@dataclass
class Measured:
    """A table cell: one value per seed, or the reason why there is none."""

    values: dict[int, float] = field(default_factory=dict)
    """Seed -> value."""
    short: str = ""
    """What the cell says without a number: ``not run``, ``not logged``, ``other passport``."""
    note: str = ""
    """The reason in a sentence."""
    passport: dict[str, Any] | None = None
    decimals: int | None = None
    """Of a number of the paper, in the paper's unit: how many it is printed with."""

    @property
    def mean(self) -> float | None:
        """Mean over seeds, or None."""
        return statistics.fmean(self.values.values()) if self.values else None

    constant: bool = False
    """The value does not hang on the seed (a written baseline, or one that came out equal)."""

    @property
    def sd(self) -> float | None:
        """Sample standard deviation over seeds, or None for constants and fewer than two."""
        if self.constant or len(self.values) < 2:
            return None
        return deviation(list(self.values.values()))


@dataclass
class Row:
    """A table line: a variant of ours, a baseline, or a line of the paper."""

    name: str
    label: str
    cells: dict[str, Measured]


@dataclass
class Results:
    """Everything a report says in numbers."""

    plan: Plan
    ours: list[Row]
    baselines: list[Row]
    paper: list[Row]
    claims: list[Checked]
    metrics: dict[str, dict[str, Any]]
    """Run name -> its ``metrics.json``; only finished runs."""

    @property
    def complete(self) -> bool:
        """Whether every run of the plan is finished."""
        return len(self.metrics) == len(self.plan.runs)

    def notes(self) -> list[str]:
        """Return the reasons of empty cells, each once."""
        rows = [*self.ours, *self.baselines]
        return list(dict.fromkeys(c.note for row in rows for c in row.cells.values() if c.note))


def collect(plan: Plan, store: Store, reasons: Mapping[str, str] | None = None) -> Results:
    """Read the finished runs of a plan.

    Args:
        plan: all variants and stages (a plan that leaves some out yields ``not run`` cells).
        store: where the runs live.
        reasons: run name -> why it has no result, where an engine knows better than the files.
    """
    found = {name: metrics for name in plan.runs if (metrics := store.metrics(name)) is not None}
    reader = _Reader(plan, store, found, reasons or {})
    study = plan.study
    ours = [
        Row(name, label, {h: reader.cell(variant, c) for h, c in columns.items()})
        for name, label, variant, columns in _lines(study)
    ]
    labels = {row.name: row.label for row in ours}
    for heading in study.columns:
        _refuse_unlike([row.cells[heading] for row in ours])
    baselines = [
        Row(name, name, {heading: reader.baseline(entry) for heading, entry in cells.items()})
        for name, cells in study.baselines.items()
    ]
    paper = _paper(study.paper, labels)
    cells = {
        f"{row.name}.{h}": row.cells[h].values for row in [*ours, *baselines] for h in row.cells
    }
    claims = [check_claim(claim, cells, plan) for claim in study.claims]
    return Results(plan, ours, baselines, paper, claims, found)


def _lines(study: Study) -> list[tuple[str, str, str, dict[str, Column]]]:
    """Return (name, label, variant, columns) of each line of ours."""
    if not study.rows:
        return [(v.name, v.label, v.name, study.columns) for v in study.variants.values()]
    (variant,) = study.variants
    return [
        (
            row.name,
            row.label,
            variant,
            {h: replace(c, metric=c.metric + row.ending) for h, c in study.columns.items()},
        )
        for row in study.rows.values()
    ]


@dataclass
class _Reader:
    """Look up one metric of one stage for every seed."""

    plan: Plan
    store: Store
    metrics: dict[str, dict[str, Any]]
    reasons: Mapping[str, str]

    def cell(self, variant: str, column: Column) -> Measured:
        out = Measured()
        passports: list[Any] = []
        for seed in self.plan.seeds:
            value, passport, short, note = self._one(variant, seed, column)
            if value is None:
                out.short = out.short or short
                out.note = out.note or note
            else:
                out.values[seed] = value
                passports.append(passport)
        if out.values:
            missing = len(self.plan.seeds) - len(out.values)
            out.short, out.note = "", (f"{out.note} ({missing} seeds missing)" if missing else "")
            out.passport = passports[0]
            if len({_fingerprint(p) for p in passports}) > 1:
                out.values, out.short = {}, "unlike passports"
                out.note = f"{variant}: its seeds measured `{column.metric}` in different ways."
        return out

    def baseline(self, entry: Column | float) -> Measured:
        if not isinstance(entry, Column):
            return Measured(dict.fromkeys(self.plan.seeds, float(entry)), constant=True)
        cells = [self.cell(variant, entry) for variant in self.plan.study.variants]
        filled = [cell for cell in cells if cell.values]
        if not filled:
            return cells[0]
        seeds = sorted({seed for cell in filled for seed in cell.values})
        means = {
            seed: statistics.fmean(c.values[seed] for c in filled if seed in c.values)
            for seed in seeds
        }
        constant = len(set(means.values())) == 1
        return Measured(means, passport=filled[0].passport, constant=constant)

    def _one(self, variant: str, seed: int, column: Column) -> tuple[float | None, Any, str, str]:
        cell = self.plan.cell(variant, seed, column.stage)
        place = f"{variant}/{column.stage}"
        theirs = self.plan.study.stages[column.stage].variants
        if (theirs and variant not in theirs) or (
            column.variants and variant not in column.variants
        ):
            return None, None, "", ""
        if cell is None:
            return None, None, "not run", f"{place} was left out (--only or --until)."
        metrics = self.metrics.get(cell.run)
        if metrics is None:
            return None, None, "not run", self._why(place, cell.run)
        known = {**metrics.get("train_metrics", {}), **metrics["metrics"]}
        if column.metric not in known:
            hint = did_you_mean(column.metric, known)
            return None, None, "not logged", f"{place} logged no `{column.metric}`.{hint}"
        passport = metrics.get("passports", {}).get(column.metric)
        return float(known[column.metric]), passport, "", ""

    def _why(self, place: str, run: str) -> str:
        if run in self.reasons:
            return f"{place}: {self.reasons[run].rstrip('.')}."
        status = read_json(self.store.run_dir(run) / "status.json")
        if status:
            return f"{place} was cut off at step {status['step']} of {status['max_steps']}."
        return f"{place} has not been run."


def _paper(rows: Mapping[str, Mapping[str, float]], labels: Mapping[str, str]) -> list[Row]:
    """The paper's lines; the numbers of a column have as many decimals as the most exact of them (YAML drops zeros)."""
    decimals: dict[str, int] = {}
    for cells in rows.values():
        for heading, value in cells.items():
            digits = len(f"{value:g}".partition(".")[2])
            decimals[heading] = max(digits, decimals.get(heading, 0))
    return [
        Row(
            name,
            labels[name],
            {h: Measured({0: v}, decimals=decimals[h]) for h, v in cells.items()},
        )
        for name, cells in rows.items()
    ]


def _refuse_unlike(cells: list[Measured]) -> None:
    """Empty the cells of a column whose passport differs from that of most."""
    filled = [cell for cell in cells if cell.values]
    counts = Counter(_fingerprint(cell.passport) for cell in filled)
    if len(counts) < 2:
        return
    common, _ = counts.most_common(1)[0]
    reference = next(cell.passport for cell in filled if _fingerprint(cell.passport) == common)
    for cell in filled:
        if _fingerprint(cell.passport) != common:
            cell.note = f"not comparable: {_difference(reference, cell.passport)}."
            cell.values, cell.short = {}, "other passport"


def _fingerprint(passport: dict[str, Any] | None) -> str:
    return json.dumps(passport, sort_keys=True)


def _difference(reference: dict[str, Any] | None, other: dict[str, Any] | None) -> str:
    if reference is None or other is None:
        return "one of the numbers has no passport"
    keys = [key for key in {**reference, **other} if reference.get(key) != other.get(key)]
    return "; ".join(
        f"{key} is `{other.get(key)}`, elsewhere `{reference.get(key)}`" for key in keys
    )


def show_cell(cell: Measured | None, column: Column) -> str:
    """Return ``mean``, ``mean ± sd``, the short reason, or a dash for an empty cell.

    A number of the paper stands as it was printed there, in the paper's unit.
    """
    if cell is None:
        return "–"
    if cell.mean is None:
        return cell.short or "–"
    if cell.decimals is not None:
        return f"{cell.mean:.{cell.decimals}f}"
    text = show_number(cell.mean, column)
    return text if cell.sd is None else f"{text} ± {show_number(cell.sd, column)}"
