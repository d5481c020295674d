"""The table of a report's page: a line per variant, or a line per metric where there are many."""

from __future__ import annotations

from html import escape

from vilau.study.figures import COLOURS
from vilau.study.numbers import show_number
from vilau.study.results import Results, Row, show_cell
from vilau.study.schema import Column
from vilau.study.table import WIDE, arrow


def result_section(results: Results) -> str:
    """Return the section with the table and the reasons of its empty cells."""
    if not results.plan.study.columns:
        return ""
    table = _turned_table(results) if len(results.plan.study.columns) > WIDE else _table(results)
    notes = "".join(f"<li>{escape(note)}</li>" for note in results.notes())
    hint = ""
    if results.paper:
        hint = (
            '<p class="hint">The paper\'s numbers were measured on other data, at another size, in the'
            " paper's unit: they stand apart and are there for the direction only.</p>"
        )
    return (
        f'<section id="result"><h2>Result</h2><div class="card">{table}</div>{hint}'
        f"{f'<ul class=notes>{notes}</ul>' if notes else ''}</section>"
    )


def _table(results: Results) -> str:
    """Return the table with a line per variant, baseline and line of the paper."""
    columns = results.plan.study.columns
    head = "".join(_heading(heading, column) for heading, column in columns.items())
    body = ""
    for kind, rows in _sections(results):
        lines = "".join(
            f"<tr><td>{_label(results, kind, row, number)}</td>"
            + "".join(_cell(results, kind, row, heading) for heading in columns)
            + "</tr>"
            for number, row in enumerate(rows)
        )
        if kind == "paper" and rows:
            lines = f'<tr><th colspan="{len(columns) + 1}">Printed in the paper</th></tr>{lines}'
        body += f'<tbody class="{kind}">{lines}</tbody>' if rows else ""
    return f"<table><thead><tr><th></th>{head}</tr></thead>{body}</table>"


def _turned_table(results: Results) -> str:
    """Return the table with a line per metric, for studies of many."""
    columns = results.plan.study.columns
    sections = [(kind, rows) for kind, rows in _sections(results) if rows]
    head = "".join(
        f'<th class="{kind}">{_label(results, kind, row, number)}'
        f"{'<small>in the paper</small>' if kind == 'paper' else ''}</th>"
        for kind, rows in sections
        for number, row in enumerate(rows)
    )
    body = "".join(
        f"<tr>{_heading(heading, column)}"
        + "".join(_cell(results, kind, row, heading) for kind, rows in sections for row in rows)
        + "</tr>"
        for heading, column in columns.items()
    )
    return f'<table class="turned"><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>'


def _sections(results: Results) -> list[tuple[str, list[Row]]]:
    return [("ours", results.ours), ("baselines", results.baselines), ("paper", results.paper)]


def _heading(heading: str, column: Column) -> str:
    source = f"{escape(column.stage)}/{escape(column.metric)}"
    return f"<th>{escape(heading)} {arrow(column)}<small>{source}</small></th>"


def _label(results: Results, kind: str, row: Row, number: int) -> str:
    if kind != "ours" or results.plan.study.rows:  # rows of one variant have no colour of their own
        return escape(row.label)
    colour = COLOURS[number % len(COLOURS)]
    return f'<span class="swatch" style="background:{colour}"></span>{escape(row.label)}'


def _cell(results: Results, kind: str, row: Row, heading: str) -> str:
    cell, column = row.cells.get(heading), results.plan.study.columns[heading]
    if cell is None or (cell.mean is None and not cell.short):
        return f'<td class="{kind} empty">–</td>'
    if cell.mean is None:
        return f'<td class="{kind} empty" title="{escape(cell.note)}">{escape(cell.short)}</td>'
    if kind == "paper":
        return f'<td class="{kind}">{show_cell(cell, column)}</td>'
    spread = f" <small>± {show_number(cell.sd, column)}</small>" if cell.sd is not None else ""
    best = " best" if kind == "ours" and _best(results.ours, heading, column) == row.name else ""
    return f'<td class="{kind}{best}"><span>{show_number(cell.mean, column)}</span>{spread}</td>'


def _best(rows: list[Row], heading: str, column: Column) -> str:
    """Return the name of the row with the best mean, if more than one row has a number."""
    means = {row.name: row.cells[heading].mean for row in rows}
    known = {name: mean for name, mean in means.items() if mean is not None and mean == mean}
    if len(known) < 2 or len(set(known.values())) < 2:
        return ""
    sign = 1 if column.higher_is_better else -1
    return max(known, key=lambda name: sign * known[name])
