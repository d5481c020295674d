from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image

from tests.data.conftest import encoded, picture
from vilau.data.media.images import (
    ImageTransform,
    UnreadableImageError,
    encode_png,
    open_rgb,
    resize_short_side,
    storable,
)
from vilau.data.pairs import stack_images
from vilau.errors import ConfigError


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(open_rgb(data))


def test_png_round_trip_is_exact_and_stable() -> None:
    array = np.asarray(picture(3))
    assert (pixels(encode_png(array)) == array).all()
    assert encode_png(array) == encode_png(array.copy())


def test_every_mode_becomes_rgb_as_it_looks() -> None:
    grey = Image.new("L", (4, 4), 120)
    assert (pixels(encoded(grey, "PNG")) == 120).all()
    wide = Image.fromarray(np.full((4, 4), 120 * 256 + 99, dtype=np.uint16))
    assert (pixels(encoded(wide, "PNG")) == 120).all()
    assert (pixels(encoded(wide, "TIFF")) == 120).all()
    cmyk = Image.new("RGB", (16, 16), (200, 30, 60)).convert("CMYK")
    assert abs(pixels(encoded(cmyk, "JPEG", quality=98)).astype(int) - (200, 30, 60)).max() < 12
    palette = Image.new("RGB", (4, 4), (10, 200, 30)).quantize(4)
    assert (pixels(encoded(palette, "PNG")) == (10, 200, 30)).all()
    assert (pixels(encoded(Image.new("1", (4, 4), 1), "PNG")) == 255).all()


def test_transparency_is_laid_over_white() -> None:
    image = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    image.putpixel((0, 0), (200, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 128))
    found = pixels(encoded(image, "PNG"))
    assert found[0, 0].tolist() == [200, 0, 0]
    assert found[0, 1].tolist() == [127, 127, 127]
    assert found[3, 3].tolist() == [255, 255, 255]
    grey = Image.new("LA", (4, 4), (0, 0))
    assert (pixels(encoded(grey, "PNG")) == 255).all()
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([5, 6, 7] * 256)
    assert (pixels(encoded(palette, "PNG", transparency=0)) == 255).all()


def test_the_camera_s_orientation_is_applied() -> None:
    image = Image.new("RGB", (32, 16), "black")
    image.paste("white", (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    found = pixels(encoded(image, "JPEG", exif=exif, quality=95))
    assert found.shape == (32, 16, 3)
    assert found[:12].min() > 240
    assert found[20:].max() < 15


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_what_is_truncated_is_never_half_read(form: str) -> None:
    data = encoded(picture(size=(200, 200)), form)
    open_rgb(data)
    with pytest.raises(UnreadableImageError):
        open_rgb(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "the file is empty"), (b"<html>", "cannot identify image file")],
)
def test_reasons_of_unreadable_bytes(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImageError, match=reason):
        open_rgb(data)


