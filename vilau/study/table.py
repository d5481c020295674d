"""The table of a study: for the terminal, as Markdown, as CSV and as JSON."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vilau.study.claims import Checked
from vilau.study.results import Measured, Results, Row, show_cell
from vilau.study.schema import Column
from vilau.study.store import Store, read_json

WIDE = 8
"""More columns than this are printed as lines, one metric each."""

_PAPER = "paper: "


def terminal_table(results: Results, width: int = 120) -> str:
    """Return the table with claims and notes as plain text.

    A table wider than ``width`` characters is turned: a line per metric, a column per variant.
    """
    lines = _aligned(_grid(results))
    if max(len(line) for line in lines) > width:
        lines = _aligned(_turned(results))
    return "\n".join([*lines, *_below(results)])


def markdown_table(results: Results) -> str:
    """Return the report's ``table.md``."""
    plan = results.plan
    grid = _turned(results) if len(plan.study.columns) > WIDE else _grid(results)
    header, *body = ([cell for cell in line if cell != "│"] for line in grid if line)
    lines = [f"# {plan.study.name}", ""]
    if plan.study.question:
        lines += [plan.study.question, ""]
    seeds = ", ".join(str(seed) for seed in plan.seeds)
    lines += [f"Scale {plan.scale}, seeds {seeds}.", ""]
    lines.append("| " + " | ".join(header) + " |")
    lines.append("|---" + "|--:" * (len(header) - 1) + "|")
    lines += ["| " + " | ".join(line) + " |" for line in body]
    below = [line if line.startswith("  ") else line and f"{line}  " for line in _below(results)]
    return "\n".join([*lines, *below]) + "\n"


def csv_table(results: Results) -> str:
    """Return one line per row: its kind, its name, then mean, sd and number of seeds per column."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    headings = list(results.plan.study.columns)
    writer.writerow(
        ["kind", "name", "label", *(f"{h}{end}" for h in headings for end in ("", " sd", " seeds"))]
    )
    for kind, rows in _sections(results):
        for row in rows:
            values: list[Any] = []
            for heading in headings:
                cell = row.cells.get(heading) or Measured()
                seeds = "" if kind == "paper" else len(cell.values)
                values += ["" if cell.mean is None else cell.mean, cell.sd or "", seeds]
            writer.writerow([kind, row.name, row.label, *values])
    return out.getvalue()


def results_json(results: Results) -> dict[str, Any]:
    """Return everything in the table as plain data (numbers that are not finite become null)."""
    plan = results.plan
    return {
        "study": plan.study.name,
        "question": plan.study.question,
        "scale": plan.scale,
        "seeds": list(plan.seeds),
        "complete": results.complete,
        "columns": {
            heading: {
                "stage": column.stage,
                "metric": column.metric,
                "higher_is_better": column.higher_is_better,
            }
            for heading, column in plan.study.columns.items()
        },
        **{
            kind: {
                row.name: {
                    "label": row.label,
                    **{heading: _cell_json(cell) for heading, cell in row.cells.items()},
                }
                for row in rows
            }
            for kind, rows in _sections(results)
        },
        "claims": [_claim_json(checked) for checked in results.claims],
        "notes": results.notes(),
        "runs": {
            name: {"metrics": {k: _finite(v) for k, v in metrics["metrics"].items()}}
            | {key: metrics.get(key) for key in ("seconds", "steps", "parameters", "device")}
            for name, metrics in results.metrics.items()
        },
    }


MADE_OF = ".made-of.json"
"""File in a report's folder with the fingerprint of what it tells."""


