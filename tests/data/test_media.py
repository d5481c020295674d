"""Pictures from anything to what a model reads, and the published bugs behind a word."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.conftest import encoded, picture
from vilau.data.media.pictures import normalise, open_picture, prepare, read_images
from vilau.errors import ConfigError, DataError

SIZE = 16


def pixels(image: Image.Image) -> torch.Tensor:
    return normalise(np.asarray(image)[None])[0]


def cut_short() -> bytes:
    data = encoded(picture(), "PNG")
    return data[: len(data) // 2]


def test_squashing_is_the_published_processor(tmp_path: Path) -> None:
    """Pillow's resize to the square, then the processor, whose own resize and crop then do nothing."""
    transformers = pytest.importorskip("transformers")
    processor = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE},
        image_mean=[0.5] * 3, image_std=[0.5] * 3,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    for shape in [(40, 30), (13, 50), (SIZE, SIZE), (9, 7)]:
        image = Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
        image.save(tmp_path / "x.png")
        squashed = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        expected = processor(squashed, return_tensors="pt")["pixel_values"]
        ours = read_images([tmp_path / "x.png"], SIZE)
        assert ours.dtype == torch.float32
        assert torch.equal(ours, expected)


def test_the_range_is_exactly_minus_one_to_one() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    values = normalise(grey)
    assert (values.min(), values.max()) == (-1.0, 1.0)
    assert torch.allclose(values[0, 0].flatten(), torch.linspace(-1, 1, 256), atol=1e-6)


def test_pad_and_crop_keep_the_aspect() -> None:
    portrait = Image.new("RGB", (16, 48), "red")
    portrait.paste("lime", (0, 16, 16, 32))
    portrait.paste("blue", (0, 32, 16, 48))
    cut = prepare([portrait], SIZE, fit="crop")[0]
    assert torch.equal(cut, pixels(Image.new("RGB", (SIZE, SIZE), "lime")))
    top = prepare([portrait], SIZE, fit="crop", quirks="published")[0]
    assert torch.equal(top, pixels(Image.new("RGB", (SIZE, SIZE), "red")))
    landscape = portrait.rotate(90, expand=True)
    both = [prepare([landscape], SIZE, fit="crop", quirks=q) for q in (None, "published")]
    assert torch.equal(both[0], both[1])

    padded = prepare([portrait], 48, fit="pad")[0]
    assert torch.equal(padded[:, :, 16:32], pixels(portrait))
    assert torch.equal(padded[:, :, :16], torch.full((3, 48, 16), padded[0, 0, 0].item()))
    assert padded[0, 0, 0] == pytest.approx(127 / 127.5 - 1, abs=1e-6)


def test_palettes_become_rgb_before_they_are_resized(tmp_path: Path) -> None:
    image = picture(size=(64, 48))
    image.quantize(32).save(tmp_path / "p.png")
    rgb = Image.open(tmp_path / "p.png").convert("RGB")
    squashed = rgb.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    assert torch.equal(read_images([tmp_path / "p.png"], SIZE)[0], pixels(squashed))

    published = read_images([tmp_path / "p.png"], SIZE, quirks="published")[0]
    nearest = rgb.resize((SIZE, SIZE), Image.Resampling.NEAREST)
    assert torch.equal(published, pixels(nearest))
    assert not torch.equal(published, pixels(squashed))


def test_every_mode_becomes_the_rgb_a_person_sees(tmp_path: Path) -> None:
    def read(name: str) -> list[int]:
        image = open_picture(tmp_path / name)
        assert image.mode == "RGB"
        return np.asarray(image)[0, 0].tolist()

    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert read("clear.png") == [255, 255, 255]
    Image.new("RGBA", (4, 4), (255, 0, 0, 128)).save(tmp_path / "half.png")
    assert read("half.png") == [255, 127, 127]
    Image.new("CMYK", (4, 4), (255, 0, 0, 0)).save(tmp_path / "c.tif")
    assert read("c.tif") == [0, 255, 255]
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(tmp_path / "deep.png")
    assert read("deep.png") == [40000 >> 8] * 3
    Image.new("1", (4, 4), 1).save(tmp_path / "bit.png")
    assert read("bit.png") == [255] * 3
    Image.new("LA", (4, 4), (0, 0)).save(tmp_path / "la.png")
    assert read("la.png") == [255] * 3


