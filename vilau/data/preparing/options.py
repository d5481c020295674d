"""How data are prepared: the settings of ``vilau data prepare``."""

from __future__ import annotations

from dataclasses import dataclass, field

from vilau.data.cache import short_hash
from vilau.data.media.video import NUM_FRAMES
from vilau.data.preparing.encoding import PartSettings
from vilau.data.preparing.filters import Filters
from vilau.data.shards import CHUNK_BYTES
from vilau.data.sources.forms import PAIRS, VIDEOS
from vilau.data.sources.items import Source
from vilau.errors import ConfigError

MAX_UNREADABLE = 0.05
"""Share of unreadable samples up to which the rest is used."""
SAMPLES_PER_MEGABYTE = 256
"""Samples in a part for each megabyte of a chunk: a part of photographs has some chunks, and is
read in seconds."""
MAX_CHUNK_BYTES = 2 << 30
"""Places in a chunk are 32-bit numbers; one more sample may stand behind this."""
WORK_VERSION = 1
"""Raised when what lies in a workplace, or the order of samples, changes."""


@dataclass(frozen=True)
class Options:
    """How data are prepared.

    Args:
        image_size: shrink images whose short side is larger to so many pixels, stored as PNG;
            None: keep them as they are.
        max_unreadable: refuse when more than this share of the samples cannot be read.
        allow_unpaired: skip and list images without caption and captions without image; else any
            such file is an error.
        workers: processes that read and decode; 0: this one; None: as many as there are cores.
        seed: order in which samples are written.
        filters: which samples are left out on purpose.
        chunk_bytes: size of the set's files.
        num_frames: frames that are kept of a clip, from its first to its last.
    """

    image_size: int | None = None
    max_unreadable: float = MAX_UNREADABLE
    allow_unpaired: bool = False
    workers: int | None = 0
    seed: int = 0
    filters: Filters = field(default_factory=Filters)
    chunk_bytes: int = CHUNK_BYTES
    num_frames: int = NUM_FRAMES

    def check(self, *, kind: str = PAIRS) -> None:
        """Raise ``ConfigError`` unless all of it makes sense for samples of ``kind``."""
        if self.image_size is not None and self.image_size < 1:
            raise ConfigError(f"image size is {self.image_size}; write a number of pixels.")
        if not 0.0 <= self.max_unreadable <= 1.0:
            raise ConfigError(
                f"max unreadable is {self.max_unreadable}; write a share from 0 to 1, e.g. 0.05."
            )
        if self.workers is not None and self.workers < 0:
            raise ConfigError(f"workers is {self.workers}; write 0 or a number of processes.")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; write a whole number from 0 on.")
        if not 1 <= self.chunk_bytes < MAX_CHUNK_BYTES:
            raise ConfigError(
                f"chunk megabytes is {self.chunk_bytes / (1 << 20):g}; write a number above 0 and below "
                f"{MAX_CHUNK_BYTES >> 20}, e.g. 4."
            )
        if self.num_frames < 1:
            raise ConfigError(
                f"frames is {self.num_frames}; write how many to keep of a clip, e.g. 8."
            )
        if kind not in (PAIRS, VIDEOS) and (self.filters.min_caption, self.filters.max_caption) != (
            0,
            None,
        ):
            raise ConfigError(
                f"a length of captions is asked for, but samples of kind {kind} have none; leave out "
                "--min-caption and --max-caption."
            )
        self.filters.check()

    def mark(self, source: Source, kind: str) -> str:
        """12 hex digits over all that decides what the set holds: source, kind and settings."""
        settings = (self.image_size, self.seed, self.chunk_bytes, self.filters)
        # The frames came later: sets made before keep their marks.
        frames = [self.num_frames] if self.num_frames != NUM_FRAMES else []
        return short_hash([WORK_VERSION, kind, source.state(), *map(repr, settings), *frames])

    @property
    def part_settings(self) -> PartSettings:
        """What the writers of parts must know."""
        return PartSettings(self.image_size, self.chunk_bytes, self.filters, self.num_frames)

    @property
    def part_samples(self) -> int:
        """Samples in a part."""
        return max(1, self.chunk_bytes * SAMPLES_PER_MEGABYTE >> 20)


OPTIONS = Options()
"""The default settings, as a default argument."""
