"""Encoded images to pixels and back: any mode, orientation and size becomes upright uint8 RGB."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vilau.errors import ConfigError, DataError

KEPT_FORMATS = ("JPEG", "MPO", "PNG")
"""Formats whose bytes are stored as they are; others are re-encoded without loss. MPO is what phones
write: a JPEG with further pictures behind it."""
MAX_MEGAPIXELS = 100
"""Larger images are not decoded: a few kilobytes can stand for gigabytes of pixels."""


class UnreadableImageError(DataError):
    """Bytes that are no whole image; the message says why."""


@dataclass(frozen=True, slots=True)
class Header:
    """What an image file says of itself before it is decoded."""

    format: str
    width: int
    height: int
    animated: bool
    """More than one frame or page; the first is the one that is read."""


def header_of(data: bytes) -> Header:
    """Read the header of an encoded image; raises ``UnreadableImageError``."""
    with _opened(data) as image:
        form = str(image.format)
        animated = form != "MPO" and bool(getattr(image, "is_animated", False))
        return Header(form, image.width, image.height, animated)


def open_rgb(data: bytes, *, at_least: int | None = None) -> Image.Image:
    """Decode ``data`` fully into an upright RGB image.

    Transparency is laid over white, 16-bit values are scaled to 8 bits, EXIF orientation is applied, of
    an animation the first frame is taken. With ``at_least`` a JPEG may be decoded at 1/2, 1/4 or 1/8 of
    its size, as long as both sides keep so many pixels: many times faster for photographs.

    Raises:
        UnreadableImageError: empty, truncated or foreign bytes, pixels without a known range, or more
            pixels than ``MAX_MEGAPIXELS``.
    """
    with _opened(data) as image:
        if at_least is not None:
            image.draft(None, (at_least, at_least))
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return as_rgb(image)


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """Open an image without decoding it; whatever goes wrong inside becomes ``UnreadableImageError``."""
    if not data:
        raise UnreadableImageError("the file is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_MEGAPIXELS * 1_000_000:
                raise UnreadableImageError(
                    f"{image.width} x {image.height} pixels are more than {MAX_MEGAPIXELS} megapixels, the "
                    "limit against decompression bombs"
                )
            yield image
    except UnreadableImageError:
        raise
    except UnidentifiedImageError as error:
        # Pillow's own words end in an address in memory.
        raise UnreadableImageError(
            f"cannot identify image file, it begins with {data[:12]!r}"
        ) from error
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(
            f"more than {MAX_MEGAPIXELS} megapixels, the limit against decompression bombs"
        ) from error
    except Exception as error:  # Pillow's decoders raise many types for broken bytes
        raise UnreadableImageError(str(error) or type(error).__name__) from error


def as_rgb(image: Image.Image) -> Image.Image:
    """Turn an image of any mode into 8-bit RGB, as ``open_rgb`` does; raises ``UnreadableImageError``."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        return _from_integers(image)
    if image.mode == "F":
        finite = bool(np.isfinite(np.asarray(image)).all())
        broken = "" if finite else " and some of which are NaN or infinite"
        raise UnreadableImageError(f"floating-point pixels, whose range is unknown{broken}")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(white, over).convert("RGB")
    return image.convert("RGB")


def _from_integers(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits.

    Pillow's 32-bit mode holds 16-bit files too; 8-bit values in it are left as they are.
    """
    wide = np.asarray(image)
    least, most = int(wide.min(initial=0)), int(wide.max(initial=0))
    if most > 255 or image.mode.startswith("I;16"):
        least, most, wide = least >> 8, most >> 8, wide >> 8
    if least < 0 or most > 255:
        raise UnreadableImageError("integer pixels outside 0..65535")
    return Image.fromarray(wide.astype(np.uint8)).convert("RGB")


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
    return data if header_of(data).format in KEPT_FORMATS else encode_image(image)


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
    """Encoded bytes to uint8 pixels of one size: scale, cut out a square, perhaps mirror it.

    Scaling is bicubic, antialiased when shrinking.

    Args:
        image_size: side of the result in pixels.
        random_crop: cut the square anywhere; else in the middle.
        random_flip: mirror left and right half of the time.
        draft: decode large JPEGs at a fraction of their size, at least twice the result's. Good
            for training; for measurements the exact pixels are worth the time.
        resize: scale the short side to so many pixels, then cut the square of ``image_size`` out of the
            whole image; None: to ``image_size``, so that the square is as large as the image allows.
    """

    image_size: int
    random_crop: bool = False
    random_flip: bool = False
    draft: bool = False
    resize: int | None = None

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise ConfigError(
                f"data.image_size is {self.image_size}; write a number of pixels, e.g. 64."
            )
        if self.resize is not None and self.resize < self.image_size:
            raise ConfigError(
                f"data.resize is {self.resize}, but squares of data.image_size {self.image_size} pixels "
                f"are cut out; write {self.image_size} or more, or null."
            )

    def __call__(self, data: bytes, rng: random.Random) -> np.ndarray:
        """Return uint8 ``(image_size, image_size, 3)``.

        Raises:
            UnreadableImageError: see ``open_rgb``.
        """
        short = self.resize or self.image_size
        image = open_rgb(data, at_least=2 * short if self.draft else None)
        image = self._part(image, rng) if short > self.image_size else self._square(image, rng)
        if self.random_flip and rng.random() < 0.5:
            image = ImageOps.mirror(image)
        return np.asarray(image)

    def _square(self, image: Image.Image, rng: random.Random) -> Image.Image:
        """Cut out the largest square and scale it."""
        size = self.image_size
        side = min(image.size)
        spare_x, spare_y = image.width - side, image.height - side
        left, top = spare_x // 2, spare_y // 2
        if self.random_crop:
            left, top = rng.randint(0, spare_x), rng.randint(0, spare_y)
        square = (left, top, left + side, top + side)
        if side != size:
            # The square is cut out first: scaling the whole of a long thin image could fill memory.
            return image.resize((size, size), Image.Resampling.BICUBIC, box=square)
        return image.crop(square) if spare_x or spare_y else image

    def _part(self, image: Image.Image, rng: random.Random) -> Image.Image:
        """Cut out a square smaller than the short side and scale it, in one step for the same reason."""
        size = self.image_size
        side = min(image.size) * size / (self.resize or size)
        spare_x, spare_y = image.width - side, image.height - side
        left, top = spare_x / 2, spare_y / 2
        if self.random_crop:
            left, top = rng.random() * spare_x, rng.random() * spare_y
        # Sums of fractions may pass the edge by a rounding error.
        square = (left, top, min(left + side, image.width), min(top + side, image.height))
        return image.resize((size, size), Image.Resampling.BICUBIC, box=square)