def test_orientation_tags_are_obeyed_except_by_the_published_code(tmp_path: Path) -> None:
    image = picture(size=(32, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    (tmp_path / "phone.jpg").write_bytes(encoded(image, "JPEG", exif=exif, quality=100))
    assert open_picture(tmp_path / "phone.jpg").size == (16, 32)
    upright = read_images([tmp_path / "phone.jpg"], SIZE)
    opened = Image.open(tmp_path / "phone.jpg")
    assert torch.equal(read_images([opened], SIZE), upright)
    raw = read_images([tmp_path / "phone.jpg"], SIZE, quirks="published")
    assert torch.equal(raw.rot90(-1, (2, 3)), upright)


def test_images_come_as_paths_pillow_images_arrays_or_tensors(tmp_path: Path) -> None:
    image = picture(size=(20, 20))
    image.save(tmp_path / "x.png")
    array = np.asarray(image)
    path, tensor = tmp_path / "x.png", torch.tensor(array).permute(2, 0, 1)
    forms = [str(path), path, image, array, tensor]
    rows = read_images(forms, SIZE)
    assert rows.shape == (5, 3, SIZE, SIZE)
    assert all(torch.equal(row, rows[0]) for row in rows)

    ready = torch.rand(3, SIZE, SIZE) * 2 - 1
    assert torch.equal(read_images([ready], SIZE)[0], ready)
    assert torch.equal(read_images([normalise(array[None])[0]], SIZE)[0], rows[0])
    assert read_images([], SIZE).shape == (0, 3, SIZE, SIZE)


@pytest.mark.parametrize("quirks", [None, "published"])
def test_what_is_no_image_is_told_in_a_sentence(tmp_path: Path, quirks: str | None) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "cut.png").write_bytes(cut_short())
    for name, says in [
        ("gone.png", "gone.png does not exist; give the path"),
        ("empty.png", "empty.png cannot be read as an image"),
        (
            "notes.txt",
            r"notes.txt cannot be read as an image \(no image format that Pillow knows\)",
        ),
        ("cut.png", "cut.png cannot be read as an image"),
        ("", "is a folder, but one image is needed"),
    ]:
        with pytest.raises(DataError, match=says):
            read_images([tmp_path / name], SIZE, quirks=quirks)
    for url in ("https://example.org/cat.png", "s3://bucket/cat.png", Path("http://x.org/a.png")):
        with pytest.raises(DataError, match="is a URL, and vilau downloads nothing; save the file"):
            read_images([url], SIZE, quirks=quirks)


def test_arrays_of_unclear_range_and_unknown_words_are_refused() -> None:
    for wrong in (torch.rand(3, 4, 4) * 255, torch.full((3, SIZE, SIZE), float("nan"))):
        with pytest.raises(DataError, match=r"give floats in \[-1, 1\]"):
            read_images([wrong], SIZE)
    with pytest.raises(DataError, match="is no image"):
        read_images([np.zeros((4, 4, 3), np.float32)], SIZE)
    with pytest.raises(DataError, match="is no image"):
        read_images([torch.zeros(4, 4, 3)], SIZE)
    with pytest.raises(ConfigError, match="fit is 'stretch'; write one of squash, pad, crop"):
        read_images([picture()], SIZE, fit="stretch")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="quirks is 'all'"):
        read_images([picture()], SIZE, quirks="all")  # type: ignore[arg-type]


def test_a_lazily_opened_image_that_is_cut_short_is_refused() -> None:
    image = Image.open(io.BytesIO(cut_short()))
    with pytest.raises(DataError, match="the given image cannot be read"):
        read_images([image], SIZE)
