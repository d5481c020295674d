"""When a number of a training run is wrong, and what usually helps: plain Python, one value at a time."""

import math
import statistics
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vilau.errors import ConfigError

DEVIATIONS_PER_MAD = 1.4826
"""Median absolute deviations of a normal distribution in one standard deviation."""
SMALLEST_SPREAD = 0.01
"""The spread of a window is taken for at least this share of its median: a loss that stands almost
still would make a spike of every flutter."""

HELP = {
    "non-finite": (
        "go back to the last checkpoint with a lower learning rate or a longer warm-up, set "
        "trainer.gradient_clip_val, and look at the saved batch for broken pixels."
    ),
    "loss spike": (
        "a spike that goes away needs nothing; against repeated ones set trainer.gradient_clip_val, lower "
        "the learning rate or warm up longer."
    ),
    "codebook collapse": (
        "restart unused codes, start the codebook from data, choose codes by a faster moving average "
        "(a smaller decay), or lower the learning rate of the encoder."
    ),
    "dead depth": (
        "train with fewer depths, give the later depths more codes or a codebook of their own, or raise "
        "the commitment weight."
    ),
    "discriminator winning": (
        "let the discriminator start later, lower its learning rate or its weight, or regularise it "
        "(R1 or LeCam)."
    ),
    "logit scale": (
        "hold the scale at a largest value (CLIP stops at 100), lower its learning rate, take weight decay "
        "off it, and look for captions that occur twice in a batch."
    ),
}
"""What usually helps, by cause."""


NAMES = {
    "loss": "train/loss",
    "discriminator_accuracy": "train/discriminator_accuracy",
    "discriminator_loss": "train/discriminator_loss",
    "logit_scale": "train/logit_scale",
    "usage": "val/codebook_usage",
    "perplexity": "val/codebook_perplexity",
    "residual_energy": "val/residual_energy",
}
"""Where `Health` looks in ``trainer.callback_metrics``; the last three end in ``_d1``, ``_d2``, ..."""


@dataclass
class Alarm:
    """Something that went wrong, from the step it began until the step it was over."""

    cause: str
    """A key of `HELP`."""
    place: str
    """Where, e.g. ``depth 3``; empty where there is only one."""
    step: int
    over: int | None = None

    @property
    def name(self) -> str:
        """Return cause and place."""
        return f"{self.cause}, {self.place}" if self.place else self.cause


EVERYTHING = {"loss", "gradients", "codebook", "residual energy", "discriminator", "logit scale"}
"""What can be watched."""


class Alarms:
    """The alarms of a run: each cause is told once until it has recovered."""

    def __init__(self) -> None:
        self.all: list[Alarm] = []
        self.on: dict[str, Alarm] = {}

    def note(self, cause: str, place: str, *, wrong: bool, step: int) -> bool:
        """Note whether something is wrong at ``step``; True where that is news."""
        alarm = Alarm(cause, place, step)
        if wrong and alarm.name not in self.on:
            self.on[alarm.name] = alarm
            self.all.append(alarm)
            return True
        if not wrong and alarm.name in self.on:
            self.on.pop(alarm.name).over = step
            return True
        return False

    def state_dict(self) -> list[list[str | int | None]]:
        """Return plain rows, for a checkpoint."""
        return [[a.cause, a.place, a.step, a.over] for a in self.all]

    def load_state_dict(self, rows: list[list[str | int | None]]) -> None:
        """Take over the alarms of a run that is resumed."""
        self.all = [
            Alarm(str(c), str(p), int(s or 0), None if o is None else int(o)) for c, p, s, o in rows
        ]
        self.on = {alarm.name: alarm for alarm in self.all if alarm.over is None}

    def summary(self, step: int, watched: set[str]) -> list[str]:
        """Return the lines that sum up a fit of ``step`` steps."""
        missing = ", ".join(sorted(EVERYTHING - watched))
        unseen = f" Not logged, so not watched: {missing}." if missing else ""
        number = len(self.all)
        found = f"{number} alarm{'s' if number > 1 else ''}" if number else "nothing went wrong"
        seen = ", ".join(sorted(watched)) or "nothing"
        lines = [f"  {line}" for line in self.lines()]
        return [f"health after {step} steps: {found}. Watched: {seen}.{unseen}", *lines]

    def lines(self) -> list[str]:
        """Return one line per cause and place: when it began, and whether it was over."""
        grouped: dict[str, list[str]] = {}
        for alarm in self.all:
            end = "still on" if alarm.over is None else f"over at {alarm.over}"
            grouped.setdefault(alarm.name, []).append(f"step {alarm.step} ({end})")
        return [
            f"{name}: {', '.join(times[:5])}"
            + (f" and {len(times) - 5} times more" if times[5:] else "")
            for name, times in grouped.items()
        ]


