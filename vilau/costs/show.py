"""An estimate in a few short words, for a line of ``plan``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vilau.costs.stage import CPU_CORE

GPU_BYTES = {"RTX 4090": 24 << 30, "A100": 80 << 30, "H100 or H200": 80 << 30}
"""Memory of a card; the smaller where there are two."""


def shown(cost: Mapping[str, Any], *, accelerator: str | None = None) -> dict[str, str]:
    """Return heading -> text for an estimate; empty texts for what it does not know.

    Args:
        cost: what ``estimate`` returned.
        accelerator: the trainer's; ``cpu`` shows hours of processors, all else those of cards.
    """
    parameters = quantity(cost["parameters"])
    if cost["trained_parameters"] not in (0, cost["parameters"]):
        parameters += f" ({quantity(cost['trained_parameters'])} trained)"
    devices = (CPU_CORE,) if accelerator == "cpu" else tuple(GPU_BYTES)
    return {
        "parameters": parameters,
        "tokens/step": quantity(cost["tokens_per_step"]),
        "FLOP": quantity(cost["flops"]),
        "memory": quantity(cost["memory_bytes_per_device"], "B"),
        "disk": quantity(cost["disk_bytes"], "B"),
        "time": ", ".join(_time(cost, name) for name in devices if cost["hours"]),
    }


def _time(cost: Mapping[str, Any], device: str) -> str:
    fits = cost["memory_bytes_per_device"] <= GPU_BYTES.get(device, math.inf)
    many = f"{cost['devices']} x " if cost["devices"] > 1 else ""
    return f"{duration(cost['hours'][device]) if fits else 'no room'} ({many}{device})"


def quantity(number: float | None, unit: str = "") -> str:
    """Return ``1.23 M`` for 1234567, with SI letters up to ``E``; an empty text for nothing."""
    if not number:
        return ""
    letters = ("", "k", "M", "G", "T", "P", "E", "Z")
    step = 0
    while number >= 999.5 and step < len(letters) - 1:
        number, step = number / 1000, step + 1
    return f"{number:.3g} {letters[step]}{unit}".rstrip()


def duration(hours: float) -> str:
    """Return ``20 s``, ``5 min``, ``3.2 h`` or ``12 days``."""
    for size, unit in ((24.0, "days"), (1.0, "h"), (1 / 60, "min")):
        if hours >= 2 * size:
            return (
                f"{hours / size:.2g} {unit}" if hours < 100 * size else f"{hours / size:.0f} {unit}"
            )
    return f"{max(1, round(hours * 3600))} s"
