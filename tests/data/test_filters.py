"""What is left out on purpose, and what the report says of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data.conftest import encoded, picture
from vilau.data.preparing.filters import Condition, Filters
from vilau.data.preparing.prepare import UNREADABLE, Options, Prepared, prepare
from vilau.data.shards import ShardSet
from vilau.data.sources.forms import find_source
from vilau.errors import ConfigError, DataError


def prepared(source: Path, folder: Path, **filters: object) -> Prepared:
    options = Options(filters=Filters(**filters), allow_unpaired=True)
    return prepare(find_source(str(source)), folder, options)


def texts(result: Prepared) -> set[str]:
    shards = ShardSet(result.folder)
    return {text for record in shards.read(range(len(shards))) for text in record.texts}


def add(folder: Path, name: str, size: tuple[int, int], text: str, row: object = None) -> None:
    (folder / f"{name}.png").write_bytes(encoded(picture(1, size), "PNG"))
    (folder / f"{name}.txt").write_text(text)
    if row is not None:
        (folder / f"{name}.json").write_text(json.dumps(row))


def test_sides_and_aspects(tmp_path: Path) -> None:
    for name, size in {
        "just": (64, 64), "short": (200, 63), "long": (193, 64), "tall": (64, 192),
    }.items():  # fmt: skip
        add(tmp_path, name, size, name)
    result = prepared(tmp_path, tmp_path / "out", min_side=64, max_aspect=3.0)
    assert texts(result) == {"just", "tall"}
    taken = {"side of 64 pixels or more": 1, "aspect of 3 or less": 1}
    assert ShardSet(result.folder).manifest.spec["left_out"] == taken
    assert result.spec["found"] == 4
    assert "1 left out by the filter: aspect of 3 or less" in result.summary()
    assert not (result.folder / UNREADABLE).exists()


def test_lengths_of_captions_and_several_captions(tmp_path: Path) -> None:
    add(tmp_path, "a", (8, 8), "four")
    add(tmp_path, "b", (8, 8), "x" * 51)
    (tmp_path / "c.png").write_bytes(encoded(picture(), "PNG"))
    (tmp_path / "c.json").write_text(json.dumps({"captions": ["no", "fünf!", "y" * 60]}))
    result = prepared(tmp_path, tmp_path / "out", min_caption=4, max_caption=50)
    assert texts(result) == {"four", "fünf!"}
    assert result.spec["left_out"] == {"caption of 4 to 50 characters": 1}


def test_empty_captions_are_dropped_or_kept(tmp_path: Path) -> None:
    add(tmp_path, "a", (8, 8), "a")
    add(tmp_path, "b", (8, 8), " \n\x00")
    dropped = prepared(tmp_path, tmp_path / "dropped")
    assert texts(dropped) == {"a"}
    assert dropped.spec["empty_captions"] == 1
    assert "b.png\tits caption is empty" in (tmp_path / "dropped" / UNREADABLE).read_text()
    kept = prepared(tmp_path, tmp_path / "kept", keep_empty=True)
    assert texts(kept) == {"a", ""}
    assert kept.spec["empty_captions"] == 0


ROWS = {
    "good": {"clip": 0.31, "watermark": "0.1", "source": "coyo"},
    "low": {"clip": 0.29, "watermark": 0.1, "source": "coyo"},
    "marked": {"clip": 0.4, "watermark": 0.9, "source": "coyo"},
    "nan": {"clip": float("nan"), "watermark": 0.1, "source": "coyo"},
    "none": {"watermark": 0.1, "source": "coyo"},
    "other": {"clip": 0.31, "watermark": 0.1, "source": "cc12m"},
}
WHERE = ("clip >= 0.3", "watermark<0.5", "source == 'coyo'")


def check_where(source: Path, folder: Path) -> None:
    result = prepared(source, folder, where=WHERE)
    assert texts(result) == {"good"}
    assert result.spec["left_out"] == {
        "where clip >= 0.3": 3,
        "where watermark < 0.5": 1,
        "where source == coyo": 1,
    }


def test_columns_beside_images_and_in_tables(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, row in ROWS.items():
        add(folder, name, (8, 8), name, row)
    check_where(folder, tmp_path / "a")
    lines = [
        json.dumps({"file_name": f"{name}.png", "text": name, **row}) for name, row in ROWS.items()
    ]
    (folder / "t.jsonl").write_text("\n".join(lines))
    check_where(folder / "t.jsonl", tmp_path / "b")
    message = r"No sample of folder .* has a value in the column clib, which --where names; write"
    with pytest.raises(DataError, match=message):
        prepared(folder, tmp_path / "c", where=("clib >= 0.3",))


def test_filters_that_leave_nothing(tmp_path: Path) -> None:
    add(tmp_path, "a", (8, 8), "a")
    message = r"The filters leave nothing of folder .* \(1 by side of 9 pixels or more\); ask less"
    with pytest.raises(DataError, match=message):
        prepared(tmp_path, tmp_path / "out", min_side=9)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("condition", "value", "holds"),
    [
        ("a >= 3", 3, True),
        ("a > 3", 3, False),
        ("a != 3", "3.0", False),
        ("a == x y", "x y", True),
        ("a != x", "y", True),
        ("a < 3", "many", False),
        ("a == true", True, True),
        ("a != x", None, False),
        ("a != 3", float("nan"), False),
        ("a <= -1e-3", -0.5, True),
    ],
)
def test_conditions(condition: str, value: object, holds: bool) -> None:
    assert Condition.parse(condition).holds({"a": value}) is holds


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        (
            {"where": ("clip",)},
            r"where is 'clip', which is no comparison; write a column, one of >=",
        ),
        ({"where": ("__import__('os') > 1 > 2",)}, r"which compares with '1 > 2'; write a number"),
        ({"where": ("clip >= high",)}, r"which compares with 'high'; write a number after >="),
        ({"min_side": -1}, r"min side is -1; write a number of pixels"),
        ({"max_aspect": 0.5}, r"max aspect is 0.5; write the longer side over the shorter, at lea"),
        ({"max_aspect": float("nan")}, r"max aspect is nan"),
        ({"min_caption": 9, "max_caption": 3}, r"captions of 9 to 3 characters are asked for; wri"),
    ],
)
def test_senseless_filters(filters: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Filters(**filters).check()
