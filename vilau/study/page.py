"""One self-contained HTML page per study: no network, no script, light and dark."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import yaml

from vilau.study.claims import Checked
from vilau.study.display import clock
from vilau.study.events import Picture
from vilau.study.figures import DPI
from vilau.study.overview import short_count
from vilau.study.page_style import CSS
from vilau.study.page_table import result_section
from vilau.study.results import Results

_PICTURE_PIXELS = 500
"""Width of a picture's place on the page."""


@dataclass
class RunReport:
    """One run of a stage, as the page tells it."""

    name: str
    label: str
    """Variants that share the run, and its seed where there are several."""
    metrics: dict[str, Any] | None
    """``metrics.json``; None while the run is not finished."""
    config: str
    """``run.yaml``."""


@dataclass
class StageReport:
    """One stage of the study, as the page shows it."""

    name: str
    command: str
    runs: list[RunReport]
    figures: dict[str, Path] = field(default_factory=dict)
    """Caption -> PNG file."""
    more_figures: dict[str, Path] = field(default_factory=dict)
    """Figures that are folded away: learning rates, speeds."""
    pictures: dict[str, list[tuple[str, Picture]]] = field(default_factory=dict)
    """Tag -> (variant label, its last picture of the first seed)."""


def page_html(results: Results, stages: list[StageReport], *, command: str) -> str:
    """Return the whole page.

    Args:
        results: the measured table, claims and metrics.
        stages: the stages with their figures.
        command: the command line that makes this page again.
    """
    name = escape(results.plan.study.name)
    body = [
        _header(results),
        result_section(results),
        _claims(results),
        *(_stage(stage, number) for number, stage in enumerate(stages, 1)),
        _passports(results),
        _again(results, command),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}</title><style>{CSS}</style></head><body>"
        f"{_navigation(results, stages)}<main>{''.join(body)}</main></body></html>\n"
    )


def _navigation(results: Results, stages: list[StageReport]) -> str:
    links = [("result", "Result")]
    if results.claims:
        links.append(("claims", "Claims"))
    links += [(f"stage-{stage.name}", stage.name) for stage in stages]
    links += [("passports", "Passports"), ("again", "Run it again")]
    anchors = "".join(f'<a href="#{key}">{escape(text)}</a>' for key, text in links)
    return f"<nav><div><strong>{escape(results.plan.study.name)}</strong>{anchors}</div></nav>"


def _header(results: Results) -> str:
    plan = results.plan
    question, _, source = plan.study.question.partition("  ")
    seconds = sum(float(m.get("seconds", 0)) for m in results.metrics.values())
    devices = sorted({str(m.get("device", "")) for m in results.metrics.values()})
    seeds = len(plan.seeds)
    chips = [
        f"scale <b>{escape(plan.scale)}</b>",
        f"<b>{seeds}</b> seed{'s' if seeds > 1 else ''}",
        f"<b>{len(results.metrics)}</b> of {len(plan.runs)} runs",
        f"<b>{clock(seconds)}</b> of training and measuring",
        f"on <b>{escape(', '.join(devices))}</b>",
        time.strftime("%d %B %Y"),
    ]
    items = "".join(f"<li>{chip}</li>" for chip in chips)
    if not results.complete:
        items += '<li class="warn">not complete</li>'
    return (
        f'<header><span class="name">{escape(plan.study.name)}</span>'
        f"<h1>{escape(question or plan.study.name)}</h1>"
        f'<p class="source">{escape(source.strip())}</p><ul class="chips">{items}</ul></header>'
    )


def _claims(results: Results) -> str:
    if not results.claims:
        return ""
    items = "".join(_claim(checked) for checked in results.claims)
    return (
        '<section id="claims"><h2>Claims</h2><p class="hint">What the paper says, held against the'
        " numbers measured here: ✓ for every seed, ~ on their mean alone, ✗ not.</p>"
        f'<ul class="claims">{items}</ul></section>'
    )


def _claim(checked: Checked) -> str:
    kind = {"✓": "yes", "✗": "no"}.get(checked.mark, "open")
    notes = [f"margin {checked.margin}"] if checked.margin else []
    if checked.seeds > 1:
        notes.append(f"holds for {checked.seeds_holding} of {checked.seeds} seeds")
    seeds = f"<small>{escape(', '.join(notes))}</small>" if notes else ""
    return (
        f'<li class="{kind}"><span class="mark">{checked.mark}</span><div>'
        f"<p>{escape(checked.claim.says)}</p><code>{escape(checked.shown)}</code>{seeds}</div></li>"
    )


def _stage(stage: StageReport, number: int) -> str:
    parts = [
        f'<section id="stage-{stage.name}"><h2><span class="step">{number}</span>'
        f'{escape(stage.name)} <span class="verb">{stage.command}</span></h2>',
        _what(stage),
        _runs(stage),
    ]
    for caption, path in stage.figures.items():
        parts.append(_chart(caption, path))
    for tag, pictures in stage.pictures.items():
        parts.append(f"<h3>{escape(tag)}</h3>{_gallery(pictures)}")
    if stage.more_figures:
        charts = "".join(_chart(caption, path) for caption, path in stage.more_figures.items())
        parts.append(
            f"<details><summary>More curves: learning rate, speed and the rest</summary>{charts}</details>"
        )
    parts.append(_metrics(stage))
    configs = "".join(
        f"<h3>{escape(run.label)} · {run.name}</h3><pre>{escape(run.config)}</pre>"
        for run in stage.runs
        if run.config
    )
    if configs:
        parts.append(f"<details><summary>Configuration of each run</summary>{configs}</details>")
    return "".join(parts) + "</section>"


