from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.data.conftest import encoded, picture
from tests.data.test_media_video import gif
from vilau.apps import data as app
from vilau.errors import ConfigError, DataError


def call(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    app.add_parser(parser.add_subparsers(dest="verb"))
    return app.run(parser.parse_args(["data", *map(str, arguments)]))


def test_prepare_and_show(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "p19.jpg").write_bytes(b"")
    assert call("prepare", photos, tmp_path / "out", "--image-size", 16) == 0
    printed = capsys.readouterr().out
    assert "19 samples from folder" in printed
    assert f"1 unreadable, skipped and listed in {tmp_path / 'out' / 'unreadable.txt'}" in printed

    sheet = tmp_path / "sheet.png"
    assert call("show", tmp_path / "out", "--verify", "--sheet", sheet, "--samples", 3) == 0
    printed = capsys.readouterr().out
    assert "samples: 19" in printed
    assert "unreadable: 1" in printed
    assert "all files match their SHA-256 sums" in printed
    assert printed.count("21x16 photo number") == 3
    with Image.open(sheet) as image:
        assert image.size == (8 * 100, 3 * 100)
        assert len(set(image.convert("RGB").getdata())) > 1000


def test_filters_workers_and_a_second_run(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "p05.jpg").write_bytes(encoded(picture(5, (19, 19))))
    (photos / "p06.txt").write_text("")
    (photos / "p09.txt").write_text("x" * 1000)
    (photos / "p08.json").write_text('{"clip": 0.9, "text": "not read, for there is a .txt"}')
    arguments = ["prepare", photos, tmp_path / "out", "--min-side", 20, "--allow-unpaired"]
    assert call(*arguments, "--workers", 2, "--chunk-megabytes", 0.02) == 0
    printed = capsys.readouterr().out
    assert "18 samples from folder" in printed
    assert "1 with an empty caption, skipped and listed in" in printed
    assert "1 left out by the filter: side of 20 pixels or more" in printed
    assert call(*arguments, "--chunk-megabytes", 0.02) == 0
    assert "out holds them already; nothing was done" in capsys.readouterr().out
    with pytest.raises(DataError, match=r"out already exists and was made from another source"):
        call(*arguments, "--seed", 1)
    call("show", tmp_path / "out", "--samples", 18)
    printed = capsys.readouterr().out
    assert 'left_out: {"side of 20 pixels or more": 1}' in printed
    assert f"{'x' * 400}…\n" in printed
    where = ["--where", "clip >= 0.5", "--where", "clip < 1", "--keep-empty-captions"]
    call("prepare", photos, tmp_path / "few", *where)
    assert "1 samples from" in capsys.readouterr().out


def test_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        (tmp_path / "pets" / name / "1.jpg").write_bytes(encoded(picture()))
    call("prepare", tmp_path / "pets", tmp_path / "out", "--classes")
    call("show", tmp_path / "out")
    printed = capsys.readouterr().out
    assert "kind: classes" in printed
    assert "40x30 cat | cat" in printed


def test_sheets_go_only_where_one_may_write(photos: Path, tmp_path: Path) -> None:
    call("prepare", photos, tmp_path / "out")
    with pytest.raises(DataError, match=r"p00.jpg is no folder; write another --sheet"):
        call("show", tmp_path / "out", "--sheet", photos / "p00.jpg" / "s.png")


def test_the_destination_is_looked_at_first(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"photos already exists"):
        call("prepare", tmp_path / "nowhere", photos)


@pytest.mark.parametrize("megabytes", ["nan", "inf"])
def test_sizes_are_finite(photos: Path, tmp_path: Path, megabytes: str) -> None:
    with pytest.raises(ConfigError, match=f"--chunk-megabytes is {megabytes}; write a number"):
        call("prepare", photos, tmp_path / "out", "--chunk-megabytes", megabytes)


def test_lines_end_where_json_says_so(tmp_path: Path) -> None:
    """U+2028 within a text is no end of a line, though Python's ``splitlines`` takes it for one."""
    turns = [{"from": "human", "value": "a\u2028b"}, {"from": "gpt", "value": "c\x85d"}]
    row = json.dumps({"conversations": turns}, ensure_ascii=False)
    (tmp_path / "chat.jsonl").write_text(f"{row}\r\n{row}\n", encoding="utf-8", newline="")
    assert call("prepare", tmp_path / "chat.jsonl", tmp_path / "out", "--instructions") == 0


def test_conversations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(picture()))
    turns = '[{"from": "human", "value": "<image> what?"}, {"from": "gpt", "value": "a ramp"}]'
    bare = turns.replace("<image> ", "")
    rows = f'[{{"image": "a.jpg", "conversations": {turns}}}, {{"conversations": {bare}}}]'
    (tmp_path / "chat.json").write_text(rows)
    assert call("prepare", tmp_path / "chat.json", tmp_path / "out", "--instructions") == 0
    call("show", tmp_path / "out", "--sheet", tmp_path / "s.png")
    printed = capsys.readouterr().out
    assert "kind: instructions" in printed
    assert "40x30 what? | a ramp" in printed
    assert "(no image) what? | a ramp" in printed


def test_videos_documents_and_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "v").mkdir()
    gif(tmp_path / "v" / "a.gif", 5)
    (tmp_path / "v.csv").write_text("video,caption\na.gif,a box\n")
    videos = ["--videos", "--video-folder", tmp_path / "v", "--frames", 3]
    assert call("prepare", tmp_path / "v.csv", tmp_path / "videos", *videos) == 0
    (tmp_path / "1.jpg").write_bytes(encoded(picture()))
    image = '{"image_name": "1.jpg", "matched_text_index": 1, "matched_sim": 0.3}'
    rows = f'{{"text_list": ["a", "b"], "image_info": [{image}, {image}]}}'
    (tmp_path / "d.jsonl").write_text(rows)
    limits = ["--interleaved", "--max-images", 1, "--min-similarity", 0.2]
    assert call("prepare", tmp_path / "d.jsonl", tmp_path / "docs", *limits) == 0
    assert "1 images left out of their documents: beyond 1 in" in capsys.readouterr().out
    (tmp_path / "t.txt").write_text("one\n")
    assert call("prepare", tmp_path / "t.txt", tmp_path / "texts", "--texts") == 0
    call("show", tmp_path / "texts")
    for name in ("videos", "docs"):
        call("show", tmp_path / name, "--sheet", tmp_path / f"{name}.png")
    printed = capsys.readouterr().out
    assert "0: 16x16x3 a box" in printed
    assert "0: 40x30 a <image> b" in printed
    assert "0: (no image) one" in printed
    with Image.open(tmp_path / "videos.png") as sheet:
        shades = {sheet.convert("RGB").getpixel((100 * n + 50, 50))[0] for n in range(3)}
    assert len(shades) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--frames", 4],
            r"--frames is 4, but it says nothing of samples of kind image_text; leave",
        ),
        (
            ["--texts", "--video-folder", "x"],
            r"--video-folder is x.* write --videos or --instructions",
        ),
        (
            ["--videos", "--max-images", 2],
            r"--max-images is 2, .* of kind videos; .* --interleaved\.",
        ),
        (["--instructions", "--min-similarity", 0.1], r"--min-similarity is 0.1, .*instructions"),
    ],
)
def test_options_of_another_kind(tmp_path: Path, arguments: list[object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call("prepare", tmp_path, tmp_path / "out", *arguments)


def test_the_parser_imports_nothing_heavy() -> None:
    code = "import sys, vilau.apps.data; sys.exit('numpy' in sys.modules or 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
