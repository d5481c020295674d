"""The report folder of a study: table, numbers, figures and one self-contained page."""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from pathlib import Path

from vilau.study.curves import MOST_PANELS, arrange
from vilau.study.events import Events, read_events
from vilau.study.figures import (
    COLOURS,
    Bars,
    Line,
    draw_bars,
    draw_curves,
    draw_depths,
    draw_scales,
)
from vilau.study.numbers import deviation
from vilau.study.page import RunReport, StageReport, page_html
from vilau.study.plan import Plan
from vilau.study.results import Results
from vilau.study.store import Store, folder_lock, write_atomic, write_json
from vilau.study.table import csv_table, markdown_table, results_json

_TOGETHER = 6
"""Up to so many panels, losses and measurements share one figure."""
_REFERENCES = ("chance", "blind", "ceiling")
_HELD_AGAINST = ("real", "reconstruction", "random", "empty")
"""Level lines beside a curve over the guidance scale."""


def write_report(results: Results, store: Store, folder: Path, *, command: str) -> None:
    """Write ``table.md``, ``table.csv``, ``results.json``, figures and ``index.html``.

    Args:
        results: the measured numbers.
        store: where the runs live.
        folder: the report's folder; files of the same name are replaced. Two engines that finish together
            write one after the other.
        command: the command line that makes this report, shown on the page.
    """
    with folder_lock(folder):
        write_atomic(folder / "table.md", markdown_table(results))
        write_atomic(folder / "table.csv", csv_table(results))
        write_json(folder / "results.json", results_json(results))
        for old in [*folder.glob("*.png"), *folder.glob("images/*.png")]:
            old.unlink()
        stages = [_stage(results, store, name, folder) for name in results.plan.stages]
        write_atomic(folder / "index.html", page_html(results, stages, command=command))


def _stage(results: Results, store: Store, name: str, folder: Path) -> StageReport:
    plan = results.plan
    names = [run.name for run in plan.runs.values() if run.stage.name == name]
    runs = []
    events: dict[str, Events] = {}
    for run in names:
        path = store.run_dir(run) / "run.yaml"
        config = path.read_text(encoding="utf-8") if path.exists() else ""
        runs.append(RunReport(run, _who(plan, run), results.metrics.get(run), config))
        events[run] = read_events(store.run_dir(run))
    stage = StageReport(name, plan.study.stages[name].command, runs)
    if stage.command == "fit":
        _add_curves(stage, plan, events, folder)
    else:
        _add_bars(stage, results, folder)
    _add_scales(stage, results, folder)
    _add_pictures(stage, plan, events, folder)
    return stage


def _add_curves(stage: StageReport, plan: Plan, events: dict[str, Events], folder: Path) -> None:
    """Draw what was logged over steps: losses, measurements, depths, and the rest folded away."""
    panels: dict[str, list[Line]] = defaultdict(list)
    for run, logged in events.items():
        for tag, curve in sorted(logged.curves.items()):
            panels[tag].append(Line(_variants(plan, run), _colour(plan, run), curve))
    columns = plan.study.columns.values()
    arranged = arrange(panels, {c.metric for c in columns if c.stage == stage.name})
    if len(arranged.training) + len(arranged.measured) <= _TOGETHER:
        arranged.training += arranged.measured
        arranged.measured = []
    for tags, name, caption in (
        (arranged.training, "training", "While training"),
        (arranged.measured, "measured", "Measured while training"),
    ):
        if tags:
            stage.figures[caption] = folder / f"{stage.name}_{name}.png"
            draw_curves({tag: panels[tag] for tag in tags}, stage.figures[caption])
    depths = {
        f"{base} by depth": _by_depth(plan, events, tags)
        for base, tags in arranged.by_depth.items()
    }
    if depths:
        caption = "By depth, at the last measurement"
        stage.figures[caption] = folder / f"{stage.name}_by_depth.png"
        draw_depths(depths, stage.figures[caption])
    for start in range(0, len(arranged.folded), MOST_PANELS):
        number = start // MOST_PANELS + 1
        path = folder / f"{stage.name}_more_{number}.png"
        draw_curves({t: panels[t] for t in arranged.folded[start : start + MOST_PANELS]}, path)
        stage.more_figures[f"More curves {number}"] = path


def _by_depth(plan: Plan, events: dict[str, Events], tags: dict[int, str]) -> list[Bars]:
    """Return the last values over the depth, a line per variant, with the spread of its seeds."""
    found: dict[tuple[str, str], dict[int, list[float]]] = {}
    for run, logged in events.items():
        at = found.setdefault((_variants(plan, run), _colour(plan, run)), {})
        for depth, tag in tags.items():
            if tag in logged.curves:
                at.setdefault(depth, []).append(logged.curves[tag].values[-1])
    return [
        Bars(label, colour, {str(depth): _mean_sd(values[depth]) for depth in sorted(values)})
        for (label, colour), values in found.items()
        if values
    ]


