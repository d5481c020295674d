"""The pictures and clips that published questions are about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vilau.data.media.pictures import Fit, Quirks, read_pixels, squares
from vilau.data.media.video import NUM_FRAMES, read_clip
from vilau.data.published.questions import PublishedQuestion
from vilau.errors import DataError


def question_pixels(
    question: PublishedQuestion,
    size: int,
    *,
    num_frames: int = NUM_FRAMES,
    fit: Fit = "squash",
    quirks: Quirks | None = None,
) -> np.ndarray:
    """Read a question's picture, or ``num_frames`` frames of its video: uint8 ``(F, size, size, 3)``.

    Raises ``DataError`` where a file cannot be read, ``ConfigError`` where a setting makes no sense.
    """
    files = [one for one in question.media if isinstance(one, Path)]
    if question.video:
        frames = read_clip(files[0], num_frames=num_frames, quirks=quirks).frames
        return squares(frames, size, fit=fit, quirks=quirks)
    shown = [one if isinstance(one, Path) else one.open() for one in question.media]
    return read_pixels(shown, size, fit=fit, quirks=quirks)


def check_media(questions: Sequence[PublishedQuestion], folder: Path) -> None:
    """Raise ``DataError`` where pictures or videos are missing, before hours are spent on the others."""
    media = (one for question in questions for one in question.media)
    wanted = dict.fromkeys(one for one in media if isinstance(one, Path))
    missing = [file for file in wanted if not file.exists()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(wanted)} pictures or videos are not in {folder}, the first is {missing[0]}; put "
            "them there."
        )
