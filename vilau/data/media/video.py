"""Clips as a model reads them: a few frames, spread over a video file, an animation or a folder of frames.

Which frames (VILA-U reference 3.6; n frames in the file, F wanted, 8 as published):

* rule ``inference``: ``round(linspace(0, n - 1, F))``, first and last frame included; the default.
* rule ``training``: ``int(linspace(0, n - 2, F))``, as the published loader draws them.

A clip of fewer than F frames repeats frames by the same rule. The published loader puts *black* frames
before the clip instead, and trains on them as if they were content: a bug, which
``quirks="published"`` brings back.

n is the number of frames that can really be decoded: a file whose end is broken is read up to there, and
``Clip.note`` says so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from vilau.data.media.images import as_rgb
from vilau.data.media.pictures import PUBLISHED, Quirks, open_picture, refuse_url
from vilau.data.sources.items import IMAGE_SUFFIXES
from vilau.errors import ConfigError, DataError

Rule = Literal["inference", "training"]
NUM_FRAMES = 8
ANIMATIONS = (".gif", ".webp", ".png", ".apng", ".avif")
"""Read by Pillow; every other file by PyAV."""
EXTRA = "pip install 'vilau[video]'"


@dataclass(frozen=True)
class Clip:
    """Frames of a video."""

    frames: list[Image.Image]
    """RGB, in the order of time."""
    indices: list[int]
    """Which frame of the file each is; -1 for a black frame."""
    count: int
    """Frames of the file that can be read."""
    fps: float | None = None
    """Frames per second, where the file says so."""
    note: str = ""
    """A sentence about what could not be read, or nothing."""


def read_clip(
    path: str | os.PathLike[str],
    *,
    num_frames: int = NUM_FRAMES,
    rule: Rule = "inference",
    quirks: Quirks | None = None,
) -> Clip:
    """Read ``num_frames`` RGB frames of a video file, a GIF or other animation, or a folder of frames.

    ``vilau.data.media.pictures.prepare(clip.frames, size)`` makes them a tensor.

    Raises:
        DataError: nothing is there, it holds no frame, it is a URL, or PyAV is needed and missing.
        ConfigError: ``num_frames`` or ``rule`` makes no sense.
    """
    refuse_url(path)
    frame_indices(1, num_frames, rule)  # complains about its settings before anything is read
    source = Path(path).expanduser()
    if source.is_dir():
        return _chosen(_folder(source), num_frames, rule, quirks)
    if not source.exists():
        raise DataError(f"{source} does not exist; give a video file or a folder of frames.")
    if not source.stat().st_size:
        raise DataError(f"{source} is an empty file; give a video with at least one frame.")
    opened = _animation if source.suffix.lower() in ANIMATIONS else _video
    with opened(source) as video:
        return _chosen(video, num_frames, rule, quirks)


def frame_indices(count: int, num_frames: int, rule: Rule = "inference") -> list[int]:
    """Which of ``count`` frames are taken; see the module. Raises ``ConfigError``."""
    if num_frames < 1:
        raise ConfigError(f"num_frames is {num_frames}; write 1 or more.")
    if rule == "inference":
        places = np.round(np.linspace(0, count - 1, num_frames))
    elif rule == "training":
        places = np.linspace(0, max(count - 2, 0), num_frames)
    else:
        raise ConfigError(f"rule is {rule!r}; write inference or training.")
    return [int(place) for place in places]


@dataclass
class _Found:
    """What one walk through a source gave."""

    frames: dict[int, Image.Image]
    count: int
    """How many frames can be read in all."""
    broken: bool = False
    """Some bytes could not be decoded."""


@dataclass
class _Source:
    """An opened video: ``read`` walks through it and keeps the wanted frames."""

    path: Path
    read: Callable[[set[int]], _Found]
    expected: int
    """How many frames there seem to be."""
    promised: bool = True
    """The file itself says so; else it is a guess."""
    fps: float | None = None


def _chosen(source: _Source, num_frames: int, rule: Rule, quirks: Quirks | None) -> Clip:
    """Read the frames that the rule names. A wrong ``expected`` costs a second walk."""

    def wanted(count: int) -> list[int]:
        if quirks == PUBLISHED and count < num_frames:
            return [-1] * (num_frames - count) + list(range(count))
        return frame_indices(count, num_frames, rule)

    expected = source.expected
    indices = wanted(expected) if expected > 0 else []
    found = source.read(set(indices))
    broken = found.broken
    if found.count not in (0, expected):
        indices = wanted(found.count)
        found = source.read(set(indices))
    if not found.frames:
        raise DataError(
            f"{source.path} holds no frame that can be read; give a video with at least one."
        )
    black = Image.new("RGB", next(iter(found.frames.values())).size)
    frames = [found.frames.get(index, black) for index in indices]
    note = ""
    if broken or (source.promised and found.count < expected):
        note = (
            f"{source.path} is broken: {found.count} of {max(expected, found.count)} frames can be "
            "read, the others are left out."
        )
    return Clip(frames, indices, found.count, source.fps, note)


# ---------------------------------------------------------------------- a folder of frames


def _folder(folder: Path) -> _Source:
    inside = (path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    files = sorted((p for p in inside if p.suffix.lower() in IMAGE_SUFFIXES), key=_natural)
    if not files:
        raise DataError(f"{folder} holds no images; give a folder of frames or a video file.")

    def read(wanted: set[int]) -> _Found:
        frames = {}
        for index in sorted(wanted - {-1}):
            try:
                frames[index] = open_picture(files[index])
            except DataError:  # counted as not there; the frames are chosen anew
                files[:] = [file for file in files if _is_readable(file)]
                return _Found(frames if files else {}, len(files), broken=True)
        return _Found(frames, len(files))

    return _Source(folder, read, len(files))


def _is_readable(file: Path) -> bool:
    try:
        open_picture(file)
    except DataError:
        return False
    return True


def _natural(path: Path) -> list[tuple[int, str]]:
    """Order ``frame2`` before ``frame10``."""
    pieces = re.split(r"(\d+)", path.name.lower())
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces]


# ---------------------------------------------------------------------- animations, by Pillow


@contextmanager
def _animation(path: Path) -> Iterator[_Source]:
    try:
        with Image.open(path) as image:
            milliseconds = image.info.get("duration", 0)
            yield _Source(
                path,
                lambda wanted: _animation_frames(image, wanted),
                expected=_promised(image),
                fps=1000 / milliseconds if milliseconds else None,
            )
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise _no_video(path, error) from None


def _promised(image: Image.Image) -> int:
    """How many frames an animation says it has; 0 where it breaks off before that can be told."""
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # noqa: BLE001 - decoders raise many types for broken bytes
        return 0


def _animation_frames(image: Image.Image, wanted: set[int]) -> _Found:
    """Walk through all frames, since each builds on those before; stops where the file breaks."""
    found = _Found({}, 0)
    while True:
        try:
            image.seek(found.count)
            image.load()
            if found.count in wanted:
                found.frames[found.count] = as_rgb(image).copy()
        except EOFError:  # Pillow's word for "no such frame"
            return found
        except Exception:  # noqa: BLE001 - decoders raise many types for broken bytes
            found.broken = True
            return found
        found.count += 1


# ---------------------------------------------------------------------- videos, by PyAV


def import_av(user: str) -> Any:
    """Import PyAV; raises ``DataError`` naming ``user`` and the extra where it is not installed."""
    try:
        # An optional package: most models never meet a video file.
        import av
    except ImportError:
        raise DataError(
            f"{user} needs the package PyAV; install it with {EXTRA}, or use a GIF or a folder of frames."
        ) from None
    return av


@contextmanager
def _video(path: Path) -> Iterator[_Source]:
    av = import_av(str(path))
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f"{path} holds no video stream; give a file with pictures in it.")
            stream = container.streams.video[0]
            rate = stream.average_rate
            # Some containers do not say how many frames they hold; then their packets are counted.
            guess = stream.frames or sum(1 for p in _packets(av, container, stream) if p.size)
            promised = stream.frames > 0
        yield _Source(
            path,
            lambda wanted: _video_frames(av, path, wanted),
            expected=guess,
            promised=promised,
            fps=float(rate) if rate else None,
        )
    except av.error.FFmpegError as error:
        raise _no_video(path, error) from None


def _packets(av: Any, container: Any, stream: Any) -> Iterator[Any]:
    """Packets of a stream up to where the file breaks."""
    try:
        yield from container.demux(stream)
    except av.error.FFmpegError:
        return


def _video_frames(av: Any, path: Path, wanted: set[int]) -> _Found:
    """Decode from start to end: only that tells exactly which frames there are."""
    found = _Found({}, 0)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for packet in _packets(av, container, stream):
            try:
                frames = packet.decode()
            except av.error.FFmpegError:  # a broken packet; later ones may be whole
                found.broken = True
                continue
            for frame in frames:
                if found.count in wanted:
                    found.frames[found.count] = _upright(frame)
                found.count += 1
    return found


def _upright(frame: Any) -> Image.Image:
    """Turn a decoded frame into an RGB image as players show it (phones store a rotation)."""
    image = frame.to_image()
    turns = getattr(frame, "rotation", 0) % 360
    return image.rotate(turns, expand=True) if turns else image


def _no_video(path: Path, error: Exception) -> DataError:
    reason = getattr(error, "strerror", None) or "no format that Pillow knows"
    return DataError(
        f"{path} cannot be read as a video ({reason}); give a whole MP4, WebM, GIF or other video file, "
        "or a folder of frames."
    )
