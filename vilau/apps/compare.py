"""``vilau compare RUN...``: finished runs side by side, unlike measurements never in one column."""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from vilau.apps.common import make_parser, note, say
from vilau.apps.evaluation.results import RESULTS
from vilau.errors import ConfigError, DataError
from vilau.study.store import read_json
from vilau.study.suggest import did_you_mean

FILE = "metrics.json"
EMPTY = "–"
UNSAID = {"metric": "", "features": "", "reference": "", "num_samples": 0, "details": ""}
"""What a passport says of a field it does not hold."""

Passport = dict[str, Any]


@dataclass
class Run:
    """A finished run or an evaluation: how it is called in the table, and its file of numbers."""

    label: str
    path: Path
    numbers: dict[str, float]
    passports: dict[str, Passport]
    head: str


@dataclass
class Column:
    """Numbers that may be compared: one per run, None where the run has none of this kind."""

    heading: str
    metric: str
    passport: Passport | None
    values: list[float | None]


@dataclass
class Unlike:
    """A metric whose passports differ between runs."""

    metric: str
    columns: list[Column]
    difference: str


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = make_parser(
        subparsers,
        "compare",
        "print the numbers of finished runs side by side",
        more="Numbers share a column only where their passports are alike: same metric and version, same "
        "feature network, reference set, number of samples and details. A metric that the runs measured in "
        "different ways is left out, the field that differs is told, and the exit code is 1.",
        example="vilau compare runs/ablate_contrastive/recon_only/tower "
        "runs/ablate_contrastive/recon_and_contrastive/tower",
    )
    parser.set_defaults(spill="runs")
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help=f"folders of finished runs or of `vilau eval`, or their {FILE} or {RESULTS}",
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="these metrics alone, e.g. val/rfid 'val/codebook_*'; also those without a passport, such as "
        "losses (default: all with a passport)",
    )
    parser.add_argument(
        "--allow-unlike",
        action="store_true",
        help="print numbers with unlike passports too, in columns of their own",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Compare and print; returns the exit code.

    Raises:
        ConfigError: fewer than two runs, an unknown metric, or nothing that may be compared.
        DataError: a run is missing, unfinished or broken.
    """
    runs = read_runs(args.runs)
    columns, refused = [], []
    for metric in chosen(runs, args.metrics):
        found = columns_of(metric, runs)
        if len(found) == 1 or args.allow_unlike:
            columns += found
        else:
            refused.append(Unlike(metric, found, difference(found)))
    if not columns:
        raise ConfigError(nothing_left(refused))
    if args.json:
        say(json.dumps(as_json(runs, columns, refused), indent=2, ensure_ascii=False))
    else:
        for line in table(runs, columns):
            say(line)
    for entry in refused:
        note(f"not compared: {entry.metric}: {entry.difference}")
    if refused:
        note("--allow-unlike prints these in columns of their own.")
    return 1 if refused else 0


# ---------------------------------------------------------------------- reading


def read_runs(paths: Sequence[str]) -> list[Run]:
    """Read runs; raises ``ConfigError`` for fewer than two different ones, ``DataError`` for a broken one."""
    files = [metrics_file(text) for text in paths]
    folders = [file.parent if file.name in (FILE, RESULTS) else file for file in files]
    twice = [str(path) for i, path in enumerate(folders) if path in folders[:i]]
    if twice:
        raise ConfigError(f"{twice[0]} is given twice; give different runs.")
    if len(files) < 2:
        raise ConfigError(f"{paths[0]} is one run; give two or more to compare.")
    return [read_run(label, file) for label, file in zip(short_names(folders), files, strict=True)]


def metrics_file(text: str) -> Path:
    """Return the file of numbers that a path means; raises ``DataError`` where there is none."""
    path = Path(text).expanduser()
    if path.is_file():
        return path
    if not path.exists():
        raise DataError(f"{text} does not exist; give the folder of a finished run, or its {FILE}.")
    for name in (FILE, RESULTS):
        if (path / name).is_file():
            return path / name
    status = read_json(path / "status.json")
    if status:
        raise DataError(
            f"{text} is not finished: it was cut off at step {status.get('step')} of "
            f"{status.get('max_steps')}; start its study again, which goes on from there."
        )
    below = sorted({str(f.parent) for depth in ("*", "*/*") for f in path.glob(f"{depth}/{FILE}")})
    if below:
        shown = ", ".join(below[:6]) + (f" and {len(below) - 6} more" if below[6:] else "")
        raise DataError(f"{text} holds runs but is none; give some of: {shown}.")
    raise DataError(
        f"{text} holds neither {FILE} nor {RESULTS}; give the folder of a finished run or of `vilau eval`."
    )


def read_run(label: str, file: Path) -> Run:
    """Read one file of numbers; raises ``DataError`` where it is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if "metrics" not in content:
            return _evaluation(label, file, content)
        numbers = {
            str(name): float(value)
            for group in (content.get("train_metrics", {}), content["metrics"])
            for name, value in group.items()
        }
        passports = {str(name): {**UNSAID, **p} for name, p in content.get("passports", {}).items()}
        said = [str(content.get("command", "")), f"{content['steps']} steps" if "steps" in content else "",
                f"vilau {content.get('versions', {}).get('vilau', '?')}"]  # fmt: skip
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        raise DataError(
            f"{file} holds no numbers of a run (it is another file, or damaged); give the {FILE} of a finished run, or "
            f"the {RESULTS} of `vilau eval`."
        ) from error
    return Run(label, file, numbers, passports, ", ".join(filter(None, said)))


def _evaluation(label: str, file: Path, content: dict[str, Any]) -> Run:
    """What ``vilau eval`` measured: of each number its value, and the passport if it has one."""
    numbers = {str(name): float(found["value"]) for name, found in content.items()}
    passports = {
        str(name): {**UNSAID, **found["passport"]}
        for name, found in content.items()
        if found.get("passport")
    }
    return Run(label, file, numbers, passports, "vilau eval")


def short_names(folders: Sequence[Path]) -> list[str]:
    """Return the paths without the parts that all of them begin or end with."""
    parts = [list(path.parts) for path in folders]
    while all(len(p) > 1 for p in parts) and len({p[0] for p in parts}) == 1:
        parts = [p[1:] for p in parts]
    while all(len(p) > 1 for p in parts) and len({p[-1] for p in parts}) == 1:
        parts = [p[:-1] for p in parts]
    return [Path(*p).as_posix() for p in parts]


# ---------------------------------------------------------------------- comparing


def chosen(runs: Sequence[Run], wanted: Sequence[str]) -> list[str]:
    """Return the metrics to compare, in the order of the runs; raises ``ConfigError`` for an unknown one."""
    known = list(dict.fromkeys(name for run in runs for name in run.numbers))
    if not wanted:
        return [name for name in known if any(name in run.passports for run in runs)]
    for pattern in wanted:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise ConfigError(
                f"--metrics {pattern}: no run measured it.{did_you_mean(pattern, known)}"
            )
    found = (name for pattern in wanted for name in known if fnmatchcase(name, pattern))
    return list(dict.fromkeys(found))


def columns_of(metric: str, runs: Sequence[Run]) -> list[Column]:
    """Return a column per passport under which the runs measured ``metric``."""
    found: list[Column] = []
    for index, each in enumerate(runs):
        if metric not in each.numbers:
            continue
        passport = each.passports.get(metric)
        column = next((c for c in found if c.passport == passport), None)
        if column is None:
            column = Column(metric, metric, passport, [None] * len(runs))
            found.append(column)
        column.values[index] = each.numbers[metric]
    if len(found) > 1:
        for number, column in enumerate(found, start=1):
            column.heading = f"{metric} [{number}]"
    return found


def difference(columns: Sequence[Column]) -> str:
    """Say in which fields the passports of some columns differ."""
    passports = [column.passport for column in columns]
    if None in passports:
        return "one of the numbers has no passport."
    held = [passport for passport in passports if passport is not None]
    keys = list(dict.fromkeys(key for passport in held for key in passport))
    said = []
    for key in keys:
        values = list(dict.fromkeys(str(passport.get(key)) for passport in held))
        if len(values) > 1:
            said.append(f"{key} is " + ", elsewhere ".join(f"`{value}`" for value in values))
    return "; ".join(said) + "."


def nothing_left(refused: Sequence[Unlike]) -> str:
    """Say why there is no column to print."""
    if not refused:
        return "these runs hold no number with a passport; name losses and the like with --metrics."
    first = refused[0]
    more = f" ({len(refused) - 1} more metrics are as unlike)" if refused[1:] else ""
    return (
        f"these runs measured nothing in the same way: {first.metric}: {first.difference.rstrip('.')}{more}; "
        "measure them alike, or write --allow-unlike for columns of their own."
    )


# ---------------------------------------------------------------------- printing


def table(runs: Sequence[Run], columns: Sequence[Column]) -> Iterator[str]:
    """Yield the lines of the table: a line per run or, where that is too wide, a line per metric."""
    grid = [["", *(column.heading for column in columns)]]
    for index, each in enumerate(runs):
        grid.append([each.label, *(number(column.values[index]) for column in columns)])
    lines = aligned(grid)
    if len(lines[0]) > shutil.get_terminal_size((100, 24)).columns:
        lines = aligned([list(row) for row in zip(*grid, strict=True)])
    yield from lines
    yield ""
    for each in runs:
        yield f"{each.label}: {each.path} ({each.head})"
    unlike = [column for column in columns if column.heading != column.metric]
    for column in unlike:
        passport = column.passport or {}
        said = "; ".join(f"{key}: {value}" for key, value in passport.items() if value)
        yield f"{column.heading}: {said or 'no passport'}"
    bare = [column.heading for column in columns if column.passport is None]
    if bare:
        yield f"Without a passport, so nothing says that they are alike: {', '.join(bare)}."


def aligned(grid: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a grid: the first column to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in grid) for i in range(len(grid[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in grid
    ]


def number(value: float | None) -> str:
    """Return a value with four significant digits, whole ones as they are."""
    if value is None:
        return EMPTY
    if not math.isfinite(value) or (value == int(value) and abs(value) < 1e9):
        return f"{value:.0f}" if math.isfinite(value) else str(value)
    return f"{value:.4f}" if 0.1 <= abs(value) < 1 else f"{value:.4g}"


def as_json(
    runs: Sequence[Run], columns: Sequence[Column], refused: Sequence[Unlike]
) -> dict[str, Any]:
    """Return what the table says, for programs; a number that is not finite becomes its name."""
    return {
        "runs": {each.label: str(each.path) for each in runs},
        "columns": [
            {
                "metric": column.metric,
                "passport": column.passport,
                "values": {
                    each.label: value if math.isfinite(value) else str(value)
                    for each, value in zip(runs, column.values, strict=True)
                    if value is not None
                },
            }
            for column in columns
        ],
        "not_compared": {entry.metric: entry.difference for entry in refused},
    }
