"""Pictures as a model reads them: from files, Pillow images or arrays to float ``(N, 3, S, S)`` in [-1, 1].

Preparation is the published one (VILA-U reference 3.6): bicubic resizing by Pillow, 1/255, mean and
standard deviation 0.5. How a picture becomes a square (``fit``):

* ``squash``: resize both sides, which changes the aspect. What the published model reads
  (``image_aspect_ratio: resize``), and the default.
* ``pad``: a square of the mean colour around the whole picture (published as an option).
* ``crop``: the largest square in the middle. What is drawn was trained on such squares.

Two habits of the published code are bugs. The correct behaviour is the default here;
``quirks="published"`` brings the published one back, to compare with its numbers:

* ``squash`` there resizes a picture in the mode its file has and turns it into RGB afterwards: a palette
  is resized by nearest neighbour, transparency uncovers whatever colour lies under it, and the
  orientation tag of a photograph is not obeyed. Here upright RGB over white comes first.
* ``crop`` there takes the *top* square of a portrait (a landscape is cut in the middle). Here the middle.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from vilau.data.media.images import UnreadableImageError, as_rgb, open_rgb
from vilau.errors import ConfigError, DataError

Fit = Literal["squash", "pad", "crop"]
Quirks = Literal["published"]
Picture = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor

FITS = ("squash", "pad", "crop")
PUBLISHED = "published"
MEAN = STANDARD_DEVIATION = 0.5
MEAN_COLOUR = (127, 127, 127)
"""The published padding: the mean on the scale of 255, cut to a whole number."""

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:/")
"""Two letters or more before the colon: a Windows drive has one."""


def read_images(
    pictures: Sequence[Picture], size: int, *, fit: Fit = "squash", quirks: Quirks | None = None
) -> Tensor:
    """Return pictures as float32 ``(N, 3, size, size)`` in [-1, 1].

    Args:
        pictures: each a path (any format Pillow reads), a Pillow image, a uint8 array ``(H, W, 3)`` or
            ``(H, W)``, or a tensor ``(3, H, W)``: uint8 0..255, or float in [-1, 1]. A float tensor of
            the wanted size is passed on untouched; another is rounded to 256 levels and resized.
        size: side of the result in pixels.
        fit: how a picture becomes a square; see the module.
        quirks: ``"published"`` for the published code's bugs; see the module.

    Raises:
        DataError: a picture is missing, unreadable, or a URL (nothing is downloaded).
        ConfigError: ``fit`` or ``quirks`` is no such word.
    """
    check_words(fit, quirks)
    rows = []
    for picture in pictures:
        ready = isinstance(picture, Tensor) and picture.shape == (3, size, size)
        if ready and isinstance(picture, Tensor) and picture.is_floating_point():
            rows.append(_checked_float(picture).detach().cpu().float())
        else:
            rows.append(normalise(read_pixels([picture], size, fit=fit, quirks=quirks))[0])
    return torch.stack(rows) if rows else torch.empty(0, 3, size, size)


def read_pixels(
    pictures: Sequence[Picture], size: int, *, fit: Fit = "squash", quirks: Quirks | None = None
) -> np.ndarray:
    """Return pictures as uint8 ``(N, size, size, 3)``: what ``read_images`` normalises, and raises as it does.

    Here a float tensor, whatever its size, is rounded to 256 levels.
    """
    check_words(fit, quirks)
    opened = [_opened(picture, fit, quirks) for picture in pictures]
    return squares(opened, size, fit=fit, quirks=quirks)


def prepare(
    images: Sequence[Image.Image],
    size: int,
    *,
    fit: Fit = "squash",
    quirks: Quirks | None = None,
) -> Tensor:
    """Square Pillow images and return them as float32 ``(N, 3, size, size)`` in [-1, 1]."""
    return normalise(squares(images, size, fit=fit, quirks=quirks))


def squares(
    images: Sequence[Image.Image],
    size: int,
    *,
    fit: Fit = "squash",
    quirks: Quirks | None = None,
) -> np.ndarray:
    """Square Pillow images and return their pixels as uint8 ``(N, size, size, 3)``; N is at least 1."""
    return np.stack([np.asarray(square(one, size, fit=fit, quirks=quirks)) for one in images])


def normalise(pixels: np.ndarray) -> Tensor:
    """Map uint8 ``(N, H, W, 3)`` to float32 ``(N, 3, H, W)`` in [-1, 1].

    In the order and precision of the published processor: times 1/255, minus 0.5, divided by 0.5.
    """
    scaled = (pixels.astype(np.float64) * (1 / 255)).astype(np.float32)
    values = (scaled - np.float32(MEAN)) / np.float32(STANDARD_DEVIATION)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2)))


def square(
    image: Image.Image, size: int, *, fit: Fit = "squash", quirks: Quirks | None = None
) -> Image.Image:
    """Make an image an RGB square of ``size`` pixels; see the module for ``fit`` and ``quirks``."""
    check_words(fit, quirks)
    if fit == "squash" and quirks == PUBLISHED:
        return _resized(image, size, None).convert("RGB")
    image = as_rgb(image)
    if fit == "squash":
        return _resized(image, size, None)
    if fit == "pad":
        side = max(image.size)
        padded = Image.new("RGB", (side, side), MEAN_COLOUR)
        padded.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return _resized(padded, size, None)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    if quirks == PUBLISHED:
        top = 0
    return _resized(image, size, (left, top, left + side, top + side))


def _resized(image: Image.Image, size: int, box: tuple[int, int, int, int] | None) -> Image.Image:
    if (image.size if box is None else (box[2] - box[0], box[3] - box[1])) == (size, size):
        return image if box is None else image.crop(box)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)


# ---------------------------------------------------------------------- opening


def open_picture(picture: Picture) -> Image.Image:
    """Open a picture (see ``read_images``) as an upright RGB image; of an animation the first frame.

    Transparency is laid over white, CMYK, palettes and 16-bit grey are converted, EXIF orientation is
    applied. Raises ``DataError``.
    """
    if isinstance(picture, Image.Image):
        try:
            return as_rgb(ImageOps.exif_transpose(picture))
        except (OSError, ValueError, UnreadableImageError) as error:  # cut short, or an odd mode
            raise DataError(
                f"the given image cannot be read ({error}); give a whole one."
            ) from None
    if isinstance(picture, Tensor | np.ndarray):
        return _from_array(picture)
    data = file_bytes(picture)
    try:
        return open_rgb(data)
    except UnreadableImageError as error:
        raise _unreadable(picture, error) from None


def _opened(picture: Picture, fit: Fit, quirks: Quirks | None) -> Image.Image:
    if quirks != PUBLISHED or fit != "squash" or isinstance(picture, Tensor | np.ndarray):
        return open_picture(picture)
    if isinstance(picture, Image.Image):
        return picture
    try:
        image = Image.open(io.BytesIO(file_bytes(picture)))
        image.load()
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise many types for broken bytes
        raise _unreadable(picture, UnreadableImageError(str(error))) from error
    return image


def file_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a file that should be an image; raises ``DataError`` for a URL, a folder, or no file."""
    refuse_url(path)
    file = Path(path).expanduser()
    if file.is_dir():
        raise DataError(f"{file} is a folder, but one image is needed here; name a file in it.")
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{file} does not exist; give the path of an image.") from None
    except OSError as error:
        raise DataError(
            f"{file} cannot be read ({error.strerror}); give the path of an image you may read."
        ) from None


