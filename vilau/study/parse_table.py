"""Read what a study shows: its table, the tables of scales that have their own, and the claims about them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from vilau.errors import ConfigError
from vilau.study import expressions
from vilau.study.expressions import Expression
from vilau.study.node import Node
from vilau.study.schema import Claim, Column, Stage, Table, TableRow, Variant
from vilau.study.suggest import did_you_mean, listing


def parse_tables(
    node: Node, variants: dict[str, Variant], stages: dict[str, Stage]
) -> tuple[Table, dict[str, Table]]:
    """Return a study's table, and by name of the scale the tables that take its place there.

    Raises:
        ConfigError: an unknown or missing key, a value of the wrong kind, or a name that is not there.
    """
    node.only("columns rows baselines paper scales")
    table = _table(node, variants, stages)
    tables = {}
    for scale, entry in node.child("scales").entries().items():
        entry.only("columns rows baselines paper")
        if not entry.child("columns").entries():
            raise entry.wrong(
                f"`{entry.shown}` takes the place of the table at this scale; write its columns"
            )
        tables[scale] = _table(entry, variants, stages)
    return table, tables


def parse_claims(
    node: Node, table: Table, tables: dict[str, Table], variants: dict[str, Variant]
) -> tuple[Claim, ...]:
    """Read the study's claims; each must be about lines and columns of every table it is checked on.

    Raises ``ConfigError``.
    """
    claims = []
    for item in node.list_items():
        item.only("says holds scales")
        text = item.child("holds", required=True).text()
        scales = tuple(one.text() for one in item.child("scales").list_items())
        holds = [
            _holds(text, item, tables.get(scale, table), variants, _advice(scale, tables))
            for scale in scales or ("", *tables)
        ]
        claims.append(Claim(item.child("says", required=True).text(), holds[0], scales))
    return tuple(claims)


def _holds(
    text: str, item: Node, table: Table, variants: dict[str, Variant], advice: str
) -> Expression:
    """Read a claim's comparison as one about a table; ``advice`` ends a complaint."""
    lines = [*(table.rows or variants), *table.baselines]
    known = [f"{line}.{heading}" for line in lines for heading in table.columns]
    try:
        return expressions.parse(text, known)
    except ConfigError as error:
        raise ConfigError(f"{item.file.where(item.path)}: the claim {error}{advice}") from None


def _advice(scale: str, tables: dict[str, Table]) -> str:
    if not tables:
        return ""
    place = f"scale `{scale}`" if scale else "scales without a table of their own"
    return f" So is the table at {place}; `scales: [...]` beside `holds` names the scales where a claim is checked."


def _table(node: Node, variants: dict[str, Variant], stages: dict[str, Stage]) -> Table:
    rows = _rows(node.child("rows"), variants)
    lines = rows or variants
    columns = {
        heading: _column(heading, entry, stages, variants)
        for heading, entry in node.child("columns").entries().items()
    }
    baselines = {
        name: {
            heading: entry.data
            if isinstance(entry.data, (int, float))
            else _column(heading, entry, stages, variants)
            for heading, entry in line.choices(columns, "column").items()
        }
        for name, line in node.child("baselines").entries().items()
    }
    if clash := sorted(baselines.keys() & {*variants, *rows}):
        kind = "row" if clash[0] in rows else "variant"
        raise node.child("baselines").wrong(f"`{clash[0]}` is a {kind}; name it otherwise")
    paper = {
        name: {heading: cell.number() for heading, cell in line.choices(columns, "column").items()}
        for name, line in node.child("paper").choices(lines, "row" if rows else "variant").items()
    }
    return Table(columns, baselines, paper, rows)


def _rows(node: Node, variants: dict[str, Variant]) -> dict[str, TableRow]:
    rows = {}
    for name, entry in node.named().items():
        entry.only("label ending")
        ending = entry.child("ending", required=True).text()
        rows[name] = TableRow(name, entry.child("label").text(name), ending)
    if rows and len(variants) > 1:
        raise node.wrong(
            f"`{node.shown}` makes lines out of one variant, but there are {listing(variants)}; keep one of "
            "them, or leave the rows out"
        )
    return rows


def _column(
    heading: str, node: Node, stages: dict[str, Stage], variants: dict[str, Variant]
) -> Column:
    entry = node
    extra: dict[str, Any] = {}
    if isinstance(node.data, dict):
        node.only("metric higher_is_better format variants")
        entry = node.child("metric", required=True)
        extra["higher_is_better"] = node.child("higher_is_better").flag(True)
        extra["format"] = _number_format(node.child("format"))
        extra["variants"] = named_variants(node.child("variants"), variants)
    stage, _, metric = entry.text().partition("/")
    if stage not in stages or not metric:
        raise ConfigError(
            f"{node.file.where(node.path)}: `{node.shown}` holds `{entry.data}`; write stage/metric."
            f"{did_you_mean(stage, stages)}"
        )
    return Column(heading, stage, metric, **extra)


def _number_format(node: Node) -> str:
    spec = node.text("").strip("{}:")
    try:
        format(0.5, spec)
    except ValueError:
        raise node.wrong(f"`{node.shown}` holds `{spec}`; write e.g. .2f or .1%") from None
    return spec


def named_variants(node: Node, known: Collection[str]) -> tuple[str, ...]:
    """Read a list of variants; raises ``ConfigError`` for one that there is not."""
    named = []
    for item in node.list_items():
        if item.text() not in known:
            raise item.wrong(
                f"`{node.shown}`: there is no variant `{item.text()}`.{did_you_mean(item.text(), known)}"
            )
        named.append(item.text())
    return tuple(named)