def _what(stage: StageReport) -> str:
    """Say in a line which classes worked on what."""
    config: Any = (
        yaml.safe_load(stage.runs[0].config) if stage.runs and stage.runs[0].config else {}
    )
    names = []
    for section in ("model", "data"):
        path = ((config or {}).get(section) or {}).get("class_path", "")
        if path:
            names.append(f"<code>{escape(str(path).rpartition('.')[2])}</code>")
    return f'<p class="hint">{" on ".join(names)}</p>' if names else ""


def _runs(stage: StageReport) -> str:
    rows = []
    for run in stage.runs:
        m = run.metrics
        if m is None:
            rows.append(
                f'<tr><td>{escape(run.label)}</td><td class="empty" colspan="7">not finished</td></tr>'
            )
            continue
        cells = [
            escape(run.label),
            f"{m['steps']:,}".replace(",", " ") if m.get("steps") else "–",
            clock(float(m.get("seconds", 0))),
            short_count(m.get("parameters", 0)),
            short_count(m.get("trainable_parameters", 0)) if stage.command == "fit" else "–",
            f"{m.get('peak_memory_bytes', 0) / 2**30:.1f} GiB",
            escape(f"{m.get('device', '')} × {m.get('ranks', 1)}, {m.get('precision', '')}"),
            f"<code>{run.name}</code>",
        ]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(
        f"<th>{text}</th>"
        for text in ("run", "steps", "time", "parameters", "trained", "memory", "device", "folder")
    )
    return (
        f'<div class="card"><table class="runs"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _metrics(stage: StageReport) -> str:
    """Return every metric of every run, folded away."""
    runs = [(run.label, run.metrics["metrics"]) for run in stage.runs if run.metrics]
    names = sorted({name for _, metrics in runs for name in metrics})
    if not names:
        return ""
    head = "".join(f"<th>{escape(label)}</th>" for label, _ in runs)
    body = "".join(
        f"<tr><td><code>{escape(name)}</code></td>"
        + "".join(f"<td>{_short(metrics.get(name))}</td>" for _, metrics in runs)
        + "</tr>"
        for name in names
    )
    return (
        f'<details><summary>All {len(names)} metrics</summary><div class="card"><table class="runs">'
        f"<thead><tr><th>metric</th>{head}</tr></thead><tbody>{body}</tbody></table></div></details>"
    )


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.5g}"


def _chart(caption: str, path: Path) -> str:
    png = path.read_bytes()
    # A PNG's width stands in bytes 16-19; figures are drawn at twice the size they are shown in.
    width = int.from_bytes(png[16:20], "big") * 96 // DPI
    return (
        f'<figure class="chart card"><figcaption>{escape(caption)}</figcaption>'
        f'<img alt="{escape(caption)}" style="max-width:{width}px" src="{_data_url(png)}"></figure>'
    )


def _gallery(pictures: list[tuple[str, Picture]]) -> str:
    figures = "".join(
        f'<figure class="card"><img alt="{escape(label)}" {_size(picture)} src="{_data_url(picture.png)}">'
        f"<figcaption><span>{escape(label)}</span><span>step {picture.step}</span></figcaption></figure>"
        for label, picture in pictures
    )
    return f'<div class="gallery">{figures}</div>'


def _size(picture: Picture) -> str:
    """Enlarge small pictures by whole pixels; let others fill their place smoothly."""
    times = _PICTURE_PIXELS // max(1, picture.width)
    return f'class="pixels" width="{times * picture.width}"' if times >= 2 else ""


def _passports(results: Results) -> str:
    rows = []
    for heading, column in results.plan.study.columns.items():
        passport = next(
            (row.cells[heading].passport for row in results.ours if row.cells[heading].values), None
        )
        text = "; ".join(
            f"{key.replace('_', ' ')}: {value}" for key, value in (passport or {}).items() if value
        )
        metric = f"{column.stage}/{column.metric}"
        rows.append(
            f"<tr><td>{escape(heading)}<br><small>{escape(metric)}</small></td>"
            f"<td>{escape(text or 'none given')}</td></tr>"
        )
    return (
        '<section id="passports"><h2>Passports</h2><p class="hint">What exactly each number measured.'
        " Numbers with unlike passports never share a column.</p><details><summary>Show the passports"
        f' of {len(rows)} columns</summary><div class="card"><table class="pairs"><tbody>'
        f"{''.join(rows)}</tbody></table></div></details></section>"
    )


def _again(results: Results, command: str) -> str:
    versions: dict[str, str] = {}
    for metrics in results.metrics.values():
        for name, version in metrics.get("versions", {}).items():
            known = versions.get(name)
            versions[name] = version if known in (None, version) else f"{known}, {version}"
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(version)}</td></tr>"
        for name, version in versions.items()
    )
    return (
        f'<section id="again"><h2>Run it again</h2><pre>{escape(command)}</pre>'
        "<details><summary>Versions</summary>"
        f'<div class="card"><table class="pairs"><tbody>{rows}</tbody></table></div></details>'
        "</section><footer>Each run's folder holds its configuration, its metrics with passports, its"
        " log and its environment. Numbers were measured on the data and at the scale named above;"
        " the paper's stand apart.</footer>"
    )


def _data_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
