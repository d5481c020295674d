"""What a plan's runs will cost, each and all that are still to do; estimates, before anything is spent."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

from vilau.study.environment import available_cores
from vilau.study.plan import Plan, Run

COSTS = "vilau.costs"
"""The module that estimates: ``estimate(config) -> dict | None`` and ``shown(cost) -> texts``. It is
reached by name, because this room knows no model, and it imports no torch either."""

Cost = Mapping[str, Any]


def cost_of(plan: Plan, run: Run) -> Cost | None:
    """Return what a stage costs, None where that is not known."""
    if importlib.util.find_spec(COSTS) is None:
        return None
    cost: Cost | None = importlib.import_module(COSTS).estimate(_with_inputs(plan, run))
    return cost


def cost_texts(plan: Plan, cost: Cost | None) -> dict[str, str]:
    """Return heading -> text of what a stage costs, nothing where that is not known."""
    if not cost:
        return {}
    shown = importlib.import_module(COSTS).shown
    return dict(shown(cost, accelerator=plan.trainer.get("accelerator")))


def total_text(plan: Plan, costs: Mapping[str, Cost | None], begun: int = 0) -> str:
    """Return a sentence on the time of all runs that are still to do; empty where none is known.

    Args:
        plan: the plan that holds the runs.
        costs: run name -> what it costs, of the runs that are still to do.
        begun: how many of them have done a part already.
    """
    known = {name: cost for name, cost in costs.items() if cost and cost["hours"]}
    if not known:
        return ""
    text = f"time still to come, estimated: {_time(plan, _sum(list(known.values())))} one run after another"
    if plan.trainer.get("accelerator") == "cpu":
        hours, most = _side_by_side(plan, known, available_cores())
        if most > 1:
            total = {**_sum(list(known.values())), "hours": hours}
            text += f", {_time(plan, total).partition(' (')[0]} with {most} side by side"
    unknown = len(costs) - len(known)
    text += f"; without {unknown} whose time is not known" if unknown else ""
    return text + ("; what is begun is counted whole" if begun else "")


def _time(plan: Plan, cost: Cost) -> str:
    return cost_texts(plan, cost)["time"]


def _sum(costs: Sequence[Cost]) -> dict[str, Any]:
    """Return the costs one after another: hours on as many devices as all ask for, or on one where they differ."""
    asked = {cost["devices"] for cost in costs}
    alike = len(asked) == 1
    return {
        **costs[0],
        "devices": asked.pop() if alike else 1,
        "memory_bytes_per_device": max(cost["memory_bytes_per_device"] for cost in costs),
        "hours": {
            kind: sum(cost["hours"][kind] * (1 if alike else cost["devices"]) for cost in costs)
            for kind in costs[0]["hours"]
        },
    }


def _side_by_side(plan: Plan, costs: Mapping[str, Cost], jobs: int) -> tuple[dict[str, float], int]:
    """Return the hours until all are over, at most ``jobs`` at a time, each once the runs before it are over.

    And how many really went at a time.
    """
    kinds = next(iter(costs.values()))["hours"]
    ends = {
        kind: _until_over(plan, {name: cost["hours"][kind] for name, cost in costs.items()}, jobs)
        for kind in kinds
    }
    return {kind: end for kind, (end, _) in ends.items()}, max(most for _, most in ends.values())


def _until_over(plan: Plan, hours: Mapping[str, float], jobs: int) -> tuple[float, int]:
    now, most, ends, waiting = 0.0, 0, dict[str, float](), list(hours)
    while waiting or ends:
        for name in list(waiting):
            if len(ends) < jobs and not plan.after[name] & {*waiting, *ends}:
                waiting.remove(name)
                ends[name] = now + hours[name]
        most = max(most, len(ends))
        now = min(ends.values())
        ends = {name: end for name, end in ends.items() if end > now}
    return now, most


def _with_inputs(plan: Plan, run: Run) -> dict[str, Any]:
    """Return a stage's config with its machine, and the configs of the stages it takes in."""
    config = {"command": run.stage.command, **run.resolved.config}
    config["trainer"] = plan.stage_trainer(run)
    inputs = {key: plan.runs[source] for key, source in run.inputs.items()}
    config["inputs"] = {key: _with_inputs(plan, source) for key, source in inputs.items()}
    return config
