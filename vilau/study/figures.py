"""The figures of a report: curves over steps and bars per question family, as PNG.

Backgrounds are transparent and axes grey, so a figure reads on a light page and on a dark one.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from vilau.study.events import Curve

COLOURS = (
    "#3b76e1", "#e8743b", "#1a9e77", "#9a5fd0", "#c79a00", "#d63f7a", "#1399a8", "#7a828e",
)  # fmt: skip
"""One colour per variant, in the order of the study file; told apart also by colour-blind eyes."""

_INK = "#868e99"
_PANEL_INCHES = (3.5, 2.35)
_COLUMNS = 3
DPI = 192
"""Twice the pixels of a page, for sharp lines on dense screens."""


@dataclass(frozen=True)
class Line:
    """One run's curve in a panel."""

    label: str
    colour: str
    curve: Curve


@dataclass(frozen=True)
class Bars:
    """Heights of one variant: mean and standard deviation per family."""

    label: str
    colour: str
    heights: Mapping[str, tuple[float, float]]


def draw_curves(panels: Mapping[str, Sequence[Line]], path: Path) -> None:
    """Draw one small panel per metric, all runs in it, and save the figure.

    Several seeds of a variant are thin lines of one colour with their mean on top. Curves with many
    points are smoothed; the points themselves stay visible behind.
    """
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = _figure(columns, rows)
    for index, (title, lines) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, index + 1)
        _style(axes, title)
        labels = list(dict.fromkeys(line.label for line in lines))
        for label in labels:
            _draw_variant(axes, [line for line in lines if line.label == label])
        if index // columns == rows - 1 or index + columns >= len(panels):
            axes.set_xlabel("step", fontsize=8, color=_INK)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlim(left=0)
    _legend(figure)
    _save(figure, path)


def draw_depths(panels: Mapping[str, Sequence[Bars]], path: Path) -> None:
    """Draw one small panel per quantity over the residual depth, a line per variant."""
    figure, all_axes = _panels_over(panels, "depth")
    for axes in all_axes:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    _save(figure, path)


def draw_scales(
    panels: Mapping[str, Sequence[Bars]], references: Mapping[str, Mapping[str, float]], path: Path
) -> None:
    """Draw one small panel per quantity over the guidance scale, a line per variant.

    ``references`` (panel -> name -> value) are level lines: floors, ceilings, baselines. One so far from the
    curves that they would become flat is written down in the corner instead.
    """
    figure, all_axes = _panels_over(panels, "guidance scale")
    for axes, (title, items) in zip(all_axes, panels.items(), strict=True):
        scales = sorted({float(scale) for item in items for scale in item.heights})
        if scales[0] > 0:
            axes.set_xscale("log")
        axes.set_xticks(scales, [f"{scale:g}" for scale in scales])
        axes.xaxis.set_minor_locator(NullLocator())
        _draw_references(axes, items, references.get(title, {}))
    _save(figure, path)


def _draw_references(axes: Axes, items: Sequence[Bars], lines: Mapping[str, float]) -> None:
    means = [mean for item in items for mean, _ in item.heights.values()]
    low, high = min(means), max(means)
    room = (high - low) or abs(high) or 1.0
    far = []
    for number, (name, value) in enumerate(lines.items()):
        if not low - room <= value <= high + room:
            far.append(f"{name} {value:.3g}")
            continue
        style = ("dashed", "dotted", "dashdot", "solid")[number % 4]
        axes.axhline(value, color=_INK, linewidth=1.1, linestyle=style, label=name)
    if far:
        axes.text(
            0.98, 0.98, "\n".join(far), color=_INK, fontsize=7, transform=axes.transAxes,
            horizontalalignment="right", verticalalignment="top",
        )  # fmt: skip
    if lines:
        axes.legend(frameon=False, fontsize=7, labelcolor=_INK)


def _panels_over(panels: Mapping[str, Sequence[Bars]], name: str) -> tuple[Figure, list[Axes]]:
    """Draw a line per variant over what ``name`` says, in a panel per quantity."""
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure, all_axes = _figure(columns, rows), list[Axes]()
    for index, (title, items) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, index + 1)
        _style(axes, title)
        for item in items:
            places = [float(place) for place in item.heights]
            means, deviations = zip(*item.heights.values(), strict=True)
            axes.errorbar(
                places, means, yerr=deviations if any(deviations) else None, color=item.colour,
                label=item.label, marker="o", markersize=4, linewidth=1.6, elinewidth=1,
            )  # fmt: skip
        axes.set_xlabel(name, fontsize=8, color=_INK)
        all_axes.append(axes)
    _legend(figure)
    return figure, all_axes


