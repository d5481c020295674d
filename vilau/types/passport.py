"""What a number means."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Passport:
    """What exactly a metric measured. Numbers with unlike passports never share a table column."""

    metric: str
    """Name and back-end, e.g. ``FrechetInceptionDistance (torchmetrics 1.9.0)``."""
    features: str = ""
    """Feature network, judge or parser with the first 12 hex digits of its weights' hash."""
    reference: str = ""
    """Reference or question set with its hash."""
    num_samples: int = 0
    details: str = ""
    """Resize, rounding, templates, sampling: whatever else changes the number."""
