from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.data.conftest import encoded, picture
from vilau.apps import data as app
from vilau.errors import DataError


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


def test_sheets_go_only_where_one_may_write(photos: Path, tmp_path: Path) -> None:
    call("prepare", photos, tmp_path / "out")
    with pytest.raises(DataError, match=r"s.png cannot be written|s.png"):
        call("show", tmp_path / "out", "--sheet", photos / "p00.jpg" / "s.png")


def test_the_destination_is_looked_at_first(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"photos already exists"):
        call("prepare", tmp_path / "nowhere", photos)


def test_conversations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(picture()))
    turns = '[{"from": "human", "value": "<image> what?"}, {"from": "gpt", "value": "a ramp"}]'
    rows = f'[{{"image": "a.jpg", "conversations": {turns}}}, {{"conversations": {turns}}}]'
    (tmp_path / "chat.json").write_text(rows)
    assert call("prepare", tmp_path / "chat.json", tmp_path / "out", "--instructions") == 0
    call("show", tmp_path / "out", "--sheet", tmp_path / "s.png")
    printed = capsys.readouterr().out
    assert "kind: instructions" in printed
    assert "40x30 what? | a ramp" in printed
    assert "(no image) what? | a ramp" in printed


def test_the_parser_imports_nothing_heavy() -> None:
    code = "import sys, vilau.apps.data; sys.exit('numpy' in sys.modules or 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
