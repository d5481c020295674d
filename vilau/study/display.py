"""One line per running stage in the terminal, or plain lines where nobody watches."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TextIO

_BAR = 18


@dataclass(frozen=True)
class Running:
    """What is known of a running stage."""

    title: str
    started_s: float
    status: dict[str, Any] | None
    """Content of ``status.json``, or None before the first step."""


class Display:
    """Show running stages.

    On a terminal the lines are redrawn in place; otherwise each start and finish is one line and
    every ``every_s`` seconds the running stages are told once more.

    Args:
        stream: where to print; None: the standard output.
        every_s: seconds between two reports where the stream is no terminal.
    """

    def __init__(self, stream: TextIO | None = None, every_s: float = 30.0) -> None:
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._every_s = every_s
        self._drawn = 0
        self._told_s: float | None = None

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._clear()
        print(text, file=self._stream, flush=True)  # noqa: T201

    def show(self, running: Sequence[Running], done: int, total: int) -> None:
        """Show the running stages; ``done`` of ``total`` runs are finished."""
        lines = [line_of(item, time.monotonic()) for item in running]
        if self._live:
            self._redraw([*lines, f"  {done} of {total} runs finished"] if lines else [])
            return
        now_s = time.monotonic()
        if self._told_s is None or not lines:
            self._told_s = now_s
        elif now_s - self._told_s >= self._every_s:
            self._told_s = now_s
            for line in lines:
                self.say(line)

    def _redraw(self, lines: Sequence[str]) -> None:
        width = shutil.get_terminal_size().columns - 1
        self._clear()
        self._stream.write("".join(line[:width] + "\n" for line in lines))
        self._stream.flush()
        self._drawn = len(lines)

    def _clear(self) -> None:
        if self._drawn:
            self._stream.write(f"\x1b[{self._drawn}F\x1b[J")
            self._drawn = 0


def line_of(item: Running, now_s: float) -> str:
    """Return the status line of one running stage."""
    spent = clock(now_s - item.started_s)
    status = item.status
    if not status:
        return f"  {item.title:<34} starting  {spent}"
    step, total = int(status["step"]), int(status["max_steps"])
    parts = [f"  {item.title:<34}"]
    if total > 0:
        filled = round(_BAR * min(step, total) / total)
        parts.append("━" * filled + "╌" * (_BAR - filled))
        parts.append(f"{step}/{total}")
    else:
        parts.append(f"{step}")
    if status["phase"] != "train":
        parts.append(str(status["phase"]))
    if status.get("loss") is not None:
        parts.append(f"loss {status['loss']:.4g}")
    speed = float(status.get("steps_per_second") or 0.0)
    if speed:
        parts.append(f"{speed:.3g} steps/s")
        if total > step:
            parts.append(f"{clock((total - step) / speed)} left")
    return "  ".join([*parts, spent])


def clock(seconds: float) -> str:
    """Return seconds as ``m:ss`` or ``h:mm:ss``."""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
