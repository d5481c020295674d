"""Clips: which frames, from which kinds of file, and what happens to broken ones."""

from __future__ import annotations

import builtins
import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vilau.data.media import video_files
from vilau.data.media.video import frame_indices, read_clip
from vilau.errors import ConfigError, DataError


def brightness(number: int) -> int:
    return 10 + 11 * number


def frames(count: int, side: int = 16) -> torch.Tensor:
    """Frames whose brightness tells their number."""
    shades = torch.tensor([brightness(i) for i in range(count)], dtype=torch.uint8)
    return shades[:, None, None, None].expand(count, 3, side, side)


def numbers(clip_frames: list[Image.Image]) -> list[int]:
    """Read the numbers back, tolerating lossy codecs; -1 is black."""
    return [round((np.asarray(frame).mean() - 10) / 11) for frame in clip_frames]


def gif(path: Path, count: int) -> Path:
    video_files.write_gif(path, frames(count), fps=5)
    return path


def mp4(path: Path, count: int, side: int = 16) -> Path:
    pytest.importorskip("av")
    video_files.write_mp4(path, frames(count, side), fps=5)
    return path


def folder(path: Path, count: int) -> Path:
    path.mkdir()
    for number, frame in enumerate(frames(count)):  # frame9 stands before frame10
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(path / f"frame{number}.png")
    (path / "notes.txt").write_text("no frame")
    return path


MAKERS = {"clip.mp4": mp4, "clip.gif": gif, "frames": folder}


def test_the_two_rules() -> None:
    assert frame_indices(20, 8) == [0, 3, 5, 8, 11, 14, 16, 19]
    assert frame_indices(20, 8, "training") == [0, 2, 5, 7, 10, 12, 15, 18]
    for count in (1, 2, 5, 8, 9, 64, 1001):
        inference = np.round(np.linspace(0, count - 1, 8)).astype(int).tolist()
        assert frame_indices(count, 8) == inference
        if count > 1:
            assert frame_indices(count, 8, "training") == np.linspace(0, count - 2, 8, dtype=int).tolist()  # fmt: skip
    assert frame_indices(1, 3, "training") == [0, 0, 0]
    with pytest.raises(ConfigError, match="num_frames is 0"):
        frame_indices(4, 0)
    with pytest.raises(ConfigError, match="rule is 'random'"):
        frame_indices(4, 2, "random")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", MAKERS)
def test_frames_are_those_of_the_rule(tmp_path: Path, name: str) -> None:
    source = MAKERS[name](tmp_path / name, 20)
    clip = read_clip(source)
    assert numbers(clip.frames) == clip.indices == [0, 3, 5, 8, 11, 14, 16, 19]
    assert (clip.count, clip.note) == (20, "")
    assert all(frame.mode == "RGB" for frame in clip.frames)
    assert clip.fps == (None if name == "frames" else pytest.approx(5))
    trained = read_clip(str(source), num_frames=4, rule="training")
    assert numbers(trained.frames) == trained.indices == [0, 6, 12, 18]


@pytest.mark.parametrize("name", MAKERS)
def test_short_clips_repeat_frames_and_the_published_ones_begin_black(
    tmp_path: Path, name: str
) -> None:
    source = MAKERS[name](tmp_path / name, 3)
    assert numbers(read_clip(source).frames) == [0, 0, 1, 1, 1, 1, 2, 2]
    published = read_clip(source, quirks="published")
    assert published.indices == [-1] * 5 + [0, 1, 2]
    assert numbers(published.frames) == [-1] * 5 + [0, 1, 2]
    assert len(read_clip(source, num_frames=3, quirks="published").frames) == 3


def test_a_container_without_a_frame_count(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(5), options={"qscale": "2"})
        stream.width = stream.height = 16
        for frame in frames(12):
            picture = np.ascontiguousarray(frame.permute(1, 2, 0).numpy())
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    clip = read_clip(path, num_frames=3)
    assert numbers(clip.frames) == [0, 6, 11]
    assert (clip.count, clip.note) == (12, "")


def noisy_mp4(path: Path, count: int) -> bytes:
    """A file whose pictures take space, its index at the front."""
    pytest.importorskip("av")
    rng = np.random.default_rng(0)
    pictures = torch.from_numpy(rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8))
    video_files.write_mp4(path, pictures, fps=5)
    return path.read_bytes()


