"""Clips written for people: GIF, MP4, and all frames side by side."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vilau.data.media.video import import_av

ENCODERS: tuple[tuple[str, dict[str, str]], ...] = (
    ("libx264", {"crf": "14"}),
    ("libopenh264", {}),
    ("mpeg4", {"qscale": "2"}),
)
"""H.264 in software where PyAV was built with it, else MPEG-4 part 2, which every build has."""


def strip(frames: Tensor) -> Tensor:
    """Put uint8 frames ``(F, 3, H, W)`` side by side: uint8 ``(3, H, F * W)``."""
    return torch.cat(list(frames), dim=-1)


def write_gif(path: Path, frames: Tensor, *, fps: float) -> None:
    """Write uint8 frames ``(F, 3, H, W)`` as an endless GIF; each frame gets a palette of its own."""
    images = [Image.fromarray(frame) for frame in _pixels(frames)]
    images[0].save(
        path, "GIF", save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0
    )


def write_mp4(path: Path, frames: Tensor, *, fps: float) -> str:
    """Write uint8 frames ``(F, 3, H, W)`` as MP4 that players and browsers show; returns the codec's name.

    Odd sides grow by a row or column, since the colour planes have half the size. Raises ``DataError``
    where PyAV is not installed.
    """
    av = import_av(str(path))
    pixels = _pixels(frames)
    pixels = np.pad(
        pixels, ((0, 0), (0, pixels.shape[1] % 2), (0, pixels.shape[2] % 2), (0, 0)), mode="edge"
    )
    codec, options = next(entry for entry in ENCODERS if _can_encode(av, entry[0]))
    settings = {"movflags": "faststart"}
    with av.open(str(path), "w", format="mp4", options=settings) as container:
        stream: Any = container.add_stream(
            codec, rate=Fraction(fps).limit_denominator(1000), options=options
        )
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return codec


def _can_encode(av: Any, codec: str) -> bool:
    try:
        av.Codec(codec, "w")
    except ValueError:  # PyAV's UnknownCodecError
        return False
    return True


def _pixels(frames: Tensor) -> np.ndarray:
    """Uint8 ``(F, H, W, 3)``."""
    return np.ascontiguousarray(frames.cpu().permute(0, 2, 3, 1).numpy())
