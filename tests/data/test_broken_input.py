"""Broken and unusual images and captions: what becomes of each, in words, and nothing else lost."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.conftest import encoded, pack, picture
from vilau.data.image_text import ImageTextPairs
from vilau.data.media.images import MAX_MEGAPIXELS, UnreadableImageError, open_rgb
from vilau.data.preparing.prepare import UNREADABLE, Options, prepare
from vilau.data.shards import ShardSet
from vilau.data.sources.forms import find_source


def png(width: int, height: int, depth: int, kind: int, rows: bytes) -> bytes:
    def block(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = block(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + block(b"IHDR", head) + body + block(b"IEND", b"")


def deep(value: int, channels: int, kind: int) -> bytes:
    row = b"\0" + struct.pack(">H", value) * 4 * channels
    return png(4, 4, 16, kind, row * 4)


BOMB = png(20000, 20000, 8, 0, b"")
"""A hundred bytes that stand for 400 megapixels."""


def floats(value: float) -> bytes:
    return encoded(Image.fromarray(np.full((4, 4), value, np.float32)), "TIFF")


def animation(form: str) -> bytes:
    frames = [Image.new("RGB", (16, 16), color) for color in ((250, 0, 0), (0, 250, 0))]
    return encoded(frames[0], form, save_all=True, append_images=frames[1:], duration=50)


# ------------------------------------------------------------------ pixels


@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bits_are_scaled_and_not_clipped(kind: int, channels: int) -> None:
    opaque = {4: 1, 6: 3}.get(kind, channels)
    row = b"\0" + (struct.pack(">H", 200 * 257) * opaque + b"\xff\xff" * (channels - opaque)) * 4
    found = np.asarray(open_rgb(png(4, 4, 16, kind, row * 4)))
    assert found.shape == (4, 4, 3)
    assert (found == 200).all()
    if kind in (0, 2):
        assert (np.asarray(open_rgb(deep(130, channels, kind))) == 0).all()


@pytest.mark.parametrize("form", ["GIF", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_is_read(form: str) -> None:
    found = np.asarray(open_rgb(animation(form)))
    assert found[..., 0].min() > 230
    assert found[..., 1].max() < 20


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (
            floats(float("nan")),
            r"floating-point pixels, whose range is unknown and some of which are NaN",
        ),
        (floats(float("inf")), r"some of which are NaN or infinite"),
        (floats(0.5), r"floating-point pixels, whose range is unknown$"),
        (b"", r"the file is empty"),
        (b"\x93NUMPY\x01\x00", r"cannot identify image file, it begins with b'.x93NUMPY"),
        (b"<html>not found</html>", r"cannot identify image file, it begins with b'<html>"),
        (BOMB, rf"more than {MAX_MEGAPIXELS} megapixels, the limit against decompression bombs"),
        (
            png(10001, 10000, 8, 0, b""),
            r"10001 x 10000 pixels are more than 100 megapixels, the li",
        ),
        (encoded(picture(size=(300, 300)))[:2000], r"truncated"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_cannot_be_read_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImageError, match=reason) as told:
        open_rgb(data)
    assert " at 0x" not in str(told.value)  # the same words in every run


def test_a_folder_of_trouble_is_prepared_and_trained_on(
    tmp_path: Path, own_cache: Path, recwarn: pytest.WarningsRecorder
) -> None:
    folder = tmp_path / "trouble"
    folder.mkdir()
    good = {
        "grey.png": encoded(Image.new("L", (20, 20), 9), "PNG"),
        "cmyk.jpg": encoded(Image.new("CMYK", (20, 20)), "JPEG"),
        "deep.png": deep(999, 1, 0),
        "clear.png": encoded(picture().quantize(8), "PNG", transparency=0),
        "moving.gif": animation("GIF"),
        "moving.webp": animation("WEBP"),
        "wrong.png": encoded(picture(), "JPEG"),
        "thin.png": encoded(Image.new("RGB", (1, 3000)), "PNG"),
    }
    bad = {
        "nan.tif": floats(float("nan")),
        "zero.jpg": b"",
        "bomb.png": BOMB,
        "large.png": png(9999, 10001, 8, 0, b""),
        "cut.jpg": encoded(picture(size=(300, 300)))[:2000],
        "page.jpg": b"<html>",
    }
    for name, data in (good | bad).items():
        (folder / name).write_bytes(data)
        (folder / name).with_name(f"{name.partition('.')[0]}.txt").write_text(name)
    (folder / "moving.gif").rename(folder / "gif.gif")
    (folder / "gif.txt").write_text("moving.gif")
    options = Options(max_unreadable=0.5)
    result = prepare(find_source(str(folder)), tmp_path / "out", options)
    assert result.count == len(good)
    lines = (tmp_path / "out" / UNREADABLE).read_text().splitlines()
    assert sorted(Path(line.split("\t")[0]).name for line in lines) == sorted(bad)
    assert result.spec["animated"] == 2
    said = "2 animated or of several pages; the first picture stands for each"
    assert result.summary().count(said) == 1
    assert not [w for w in recwarn if issubclass(w.category, Image.DecompressionBombWarning)]

    data = ImageTextPairs(str(tmp_path / "out"), image_size=16, global_batch_size=7)
    data.prepare_data()
    data.setup()
    (batch,) = list(data.train_dataloader())
    assert batch.images.shape == (7, 3, 16, 16)
    assert len(set(batch.texts)) == 7


# ------------------------------------------------------------------ captions

SCRIPTS = ["一只红色的狗", "собака", "كلب أحمر", "🐕‍🦺 e\u0301", "कुत्ता", "ש‎לום"]


@pytest.mark.parametrize("store", ["files", "tar", "jsonl"])
def test_captions_of_any_script_and_length_arrive_whole(tmp_path: Path, store: str) -> None:
    long = "ein sehr langer Satz, " * 500
    captions = [*SCRIPTS, long, "nul\x00 and\x07 bell", "half \ud83d pair", "\ufefftab\tand\nline"]
    expected = {*SCRIPTS, long.strip(), "nul and bell", "half \ufffd pair", "tab and line"}
    folder = tmp_path / "in"
    folder.mkdir()
    rows = []
    for n, caption in enumerate(captions):
        row = json.dumps({"file_name": f"{n}.png", "text": caption}).encode()
        if "\ud83d" in caption or store != "files":
            (folder / f"{n}.json").write_bytes(row)
        else:
            (folder / f"{n}.txt").write_bytes(caption.encode())
        (folder / f"{n}.png").write_bytes(encoded(picture(n), "PNG"))
        rows.append(row)
    if store == "tar":
        pack(tmp_path / "t.tar", {p.name: p.read_bytes() for p in sorted(folder.iterdir())})
    elif store == "jsonl":
        (folder / "t.jsonl").write_bytes(b"\n".join(rows))
    path = {"files": folder, "tar": tmp_path / "t.tar", "jsonl": folder / "t.jsonl"}[store]
    prepare(find_source(str(path)), tmp_path / "out", Options())
    shards = ShardSet(tmp_path / "out")
    found = {record.texts[0].lstrip("\ufeff") for record in shards.read(range(len(shards)))}
    assert found == expected
    assert max(map(len, found)) == len(long.strip()) > 10_000


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("größe".encode("latin-1"), b"line\nbreak", b"plain"):
        stem = bytes(folder) + b"/" + name
        for ending, data in ((b".png", encoded(picture(), "PNG")), (b".txt", b"text")):
            with open(stem + ending, "wb") as file:
                file.write(b"" if ending == b".png" and name != b"plain" else data)
    result = prepare(find_source(str(folder)), tmp_path / "out", Options(max_unreadable=1.0))
    assert result.count == 1
    lines = (tmp_path / "out" / UNREADABLE).read_text().splitlines()
    assert len(lines) == 2
    assert all(line.endswith("\tthe file is empty") for line in lines)