def test_a_broken_end_is_left_out_and_reported(tmp_path: Path) -> None:
    data = noisy_mp4(tmp_path / "clip.mp4", 30)
    (tmp_path / "clip.mp4").write_bytes(data[: len(data) * 2 // 3])
    clip = read_clip(tmp_path / "clip.mp4")
    assert 8 < clip.count < 30
    assert clip.indices == frame_indices(clip.count, 8)
    assert f"clip.mp4 is broken: {clip.count} of 30 frames can be read" in clip.note

    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    first, *rest = [Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(12)]  # fmt: skip
    first.save(buffer, "GIF", save_all=True, append_images=rest)
    (tmp_path / "clip.gif").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    clip = read_clip(tmp_path / "clip.gif", num_frames=4)
    assert 3 < clip.count < 9
    assert clip.indices == frame_indices(clip.count, 4)
    assert "clip.gif is broken" in clip.note

    last = folder(tmp_path / "frames", 20) / "frame19.png"
    last.write_bytes(last.read_bytes()[:40])
    clip = read_clip(tmp_path / "frames")
    assert numbers(clip.frames) == clip.indices == frame_indices(19, 8)
    assert "frames is broken: 19 of 20 frames can be read" in clip.note


def test_videos_of_phones_are_turned_upright(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    landscape = torch.zeros(4, 3, 16, 32, dtype=torch.uint8)
    landscape[:, :, :, 16:] = 200  # bright on the right
    path = tmp_path / "phone.mp4"
    video_files.write_mp4(path, landscape, fps=5)
    data = bytearray(path.read_bytes())
    # The track header's matrix: to be shown turned clockwise by 90 degrees.
    start = data.index(b"tkhd") + 4 + 4 + 4 * 4 + 4 + 8 + 8
    one, minus_one, w = b"\x00\x01\x00\x00", b"\xff\xff\x00\x00", b"\x40\x00\x00\x00"
    none = bytes(4)
    data[start : start + 36] = none + one + none + minus_one + none + none + none + none + w
    path.write_bytes(data)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).rotation == -90
    image = np.asarray(read_clip(path, num_frames=1).frames[0])
    assert image.shape == (32, 16, 3)
    assert image[:12].mean() < 20
    assert image[20:].mean() > 180  # what was right is now below


def test_what_is_no_video_is_told_in_a_sentence(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "words.mp4").write_text("just words\n" * 20)
    (tmp_path / "words.gif").write_text("just words\n" * 20)
    (tmp_path / "nothing").mkdir()
    (tmp_path / "ruins").mkdir()
    (tmp_path / "ruins/a.png").write_bytes(b"no png")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    cut = noisy_mp4(tmp_path / "head.mp4", 5)
    (tmp_path / "head.mp4").write_bytes(cut[: cut.index(b"mdat") + 60])
    for name, says in [
        ("gone.mp4", "gone.mp4 does not exist; give a video file or a folder of frames"),
        ("empty.mp4", "empty.mp4 is an empty file"),
        ("words.mp4", "words.mp4 cannot be read as a video"),
        ("words.gif", "words.gif cannot be read as a video"),
        ("nothing", "nothing holds no images; give a folder of frames or a video file"),
        ("ruins", "ruins holds no frame that can be read"),
        ("sound.mp4", "sound.mp4 holds no video stream"),
        ("head.mp4", "head.mp4 holds no frame that can be read"),
        ("https://example.org/v.mp4", "is a URL, and vilau downloads nothing"),
    ]:
        with pytest.raises(DataError, match=says):
            read_clip(name if "://" in name else tmp_path / name)


def test_without_pyav_one_sentence_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, animation = mp4(tmp_path / "clip.mp4", 3), gif(tmp_path / "clip.gif", 3)
    real = builtins.__import__

    def without(name: str, *rest: object, **named: object) -> object:
        if name == "av":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    sentence = r"clip.mp4 needs the package PyAV; install it with pip install 'vilau\[video\]'"
    with pytest.raises(DataError, match=sentence):
        read_clip(source)
    with pytest.raises(DataError, match=sentence):
        video_files.write_mp4(tmp_path / "clip.mp4", frames(3), fps=4)
    assert len(read_clip(animation).frames) == 8


def test_written_clips_keep_size_time_and_content(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    colours = torch.zeros(6, 3, 16, 16, dtype=torch.uint8)
    colours[:, 0], colours[:, 2, :8] = 200, 90
    colours[:, 1] = torch.arange(6, dtype=torch.uint8).mul(30)[:, None, None]
    codec = video_files.write_mp4(tmp_path / "c.mp4", colours, fps=4)
    with av.open(str(tmp_path / "c.mp4")) as container:
        stream = container.streams.video[0]
        assert float(stream.average_rate) == 4
        assert stream.codec_context.name == ("mpeg4" if codec == "mpeg4" else "h264")
        assert stream.codec_context.pix_fmt == "yuv420p"
        shown = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    original = colours.permute(0, 2, 3, 1).numpy().astype(int)
    assert shown.shape == original.shape
    assert np.abs(shown - original).mean() < 8

    video_files.write_gif(tmp_path / "c.gif", colours, fps=4)
    with Image.open(tmp_path / "c.gif") as image:
        assert (image.n_frames, image.info["duration"], image.info["loop"]) == (6, 250, 0)
    again = np.stack([np.asarray(f) for f in read_clip(tmp_path / "c.gif", num_frames=6).frames])
    assert np.abs(again - original).max() <= 2
    assert torch.equal(video_files.strip(colours)[:, :, 16:32], colours[1])


def test_odd_sides_grow_for_mp4_and_other_codecs_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av")
    monkeypatch.setattr(video_files, "ENCODERS", (("no_such_codec", {}), *video_files.ENCODERS[2:]))
    assert video_files.write_mp4(tmp_path / "odd.mp4", frames(4, side=17), fps=4) == "mpeg4"
    clip = read_clip(tmp_path / "odd.mp4", num_frames=4)
    assert clip.frames[0].size == (18, 18)
    assert numbers(clip.frames) == [0, 1, 2, 3]
