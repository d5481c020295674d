"""Real images of a user's own, read from a folder as they are: what a set of drawings is compared with."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vilau.errors import DataError

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".tif", ".tiff")
)  # torch-fidelity's, and WebP
BATCH = 32
LEAST = 2
"""Images without which there is no covariance."""


def image_files(folder: str) -> list[Path]:
    """Return the image files in a folder and all below it, in the order of their paths.

    Raises:
        DataError: there is no such folder, or it holds fewer than two images.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise DataError(
            f"The reference folder {folder} is not there; write a folder of real images."
        )
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    if len(files) < LEAST:
        raise DataError(
            f"The reference folder {folder} holds {len(files)} images ({', '.join(sorted(SUFFIXES))}), but a "
            f"Frechet distance needs {LEAST} or more, and more than there are features (64 of the drawn world, "
            "2048 of Inception) to stand beside published ones; put more images there."
        )
    return files


def read_images(files: Sequence[Path]) -> Iterator[Tensor]:
    """Yield uint8 images ``(B, 3, H, W)``, neighbours of equal size together, as RGB and without any resize.

    Raises:
        DataError: a file is no image, or broken.
    """
    waiting: list[Tensor] = []
    for file in files:
        image = _read(file)
        if waiting and (waiting[0].shape != image.shape or len(waiting) == BATCH):
            yield torch.stack(waiting)
            waiting = []
        waiting.append(image)
    if waiting:
        yield torch.stack(waiting)


def _read(file: Path) -> Tensor:
    try:
        with Image.open(file) as image:
            pixels = np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{file} in the reference folder cannot be read as an image ({error}); put another in its place, or "
            "take it out."
        ) from None
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
