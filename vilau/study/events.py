"""Curves and pictures out of a run's TensorBoard event files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

_ALL = 0
_LAST = 1


@dataclass(frozen=True)
class Curve:
    """One scalar over the steps of a run, each step once."""

    steps: list[int]
    values: list[float]


@dataclass(frozen=True)
class Picture:
    """The last picture logged under a tag."""

    step: int
    png: bytes
    width: int
    height: int


@dataclass(frozen=True)
class Events:
    """What one run logged."""

    curves: dict[str, Curve] = field(default_factory=dict)
    pictures: dict[str, Picture] = field(default_factory=dict)


def read_events(run_dir: Path) -> Events:
    """Read the event files of a run; a run without any yields nothing."""
    if not any(run_dir.glob("events.out.tfevents.*")):
        return Events()
    guidance = {"scalars": _ALL, "images": _LAST, "histograms": _LAST, "tensors": _LAST}
    reader = EventAccumulator(str(run_dir), size_guidance=guidance)
    with _only_errors():
        reader.Reload()
    tags = reader.Tags()
    curves = {}
    for tag in tags["scalars"]:
        # A step that was repeated after a restart has the same value again; the later one counts.
        points = {event.step: event.value for event in reader.Scalars(tag)}
        steps = sorted(points)
        curves[tag] = Curve(steps, [points[step] for step in steps])
    pictures = {}
    for tag in tags["images"]:
        last = reader.Images(tag)[-1]
        pictures[tag] = Picture(last.step, last.encoded_image_string, last.width, last.height)
    return Events(curves, pictures)


@contextmanager
def _only_errors() -> Iterator[None]:
    """Keep TensorBoard from warning of the events that a resumed run strikes out on purpose."""
    logger = logging.getLogger("tensorboard")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