def test_float_pixels_and_huge_images_are_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    floats = Image.fromarray(np.zeros((4, 4), np.float32))
    with pytest.raises(UnreadableImageError, match="floating-point pixels"):
        open_rgb(encoded(floats, "TIFF"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # Pillow's limit, small enough to exceed
    with pytest.raises(UnreadableImageError, match="decompression bomb"):
        open_rgb(encoded(picture(size=(40, 30))))


def test_stored_bytes_stay_or_become_png() -> None:
    for form in ("JPEG", "PNG"):
        data = encoded(picture(), form)
        assert storable(data) == data
    bmp = encoded(picture(), "BMP")
    assert Image.open(io.BytesIO(storable(bmp))).format == "PNG"
    assert (pixels(storable(bmp)) == np.asarray(picture())).all()
    small = open_rgb(storable(encoded(picture(size=(90, 60))), image_size=20))
    assert small.size == (30, 20)
    untouched = encoded(picture(size=(90, 60)))
    assert storable(untouched, image_size=60) == untouched


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = np.asarray(resize_short_side(Image.fromarray(stripes), 16))
    assert abs(small[:, 2:-2].astype(int) - 127).max() < 10


def test_centre_and_random_crops() -> None:
    wide = Image.fromarray(
        np.repeat(np.arange(200, dtype=np.uint8)[None, :, None], 50, 0).repeat(3, 2)
    )
    data = encoded(wide, "PNG")
    centre = ImageTransform(50)(data, random.Random(0))
    assert centre.shape == (50, 50, 3)
    assert centre[0, :, 0].tolist() == list(range(75, 125))
    crop = ImageTransform(50, random_crop=True)
    lefts = {int(crop(data, random.Random(seed))[0, 0, 0]) for seed in range(30)}
    assert len(lefts) > 15
    assert (crop(data, random.Random(5)) == crop(data, random.Random(5))).all()
    flip = ImageTransform(50, random_flip=True)
    ends = {int(flip(data, random.Random(seed))[0, 0, 0]) for seed in range(20)}
    assert ends == {75, 124}


def test_squares_out_of_a_larger_image() -> None:
    wide = np.zeros((100, 200, 3), np.uint8)
    wide[..., 0], wide[..., 1] = np.arange(200)[None, :], np.arange(100)[:, None]
    data = encoded(Image.fromarray(wide), "PNG")
    centre = ImageTransform(25, resize=50)(data, random.Random(0)).astype(int)
    expected = np.asarray(
        Image.fromarray(wide).resize((100, 50), Image.Resampling.BICUBIC).crop((37, 12, 63, 38))
    )
    assert centre.shape == (25, 25, 3)
    assert abs(centre[12, 12] - expected[13, 13]).max() <= 1  # scaled by 1/2, cut in the middle
    assert centre[0, 24, 0] - centre[0, 0, 0] == 48
    crop = ImageTransform(25, random_crop=True, resize=50)
    corners = np.array([crop(data, random.Random(seed))[0, 0, :2] for seed in range(200)])
    assert corners[:, 0].max() > 130
    assert corners[:, 1].max() > 40
    assert corners.min(axis=0).max() < 10
    assert (crop(data, random.Random(5)) == crop(data, random.Random(5))).all()
    whole = ImageTransform(50, random_crop=True, resize=50)
    assert (whole(data, random.Random(3)) == ImageTransform(50, True)(data, random.Random(3))).all()
    with pytest.raises(
        ConfigError, match=r"data.resize is 49, but squares of data.image_size 50 p"
    ):
        ImageTransform(50, resize=49)


def test_drafts_of_photographs_look_alike() -> None:
    data = encoded(picture(size=(1500, 1000)), quality=95)
    assert open_rgb(data, at_least=128).size == (375, 250)
    assert open_rgb(data, at_least=1500).size == (1500, 1000)
    exact, draft = (
        ImageTransform(64, draft=draft)(data, random.Random(0)).astype(int)
        for draft in (False, True)
    )
    assert abs(exact - draft).max() <= 3


def test_small_and_odd_images_reach_the_asked_size() -> None:
    for size in [(1, 1), (3, 200), (200, 3), (63, 64), (64, 64), (1, 60000)]:
        data = encoded(Image.new("RGB", size, (9, 8, 7)), "PNG")
        assert (ImageTransform(64)(data, random.Random(0)) == (9, 8, 7)).all()


def test_an_image_size_without_pixels() -> None:
    with pytest.raises(ConfigError, match=r"data.image_size is 0; write a number of pixels"):
        ImageTransform(0)


def test_stacking_keeps_channels_apart() -> None:
    array = np.asarray(picture(size=(8, 8)))
    stacked = stack_images([array, array[::-1]], image_size=8)
    assert stacked.shape == (2, 3, 8, 8)
    assert stacked.is_contiguous()
    assert (stacked[0].permute(1, 2, 0).numpy() == array).all()
    assert stack_images([], image_size=8).shape == (0, 3, 8, 8)