def refuse_url(path: str | os.PathLike[str]) -> None:
    """Raise ``DataError`` for a URL: nothing is downloaded on the way to a model."""
    if _URL.match(os.fspath(path)):
        raise DataError(
            f"{os.fspath(path)} is a URL, and vilau downloads nothing; save the file and give its path."
        )


def check_words(fit: str, quirks: str | None) -> None:
    """Raise ``ConfigError`` where ``fit`` or ``quirks`` is none of the known words."""
    if fit not in FITS:
        raise ConfigError(f"fit is {fit!r}; write one of {', '.join(FITS)}.")
    if quirks not in (None, PUBLISHED):
        raise ConfigError(f"quirks is {quirks!r}; write {PUBLISHED!r} or leave it out.")


def _unreadable(path: str | os.PathLike[str], error: UnreadableImageError) -> DataError:
    unknown = isinstance(error.__cause__, UnidentifiedImageError) or "cannot identify" in str(error)
    reason = "no image format that Pillow knows" if unknown else str(error)
    return DataError(
        f"{os.fspath(path)} cannot be read as an image ({reason}); give a whole JPEG, PNG, WebP or "
        "another image file."
    )


def _from_array(pixels: Tensor | np.ndarray) -> Image.Image:
    if isinstance(pixels, Tensor):
        if pixels.ndim != 3 or len(pixels) != 3:
            raise DataError(f"a tensor of shape {tuple(pixels.shape)} is no image; give (3, H, W).")
        array = pixels.detach().cpu().permute(1, 2, 0)
        if array.is_floating_point():
            array = ((_checked_float(array).float() + 1) * 127.5).round().to(torch.uint8)
        pixels = array.contiguous().numpy()
    grey_or_rgb = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    if pixels.dtype != np.uint8 or not grey_or_rgb:
        raise DataError(
            f"an array of {pixels.dtype} {pixels.shape} is no image; give uint8 (H, W, 3) or a tensor "
            "(3, H, W), uint8 or float in [-1, 1]."
        )
    return Image.fromarray(pixels).convert("RGB")


def _checked_float(pixels: Tensor) -> Tensor:
    low, high = pixels.min().item(), pixels.max().item()
    if not (low >= -1.0001 and high <= 1.0001):  # also refuses NaN
        raise DataError(
            f"a float image holds values from {low:.4g} to {high:.4g}; give floats in [-1, 1] or uint8 0..255."
        )
    return pixels.clamp(-1, 1)
