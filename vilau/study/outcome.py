"""What came of a plan, and how its runs and shut gates are called."""

from __future__ import annotations

from dataclasses import dataclass, field

from vilau.study.plan import Plan
from vilau.study.schema import Gate


@dataclass
class Outcome:
    """What came of a plan."""

    finished: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    """Run name -> why it has no result."""
    exit_code: int = 0
    gate: str = ""
    """The sentence of a gate that did not open."""


def run_title(plan: Plan, name: str) -> str:
    """Return ``stage · variants [· seed k]`` of a run."""
    users = plan.users(name)
    variants = list(dict.fromkeys(plan.study.variants[cell.variant].label for cell in users))
    everywhere = len(variants) == len({cell.variant for cell in plan.cells}) > 1
    parts = [plan.runs[name].stage.name, "all variants" if everywhere else ", ".join(variants)]
    if len(plan.seeds) > 1:
        seeds = sorted({cell.seed for cell in users})
        parts.append("all seeds" if len(seeds) > 1 else f"seed {seeds[0]}")
    return " · ".join(parts)


def gate_sentence(gate: Gate, title: str, metrics: dict[str, object]) -> str:
    """Return why a gate stays shut, or an empty text where its condition holds."""
    found = metrics.get("metrics")
    numbers = found if isinstance(found, dict) else {}
    wanted = gate.condition.show(lambda _: gate.metric)
    if gate.metric not in numbers:
        known = ", ".join(sorted(numbers)) or "no metric"
        return f"{title}: the gate {wanted} cannot be checked, the stage logged {known}."
    value = float(numbers[gate.metric])
    if gate.condition.value({"value": value}):
        return ""
    says = f" {gate.says}" if gate.says else ""
    return f"{title}: {gate.metric} is {value:.4g}, the gate asks for {wanted}.{says}"
