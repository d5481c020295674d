"""What ``plan`` and ``list`` print: runs, their state and size, before anything is spent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vilau.errors import VilauError
from vilau.study.forecast import cost_of, cost_texts, total_text
from vilau.study.load import load_study
from vilau.study.outcome import run_title
from vilau.study.plan import Options, Plan, Run, joined, make_plan
from vilau.study.store import Store, is_running, read_json


def plan_text(plan: Plan, store: Store) -> str:
    """Return the plan of a study: each run once, who shares it, its state, size and inputs; the time they add up to."""
    study = plan.study
    lines = [f"{study.name}: {study.question}" if study.question else study.name]
    shared = len(plan.cells) - len(plan.runs)
    lines.append(
        f"scale {plan.scale}, machine {plan.options.machine}, seeds {list(plan.seeds)}:"
        f" {len(plan.cells)} stage runs, {len(plan.runs)} different"
        + (f" ({shared} shared)" if shared else "")
    )
    header = ["run", "stage", "state", "steps", "batch", "samples", "takes in"]
    rows = [_row(plan, store, run) for run in plan.runs.values()]
    costs = {name: cost_of(plan, run) for name, run in plan.runs.items()}
    texts = [cost_texts(plan, cost) for cost in costs.values()]
    keys = list(dict.fromkeys(key for told in texts for key in told))
    keys = [key for key in keys if any(told.get(key) for told in texts)]
    header[6:6] = keys
    for row, told in zip(rows, texts, strict=True):
        row[6:6] = [told.get(key) or "–" for key in keys]
    lines += ["", *columns([header, *rows])]
    states = {name: row[2] for name, row in zip(plan.runs, rows, strict=True)}
    todo = {name: costs[name] for name, state in states.items() if state != "finished"}
    begun = sum(states[name] != "to run" for name in todo)
    lines += [
        "",
        f"{len(rows) - len(todo)} finished, {len(todo)} to run; runs folder {store.root}",
    ]
    total = total_text(plan, todo, begun)
    lines += [total] if total else []
    return "\n".join(lines)


def together_text(plans: Sequence[Plan], store: Store) -> str:
    """Return how many runs several studies have between them, and how long these take side by side."""
    all_of_them = joined(plans)
    runs = all_of_them.runs
    states = {name: _state(store, name) for name in runs}
    todo = {name: cost_of(all_of_them, runs[name]) for name in runs if states[name] != "finished"}
    lines = [
        f"together: {len(runs)} different runs, {len(runs) - len(todo)} finished, {len(todo)} to run"
    ]
    total = total_text(all_of_them, todo, sum(states[name] != "to run" for name in todo))
    return "\n".join([*lines, *([total] if total else [])])


def studies_text(folder: Path, store: Store) -> str:
    """Return the studies of a folder with their questions, and the finished runs of the store."""
    lines = [f"Studies in {folder}/"]
    rows = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            study = load_study(path)
            plan = make_plan(study, Options())
            done = sum(store.metrics(name) is not None for name in plan.runs)
            rows.append([f"  {path.name}", f"{done}/{len(plan.runs)} runs", study.question])
        except VilauError as error:
            rows.append([f"  {path.name}", "broken", str(error)])
    lines += columns(rows) or [_none(folder, "`lightning list FOLDER` looks elsewhere")]
    lines += ["", f"Finished runs in {store.root}/"]
    rows = []
    for run_dir in sorted((store.root / ".store").glob("*-*")):
        if (metrics := store.metrics(run_dir.name)) is not None:
            seconds = f"{metrics.get('seconds', 0):.0f} s"
            rows.append([f"  {run_dir.name}", metrics.get("finished_at", "")[:16], seconds])
    lines += columns(rows) or [_none(store.root, "the first `lightning run` makes it")]
    return "\n".join(lines)


def _none(folder: Path, hint: str) -> str:
    """Say that nothing was found, and where there is no such folder, that as well."""
    return "  none" if folder.is_dir() else f"  none: there is no folder {folder}/ here; {hint}"


def columns(rows: list[list[str]]) -> list[str]:
    """Return rows as lines with aligned columns."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def short_count(number: float) -> str:
    """Return ``1.23 M`` for 1234567."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.0f}"


def _row(plan: Plan, store: Store, run: Run) -> list[str]:
    config = run.resolved.config
    steps = (config.get("trainer") or {}).get("max_steps")
    batch = ((config.get("data") or {}).get("init_args") or {}).get("global_batch_size")
    is_fit = run.stage.command == "fit"
    seen = steps * batch if is_fit and isinstance(steps, int) and isinstance(batch, int) else None
    takes = [f"{source} → {key}" for key, source in run.inputs.items()]
    return [
        run.name,
        run_title(plan, run.name),
        _state(store, run.name),
        _amount(steps) if is_fit else run.stage.command,
        _amount(batch),
        _amount(seen),
        ", ".join(takes),
    ]


def _state(store: Store, name: str) -> str:
    if store.metrics(name) is not None:
        return "finished"
    folder = store.run_dir(name)
    if not folder.is_dir():
        return "to run"
    status = read_json(folder / "status.json") or {}
    if is_running(folder):
        return f"running, at {status.get('step', '?')}"
    if any((folder / "checkpoints").glob("step=*.ckpt")):
        return f"cut off at {status.get('step', '?')}"
    return "to run"


def _amount(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}".replace(",", " ") if isinstance(value, int) else f"{value:.3g}"