def draw_bars(
    bars: Sequence[Bars], references: Mapping[str, Mapping[str, float]], path: Path
) -> None:
    """Draw grouped bars per family, with marks for reference values such as chance."""
    families = list(dict.fromkeys(family for item in bars for family in item.heights))
    figure = _figure(2 if len(families) <= 6 else 3, 1)
    axes = figure.add_subplot(1, 1, 1)
    _style(axes, "")
    width = 0.8 / len(bars)
    for index, item in enumerate(bars):
        shift = (index - (len(bars) - 1) / 2) * width
        places = [i + shift for i, family in enumerate(families) if family in item.heights]
        means, deviations = zip(
            *(item.heights[family] for family in families if family in item.heights), strict=True
        )
        errors = deviations if any(deviations) else None
        axes.bar(
            places, means, width * 0.92, yerr=errors, color=item.colour, label=item.label,
            ecolor=_INK, error_kw={"elinewidth": 1},
        )  # fmt: skip
    for number, (name, values) in enumerate(references.items()):
        for i, family in enumerate(families):
            if family in values:
                axes.hlines(
                    values[family], i - 0.44, i + 0.44, colors=_INK, linewidth=1.3,
                    linestyles=("dotted", "dashed", "solid")[number % 3],
                    label=name if i == 0 else "_nolegend_",
                )  # fmt: skip
    axes.set_xticks(range(len(families)), [family.replace("_", " ") for family in families])
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
    _legend(figure)
    _save(figure, path)


def smoothed(values: Sequence[float]) -> list[float]:
    """Return an exponential mean over about a twentieth of the points, unbiased at the start."""
    keep = 1 - 1 / max(1.0, len(values) / 20)
    out, mean, weight = [], 0.0, 0.0
    for value in values:
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        out.append(mean / weight)
    return out


def _unrepeated(curve: Curve) -> Curve:
    """Drop the repetitions of a value that is measured seldom and logged at every step.

    A short curve has none: what stays the same there, such as 0, was measured so.
    """
    if not _is_noisy(curve.values) or len(set(curve.values)) > len(curve.values) / 2:
        return curve
    kept = [
        index
        for index, value in enumerate(curve.values)
        if index == 0 or value != curve.values[index - 1]
    ]
    return Curve([curve.steps[i] for i in kept], [curve.values[i] for i in kept])


def _is_noisy(values: Sequence[float]) -> bool:
    """Return whether a curve is worth smoothing."""
    return len(values) > 40


def _draw_variant(axes: Axes, lines: Sequence[Line]) -> None:
    """Draw the seeds of one variant."""
    finite = [
        Line(line.label, line.colour, _unrepeated(line.curve))
        for line in lines
        if any(math.isfinite(v) for v in line.curve.values)
    ]
    for line in finite:
        steps, values = line.curve.steps, line.curve.values
        alone = len(finite) == 1
        if len(values) == 1:
            axes.plot(steps, values, "o", color=line.colour, markersize=4, label=line.label)
        elif _is_noisy(values):
            axes.plot(steps, values, color=line.colour, linewidth=0.6, alpha=0.25)
            axes.plot(
                steps, smoothed(values), color=line.colour, linewidth=1.6 if alone else 0.7,
                alpha=1 if alone else 0.5, label=line.label if alone else None,
            )  # fmt: skip
        else:
            axes.plot(
                steps, values, color=line.colour, linewidth=1.6 if alone else 0.7,
                alpha=1 if alone else 0.5, marker="o", markersize=2.6 if alone else 0,
                label=line.label if alone else None,
            )  # fmt: skip
    if len(finite) > 1:
        shared = sorted(set.intersection(*(set(line.curve.steps) for line in finite)))
        tables = [dict(zip(x.curve.steps, x.curve.values, strict=True)) for x in finite]
        means = [statistics.fmean(table[step] for table in tables) for step in shared]
        means = smoothed(means) if _is_noisy(means) else means
        axes.plot(shared, means, color=finite[0].colour, linewidth=1.9, label=finite[0].label)


def _legend(figure: Figure) -> None:
    """One legend for all panels, below them, where it covers nothing; none where there is nothing to tell apart."""
    named: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    if len(named) < 2:
        return
    letters = max(map(len, named)) + 6  # and the line before it
    columns = max(1, int(figure.get_size_inches()[0] * 13 / letters))
    figure.legend(
        list(named.values()), list(named), loc="outside lower center", ncols=columns, frameon=False,
        fontsize=8, labelcolor=_INK,
    )  # fmt: skip


def _figure(columns: int, rows: int) -> Figure:
    width, height = _PANEL_INCHES
    figure = Figure(figsize=(width * columns, height * rows), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _style(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=9, color=_INK, loc="left", fontweight="bold")
    axes.set_facecolor("none")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_INK)
        axes.spines[side].set_alpha(0.5)
    axes.tick_params(colors=_INK, labelsize=7.5, width=0.6)
    axes.grid(visible=True, color=_INK, alpha=0.18, linewidth=0.6)
    axes.set_axisbelow(True)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, transparent=True)