def fingerprint(results: Results, store: Store, command: str) -> dict[str, str]:
    """Return what a report hangs on: numbers, state of unfinished runs, the code that writes it."""
    unfinished = [name for name in results.plan.runs if name not in results.metrics]
    states = {name: read_json(store.run_dir(name) / "status.json") for name in unfinished}
    finished_at = {name: m.get("finished_at") for name, m in results.metrics.items()}
    content = json.dumps([results_json(results), states, finished_at, command], sort_keys=True)
    code = "".join(sorted(str(p.stat().st_mtime_ns) for p in Path(__file__).parent.glob("*.py")))
    return {"sha256": hashlib.sha256((content + code).encode()).hexdigest()}


def claim_line(checked: Checked) -> str:
    """Return ``✓ says  (numbers)`` of a claim, by how much and for how many seeds it holds."""
    margin = f", margin {checked.margin}" if checked.margin else ""
    seeds = f", {checked.seeds_holding} of {checked.seeds} seeds" if checked.seeds > 1 else ""
    return f"{checked.mark} {checked.claim.says}  ({checked.shown}{margin}{seeds})"


def arrow(column: Column) -> str:
    """Return which way is better."""
    return "↑" if column.higher_is_better else "↓"


def _grid(results: Results) -> list[list[str]]:
    """Return the table's lines of cells; an empty line stands for a rule."""
    columns = results.plan.study.columns
    headings = [f"{h} {arrow(c)}" for h, c in columns.items()]
    lines: list[list[str]] = [[results.plan.study.name, *headings]]
    for kind, rows in _sections(results):
        if rows:
            lines.append([])
        lines += [
            [_title(kind, row), *(_text(row, heading, columns) for heading in columns)]
            for row in rows
        ]
    return lines


def _turned(results: Results) -> list[list[str]]:
    """Return the table with a line per metric; bars part ours, baselines and the paper."""
    columns = results.plan.study.columns
    sections = [(kind, rows) for kind, rows in _sections(results) if rows]
    header = [results.plan.study.name]
    lines = [[f"{heading} {arrow(column)}"] for heading, column in columns.items()]
    for number, (kind, rows) in enumerate(sections):
        bar = ["│"] if number else []
        header += [*bar, *(_title(kind, row) for row in rows)]
        for line, heading in zip(lines, columns, strict=True):
            line += [*bar, *(_text(row, heading, columns) for row in rows)]
    return [header, [], *lines]


def _title(kind: str, row: Row) -> str:
    return f"{_PAPER}{row.label}" if kind == "paper" else row.label


def _text(row: Row, heading: str, columns: Mapping[str, Column]) -> str:
    return show_cell(row.cells.get(heading), columns[heading])


def _aligned(grid: list[list[str]]) -> list[str]:
    widths = [max(len(line[i]) for line in grid if line) for i in range(len(grid[0]))]
    rule = "─" * (sum(widths) + 2 * len(widths) - 2)
    lines = []
    for line in grid:
        if not line:
            lines.append(rule)
            continue
        first = line[0].ljust(widths[0])
        cells = (text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True))
        lines.append("  ".join([first, *cells]).rstrip())
    return lines


def _below(results: Results) -> list[str]:
    lines: list[str] = []
    if results.claims:
        lines += ["", *(claim_line(checked) for checked in results.claims)]
    if notes := results.notes():
        lines += ["", *(f"- {note}" for note in notes)]
    return lines


def _sections(results: Results) -> Sequence[tuple[str, list[Row]]]:
    return (("ours", results.ours), ("baselines", results.baselines), ("paper", results.paper))


def _cell_json(cell: Measured) -> dict[str, Any]:
    return {
        "mean": _finite(cell.mean),
        "sd": _finite(cell.sd),
        "values": {str(seed): _finite(value) for seed, value in cell.values.items()},
        "passport": cell.passport,
        "note": cell.note,
    }


def _claim_json(checked: Checked) -> dict[str, Any]:
    return {
        "says": checked.claim.says,
        "holds": checked.holds,
        "numbers": checked.shown,
        "comparison": checked.claim.holds.show(lambda name: name),
        "margin": checked.margin,
        "seeds_holding": checked.seeds_holding,
        "seeds": checked.seeds,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