def _add_bars(stage: StageReport, results: Results, folder: Path) -> None:
    """Draw ``test/<group>/<family>`` metrics as bars per variant, references as marks."""
    plan = results.plan
    numbers: dict[str, dict[str, dict[str, list[float]]]] = {}
    for variant in plan.study.variants:
        for seed in plan.seeds:
            cell = plan.cell(variant, seed, stage.name)
            found = results.metrics.get(cell.run) if cell else None
            for metric, value in (found or {}).get("metrics", {}).items():
                _, _, rest = metric.partition("/")
                group, _, family = rest.partition("/")
                if family:
                    at = numbers.setdefault(group, {}).setdefault(variant, {})
                    at.setdefault(family, []).append(value)
    for group, by_variant in numbers.items():
        base, _, ending = group.rpartition("_")
        families = {family for heights in by_variant.values() for family in heights}
        if len(families) < 2 or (ending in _REFERENCES and base in numbers):
            continue
        bars = [
            Bars(
                plan.study.variants[variant].label,
                COLOURS[list(plan.study.variants).index(variant) % len(COLOURS)],
                {family: _mean_sd(values) for family, values in heights.items()},
            )
            for variant, heights in by_variant.items()
        ]
        references = {
            name: {
                family: _mean_sd(values)[0]
                for heights in numbers[f"{group}_{name}"].values()
                for family, values in heights.items()
            }
            for name in _REFERENCES
            if f"{group}_{name}" in numbers
        }
        path = folder / f"{stage.name}_{group}.png"
        draw_bars(bars, references, path)
        stage.figures[f"{group.replace('_', ' ')} by family"] = path


def _add_scales(stage: StageReport, results: Results, folder: Path) -> None:
    """Draw what was measured at several guidance scales over the scale, with what it is held against."""
    plan = results.plan
    found = {run.name: run.metrics["metrics"] for run in stage.runs if run.metrics}
    panels: dict[str, list[Bars]] = {}
    references: dict[str, dict[str, float]] = {}
    names = sorted({name for metrics in found.values() for name in metrics})
    columns = [c.metric for c in plan.study.columns.values() if c.stage == stage.name]
    for base, tags in arrange(names, ()).by_guidance.items():
        lines: dict[tuple[str, str], dict[str, list[float]]] = {}
        for run, metrics in found.items():
            at = lines.setdefault((_variants(plan, run), _colour(plan, run)), {})
            for scale, tag in tags.items():
                if tag in metrics:
                    at.setdefault(f"{scale:g}", []).append(metrics[tag])
        panels[base] = [
            Bars(label, colour, {scale: _mean_sd(values) for scale, values in at.items()})
            for (label, colour), at in lines.items()
            if at
        ]
        references[base] = {
            name: statistics.fmean(values)
            for name in _HELD_AGAINST
            if (values := [m[f"{base}_{name}"] for m in found.values() if f"{base}_{name}" in m])
        }
    if panels:
        # The table's columns first, in their order.
        order = sorted(panels, key=lambda base: (base not in columns, [*columns, base].index(base)))
        caption = "Over the guidance scale"
        stage.figures[caption] = folder / f"{stage.name}_by_guidance.png"
        draw_scales({base: panels[base] for base in order}, references, stage.figures[caption])


def _add_pictures(stage: StageReport, plan: Plan, events: dict[str, Events], folder: Path) -> None:
    """Take the last picture of each tag, of the first seed of each variant."""
    seen: set[str] = set()
    for cell in plan.cells:
        first = cell.seed == plan.seeds[0]
        if cell.stage != stage.name or not first or cell.run in seen:
            continue
        seen.add(cell.run)
        for tag, picture in sorted(events[cell.run].pictures.items()):
            label = _variants(plan, cell.run)
            stage.pictures.setdefault(tag, []).append((label, picture))
            name = f"{stage.name}_{cell.variant}_{re.sub(r'[^0-9A-Za-z-]+', '_', tag)}.png"
            (folder / "images").mkdir(exist_ok=True)
            (folder / "images" / name).write_bytes(picture.png)


def _who(plan: Plan, run: str) -> str:
    seeds = sorted({cell.seed for cell in plan.users(run)})
    label = _variants(plan, run)
    if len(plan.seeds) == 1:
        return label
    return f"{label}, seed {', '.join(map(str, seeds))}"


def _variants(plan: Plan, run: str) -> str:
    names = list(dict.fromkeys(cell.variant for cell in plan.users(run)))
    if len(names) == len(plan.study.variants) > 1:
        return "all variants"
    return ", ".join(plan.study.variants[name].label for name in names)


def _colour(plan: Plan, run: str) -> str:
    variant = plan.users(run)[0].variant
    return COLOURS[list(plan.study.variants).index(variant) % len(COLOURS)]


def _mean_sd(values: list[float]) -> tuple[float, float]:
    return statistics.fmean(values), deviation(values) if len(values) > 1 else 0.0
