"""Drawn clips for training: drawn anew when they are asked for, each decided by its split and number."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from vilau.data.media.video import frame_indices
from vilau.data.world_data import WorldSpec, WorldSplit
from vilau.errors import ConfigError
from vilau.world.clip_sampling import Staging, clip_at
from vilau.world.clips import Clip, render_clip


@dataclass(frozen=True)
class ClipSpec:
    """Which drawn clips there are; level and seed are the world's.

    Args:
        num_train: clips of the training split.
        num_val: clips of the validation split.
        num_frames: frames of a clip as it is drawn.
        seen_frames: so many of them, evenly spread, the model reads or draws; None: all.
        num_objects: smallest and largest number of objects.
        simple_share: share of the training clips that show a single object, fast and mostly for the whole clip: what
            motions are is learnt there first.
        in_turn_share: share of the training clips in which one of two objects acts after the other: order is learnt
            there first. The rest, and all validation clips, act freely (``vilau.world.clip_sampling.sample_clip``).
    """

    num_train: int = 20000
    num_val: int = 500
    num_frames: int = 8
    seen_frames: int | None = None
    num_objects: tuple[int, int] = (1, 3)
    simple_share: float = 0.0
    in_turn_share: float = 0.0

    def check(self, *, drawn: bool) -> None:
        """Raise ``ConfigError`` for numbers that make no sense; ``drawn`` clips have an even number of frames."""
        for key in ("num_train", "num_val", "num_frames"):
            if getattr(self, key) < 1:
                raise ConfigError(f"data.clips.{key} is {getattr(self, key)}; write at least 1.")
        if drawn and (self.num_frames < 4 or self.num_frames % 2):
            raise ConfigError(
                f"data.clips.num_frames is {self.num_frames}; write an even number from 4 on."
            )
        if self.seen_frames is not None and not 1 <= self.seen_frames <= self.num_frames:
            raise ConfigError(
                f"data.clips.seen_frames is {self.seen_frames}, but a clip has {self.num_frames} frames; write a "
                "number up to that."
            )
        low, high = self.num_objects
        if not 1 <= low <= high:
            raise ConfigError(
                f"data.clips.num_objects is [{low}, {high}]; write a range of at least one object."
            )
        for key in ("simple_share", "in_turn_share"):
            if not 0.0 <= getattr(self, key) <= 1.0:
                raise ConfigError(
                    f"data.clips.{key} is {getattr(self, key)}; write a share from 0 to 1."
                )
        if self.simple_share + self.in_turn_share > 1.0:
            raise ConfigError(
                f"data.clips.simple_share is {self.simple_share} and in_turn_share {self.in_turn_share}; write shares "
                "that add up to 1 at most."
            )


CLIPS = ClipSpec()
"""The default clips, as a default argument."""
_STAGED_OBJECTS: dict[Staging, tuple[int, int]] = {"simple": (1, 1), "in_turn": (2, 2)}
_GOLDEN_RATIO = 0.6180339887498949


@dataclass(frozen=True)
class DrawnClips:
    """The clips of one split of a drawn world."""

    spec: ClipSpec
    world: WorldSpec
    split: WorldSplit
    image_size: int

    def any(self, rng: random.Random) -> Clip:
        """One clip of the split."""
        number = rng.randrange(self.spec.num_train if self.split == "train" else self.spec.num_val)
        staging = self._staging(number)
        return clip_at(
            self.split,
            number,
            level=self.world.level,
            num_frames=self.spec.num_frames,
            image_size=self.image_size,
            num_objects=_STAGED_OBJECTS.get(staging, self.spec.num_objects),
            staging=staging,
            seed=self.world.seed,
        )

    def _staging(self, number: int) -> Staging:
        # Multiples of the golden ratio fall evenly everywhere in [0, 1): any run of numbers has the shares, but for one
        # or two clips.
        place = number * _GOLDEN_RATIO % 1.0
        if self.split != "train" or place >= self.spec.simple_share + self.spec.in_turn_share:
            return "free"
        return "simple" if place < self.spec.simple_share else "in_turn"

    def frames(self, clip: Clip) -> list[np.ndarray]:
        """The frames that the model sees, uint8 ``(H, W, 3)`` each."""
        drawn = render_clip(clip)
        return list(drawn[frame_indices(len(drawn), self.spec.seen_frames or len(drawn))])
