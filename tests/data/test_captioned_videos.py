"""Videos with captions, as OpenVid has them: which frames are kept, and what is skipped and listed."""

from __future__ import annotations

import builtins
import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.test_media_video import gif, mp4
from vilau.data.bundle import unpack
from vilau.data.media.images import open_rgb
from vilau.data.preparing.filters import Filters
from vilau.data.preparing.prepare import UNREADABLE, Options, Prepared, prepare
from vilau.data.shards import ShardSet
from vilau.data.sources.forms import VIDEOS, find_source
from vilau.errors import ConfigError, DataError


def table(path: Path, *rows: tuple[str, str, float]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "caption", "aesthetic score"])
        writer.writerows(rows)
    return path


def made(path: Path, videos: Path, **options: Any) -> tuple[Prepared, dict[str, list[int]]]:
    """Prepare and read back: the numbers of the frames of each caption's clip."""
    source = find_source(str(path), kind=VIDEOS, video_folder=str(videos))
    out = path.parent / "out"
    result = prepare(source, out, Options(**options), kind=VIDEOS)
    shards = ShardSet(out)
    found = {}
    for record in shards.read(range(len(shards))):
        (frames,) = unpack(record.image)
        assert isinstance(frames, tuple)
        shades = [np.asarray(open_rgb(frame)).mean() for frame in frames]
        found[record.texts[0]] = [round((shade - 10) / 11) for shade in shades]
    return result, found


def test_frames_are_those_of_the_rule(tmp_path: Path) -> None:
    (tmp_path / "video").mkdir()
    mp4(tmp_path / "video" / "a.mp4", 20)
    gif(tmp_path / "video" / "b.gif", 3)
    path = table(tmp_path / "v.csv", ("a.mp4", "a  ball", 5.5), ("b.gif", "a box", 4.0))
    result, found = made(path, tmp_path / "video")
    assert found == {"a ball": [0, 3, 5, 8, 11, 14, 16, 19], "a box": [0, 0, 1, 1, 1, 1, 2, 2]}
    assert result.spec["num_frames"] == 8
    assert "videos from column video, captions from caption" in result.title


def test_sizes_and_numbers_of_frames(tmp_path: Path) -> None:
    (tmp_path / "video").mkdir()
    gif(tmp_path / "video" / "b.gif", 5)
    path = table(tmp_path / "v.csv", ("b.gif", "a box", 4.0))
    assert made(path, tmp_path / "video", num_frames=2, image_size=10)[1] == {"a box": [0, 4]}
    (record,) = ShardSet(tmp_path / "out").read([0])
    assert open_rgb(unpack(record.image)[0][0]).size == (10, 10)
    with pytest.raises(DataError, match=r"out already exists and was made from .* other settings"):
        made(path, tmp_path / "video", num_frames=3, image_size=10)
    with pytest.raises(ConfigError, match=r"frames is 0; write how many to keep"):
        made(path, tmp_path / "video", num_frames=0)


def test_what_cannot_be_played_is_skipped_and_listed(tmp_path: Path) -> None:
    """An empty file, bytes that are no video and a video without frames: none becomes black frames."""
    folder = tmp_path / "video"
    folder.mkdir()
    mp4(folder / "whole.mp4", 9)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "noise.mp4").write_bytes(b"noise" * 100)
    (folder / "header.mp4").write_bytes((folder / "whole.mp4").read_bytes()[:40])
    (folder / "frames").mkdir()
    names = ("whole.mp4", "empty.mp4", "noise.mp4", "header.mp4", "frames")
    path = table(tmp_path / "v.csv", *((name, name, 1.0) for name in names))
    with pytest.raises(DataError, match=r"4 of 5 samples \(80.0%\) cannot be read, more than the"):
        made(path, folder)
    result, found = made(path, folder, max_unreadable=0.9)
    assert found == {"whole.mp4": [0, 1, 2, 3, 5, 6, 7, 8]}
    assert result.spec["unreadable"] == 4
    listed = (tmp_path / "out" / UNREADABLE).read_text()
    assert sorted(Path(line.split("\t")[0]).name for line in listed.splitlines()) == sorted(
        names[1:]
    )
    assert "empty.mp4 is an empty file; give a video with at least one frame." in listed
    assert "frames holds no images; give a folder of frames" in listed


def test_a_clip_that_breaks_off_is_told(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    whole = gif(tmp_path / "v" / "b.gif", 6).read_bytes()
    (tmp_path / "v" / "b.gif").write_bytes(whole[: len(whole) * 3 // 4])
    result, found = made(table(tmp_path / "v.csv", ("b.gif", "a box", 1.0)), tmp_path / "v")
    assert max(found["a box"]) < 5
    assert result.spec["clips_cut"] == 1
    assert "b.gif is broken: " in (tmp_path / "out" / UNREADABLE).read_text()
    assert "1 broken clips used up to the break, listed in" in result.summary()


def test_columns_with_spaces_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    gif(tmp_path / "v" / "b.gif", 2)
    rows = [
        ("b.gif", "fine", 5.5),
        ("b.gif", "ugly", 3.0),
        ("gone.mp4", "gone", 9.0),
        ("", "none", 9.0),
    ]
    path = table(tmp_path / "v.csv", *rows)
    with pytest.raises(
        DataError, match=r"v.csv:4: its video .*gone.mp4 does not exist \(and 1 more\)"
    ):
        made(path, tmp_path / "v")
    good = Filters(where=("aesthetic score >= 5",))
    result, found = made(path, tmp_path / "v", allow_unpaired=True, filters=good)
    assert list(found) == ["fine"]
    assert result.spec["left_out"] == {"where aesthetic score >= 5": 1}
    assert result.spec["unpaired"] == 2


def test_sides_and_captions_are_filtered(tmp_path: Path) -> None:
    gif(tmp_path / "b.gif", 2)
    path = table(tmp_path / "v.csv", ("b.gif", "fine", 5.5), ("b.gif", "a long caption", 1.0))
    for filters, name in (
        (Filters(min_side=17), "side of 17 pixels or more"),
        (Filters(max_caption=3), "caption of 0 to 3 characters"),
    ):
        with pytest.raises(DataError, match=f"filters leave nothing of .*2 by {name}"):
            made(path, tmp_path, filters=filters)


def test_tables_without_videos(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("link,caption\na,b\n")
    with pytest.raises(
        DataError, match=r"has the columns link, caption but none of video files; name"
    ):
        find_source(str(tmp_path / "v.csv"), kind=VIDEOS)
    (tmp_path / "v.csv").write_text("video,caption\n")
    with pytest.raises(
        DataError, match=r"v.csv holds no rows; give it a header line and one line per v"
    ):
        find_source(str(tmp_path / "v.csv"), kind=VIDEOS)
    with pytest.raises(
        DataError, match=r"video folder .*gone does not exist; write the folder of the v"
    ):
        find_source(str(tmp_path / "v.csv"), kind=VIDEOS, video_folder=str(tmp_path / "gone"))


def test_a_missing_player_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mp4").write_bytes(b"video")
    path = table(tmp_path / "v.csv", ("a.mp4", "a", 1.0))
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "av":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        DataError, match=r"a.mp4 needs the package PyAV; install it with pip install"
    ):
        find_source(str(path), kind=VIDEOS)