class SpikeWindow:
    """Whether a value lies far above the last ones, by their median and their median deviation.

    It also lies at least twice as far above the median as the largest tenth of them.
    Spikes stay in the window, whose median does not mind a few; a level that lasts for half a
    window becomes the new normal. A spike is over after a quarter of a window without another.

    Args:
        length: values to look back on; nothing is judged before half of them are there.
        deviations: how many standard deviations above the median a spike begins.
    """

    def __init__(self, *, length: int, deviations: float) -> None:
        self.values: deque[float] = deque(maxlen=length)
        self.deviations = deviations
        self.calm = length
        self.limit = float("inf")

    @property
    def median(self) -> float:
        """The window's median."""
        return statistics.median(self.values)

    def spikes(self, value: float) -> bool:
        """Judge a value by those before it, and take it in; True while a spike is on."""
        assert self.values.maxlen is not None
        length = self.values.maxlen
        if 2 * len(self.values) >= length:
            median = self.median
            deviation = statistics.median(abs(entry - median) for entry in self.values)
            spread = max(DEVIATIONS_PER_MAD * deviation, SMALLEST_SPREAD * abs(median))
            # Where batches are of several kinds, their losses lie in heaps: what one in ten reaches is none to warn of.
            high = statistics.quantiles(self.values, n=10)[-1]
            self.limit = max(median + self.deviations * spread, 2.0 * high - median)
        self.calm = 0 if value > self.limit else self.calm + 1
        self.values.append(value)
        return self.calm <= length // 4


class MeanWindow:
    """The mean of the last ``length`` values, or None before all of them are there."""

    def __init__(self, length: int) -> None:
        self.values: deque[float] = deque(maxlen=length)

    def mean(self, value: float) -> float | None:
        """Take a value in and return the mean."""
        self.values.append(value)
        full = len(self.values) == self.values.maxlen
        return statistics.fmean(self.values) if full else None


def per_depth(metrics: Mapping[str, float], name: str) -> dict[int, float]:
    """Return the values of ``<name>_d1``, ``<name>_d2``, ... by depth, in order."""
    found: dict[int, float] = {}
    for key, value in metrics.items():
        stem, _, number = key.rpartition("_d")
        if stem == name and number.isdecimal():
            found[int(number)] = float(value)
    return dict(sorted(found.items()))


def codebook_findings(
    usage: Mapping[int, float],
    perplexity: Mapping[int, float],
    *,
    codebook_size: int,
    num_codes: int,
    smallest_usage: float,
    smallest_perplexity: float,
) -> Iterator[tuple[int, bool, str]]:
    """Say of each depth whether its codebook has collapsed, and in words what was found.

    Args:
        usage: by depth, the share of the ``codebook_size`` codes seen, 0..1.
        perplexity: by depth, the effective number of codes, 1..codebook_size.
        codebook_size: K.
        num_codes: codes of a depth that were looked at; no more can differ.
        smallest_usage: share of the possible codes that must be seen.
        smallest_perplexity: share of the possible codes that the perplexity must reach.
    """
    room = min(codebook_size, num_codes)
    for depth in sorted({*usage, *perplexity}):
        used = usage.get(depth, 1.0) * codebook_size
        effective = perplexity.get(depth, float(room))
        wrong = used < smallest_usage * room or effective < smallest_perplexity * room
        words = (
            f"it uses {used:.0f} codes with a perplexity of {effective:.1f}, of {room} possible (the alarm "
            f"stands at {smallest_usage:.0%} and {smallest_perplexity:.0%})"
        )
        yield depth, wrong, words


def depth_findings(
    energies: Mapping[int, float], *, smallest_fall: float
) -> Iterator[tuple[int, bool, str]]:
    """Say of each depth whether it takes away less than ``smallest_fall`` of what was left before it.

    Args:
        energies: by depth in order, the share of the features' energy left after it.
        smallest_fall: 0..1.
    """
    before = 1.0
    for depth, energy in energies.items():
        words = (
            f"it leaves {energy:.4g} of the features' energy, where {before:.4g} was left before it"
        )
        yield depth, energy > (1 - smallest_fall) * before, words
        before = energy


def non_finite_words(step: Mapping[str, Any], *, mine: bool) -> str:
    """Say what of a step (its ``losses``, ``gradient_norm``, ``parameters``) is not finite.

    ``mine`` is false where all of it is, and another rank raised the alarm.
    """
    losses, norm = step["losses"], step["gradient_norm"]
    shown = ", ".join(f"{value:.4g}" for value in losses)
    numbers = f"loss {shown}; gradient norm {norm:.4g}"
    if not mine:
        return f"another rank's loss or gradient is not a finite number (here: {numbers})"
    what = "a gradient" if all(map(math.isfinite, losses)) else "the loss"
    first = f", first in {step['parameters'][0]}" if step["parameters"] else ""
    return f"{what} is not a finite number ({numbers}{first})"


def check_settings(
    *,
    least: Mapping[str, tuple[float, float]],
    shares: Mapping[str, float],
    names: Mapping[str, str],
) -> None:
    """Refuse settings of `Health` that are out of range.

    Args:
        least: by key, a value and the smallest it may be.
        shares: by key, a value from 0 to 1.
        names: by key of ``NAMES``, a metric's name.

    Raises:
        ConfigError: naming the key, its value and what to write.
    """
    for key, (value, smallest) in least.items():
        if not value >= smallest:
            raise ConfigError(f"Health.{key} is {value}; write {smallest:g} or more.")
    for key, value in shares.items():
        if not 0 <= value <= 1:
            raise ConfigError(f"Health.{key} is {value}; write a share from 0 to 1.")
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        raise ConfigError(
            f"Health.names holds {unknown[0]!r}; the keys it knows are {', '.join(NAMES)}."
        )
