"""Encoded images to pixels and back: any mode, orientation and size becomes upright uint8 RGB."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from vilau.errors import ConfigError, DataError

KEPT_FORMATS = ("JPEG", "PNG")
"""Formats whose bytes are stored as they are; others are re-encoded without loss."""


class UnreadableImageError(DataError):
    """Bytes that are no whole image; the message says why."""


def open_rgb(data: bytes, *, at_least: int | None = None) -> Image.Image:
    """Decode ``data`` fully into an upright RGB image.

    Transparency is laid over white, 16-bit grey is scaled to 8 bits, EXIF orientation is applied.
    With ``at_least`` a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, as long as both sides
    keep so many pixels: many times faster for photographs.

    Raises:
        UnreadableImageError: empty, truncated or foreign bytes, or pixels without a known range.
    """
    if not data:
        raise UnreadableImageError("the file is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            if at_least is not None:
                image.draft(None, (at_least, at_least))
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return as_rgb(image)
    except UnreadableImageError:
        raise
    except Exception as error:  # Pillow's decoders raise many types for broken bytes
        raise UnreadableImageError(str(error) or type(error).__name__) from error


def as_rgb(image: Image.Image) -> Image.Image:
    """Turn an image of any mode into 8-bit RGB, as ``open_rgb`` does; raises ``UnreadableImageError``."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64)
        # Pillow's 32-bit mode holds 16-bit files too; 8-bit values in it are left as they are.
        narrow = wide >> 8 if wide.max(initial=0) > 255 or image.mode.startswith("I;16") else wide
        if narrow.min(initial=0) < 0 or narrow.max(initial=0) > 255:
            raise UnreadableImageError("integer pixels outside 0..65535")
        return Image.fromarray(narrow.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise UnreadableImageError("floating-point pixels, whose range is unknown")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(white, over).convert("RGB")
    return image.convert("RGB")


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode uint8 ``(H, W, 3)`` as PNG; the same pixels give the same bytes."""
    return encode_image(Image.fromarray(pixels))


def encode_image(image: Image.Image) -> bytes:
    """Encode an RGB image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def storable(data: bytes, *, image_size: int | None = None) -> bytes:
    """Check ``data`` by decoding it whole and return the bytes to store.

    JPEG and PNG bytes stay as they are, other formats become PNG. With ``image_size`` an image
    whose short side is larger is shrunk to it (bicubic, antialiased) and stored as PNG.

    Raises:
        UnreadableImageError: see ``open_rgb``.
    """
    image = open_rgb(data)
    if image_size is not None and min(image.size) > image_size:
        return encode_image(resize_short_side(image, image_size))
    with Image.open(io.BytesIO(data)) as header:
        if header.format in KEPT_FORMATS:
            return data
    return encode_image(image)


def resize_short_side(image: Image.Image, size: int) -> Image.Image:
    """Scale so that the short side has ``size`` pixels (bicubic; antialiased when shrinking)."""
    width, height = image.size
    if min(width, height) == size:
        return image
    scale = size / min(width, height)
    shape = (max(size, round(width * scale)), max(size, round(height * scale)))
    return image.resize(shape, Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class ImageTransform:
    """Encoded bytes to uint8 pixels of one size: cut out the largest square, scale it.

    Scaling is bicubic, antialiased when shrinking.

    Args:
        image_size: side of the result in pixels.
        random_crop: cut the square anywhere along the long side; else in the middle.
        random_flip: mirror left and right half of the time.
        draft: decode large JPEGs at a fraction of their size, at least twice the result's. Good
            for training; for measurements the exact pixels are worth the time.
    """

    image_size: int
    random_crop: bool = False
    random_flip: bool = False
    draft: bool = False

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise ConfigError(
                f"data.image_size is {self.image_size}; write a number of pixels, e.g. 64."
            )

    def __call__(self, data: bytes, rng: random.Random) -> np.ndarray:
        """Return uint8 ``(image_size, image_size, 3)``.

        Raises:
            UnreadableImageError: see ``open_rgb``.
        """
        size = self.image_size
        image = open_rgb(data, at_least=2 * size if self.draft else None)
        side = min(image.size)
        spare_x, spare_y = image.width - side, image.height - side
        left, top = spare_x // 2, spare_y // 2
        if self.random_crop:
            left, top = rng.randint(0, spare_x), rng.randint(0, spare_y)
        square = (left, top, left + side, top + side)
        if side != size:
            # The square is cut out first: scaling the whole of a long thin image could fill memory.
            image = image.resize((size, size), Image.Resampling.BICUBIC, box=square)
        elif spare_x or spare_y:
            image = image.crop(square)
        if self.random_flip and rng.random() < 0.5:
            image = ImageOps.mirror(image)
        return np.asarray(image)
