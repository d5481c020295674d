"""Text alone: what is one document, and what is none."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from vilau.data.preparing.filters import Filters
from vilau.data.preparing.prepare import Options, prepare
from vilau.data.shards import ShardSet
from vilau.data.sources.forms import PAIRS, TEXTS, find_source
from vilau.errors import DataError


def made(path: Path, out: Path, **options: object) -> list[str]:
    prepare(find_source(str(path), kind=TEXTS), out, Options(**options), kind=TEXTS)
    shards = ShardSet(out)
    records = shards.read(range(len(shards)))
    assert all(record.image == b"" and len(record.texts) == 1 for record in records)
    return sorted(record.texts[0] for record in records)


def test_a_document_per_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n one \x00 1\ntwo\r\n three\n\n")
    assert made(tmp_path / "a.txt", tmp_path / "out") == ["one   1", "three", "two"]
    assert ShardSet(tmp_path / "out").manifest.source.endswith("a.txt (1 of one document per line)")


def test_documents_between_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"one\n 1\n\n \ntwo\n\nthree\n3"))
    assert made(tmp_path / "a.txt.gz", tmp_path / "out") == ["one\n 1", "three\n3", "two"]
    source = find_source(str(tmp_path / "a.txt.gz"), kind=TEXTS)
    assert source.title.endswith("(1 of documents between blank lines)")
    names = [item.name.rpartition(":")[2] for item in source.units[0].listed(()).items]
    assert names == ["1", "5", "7"]


def test_json_lines_and_their_columns(tmp_path: Path) -> None:
    rows = '{"text": "a\\n\\nb", "quality": 0.9}\n\n{"text": "c", "quality": 0.1}\n'
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.jsonl").write_text(rows)
    (tmp_path / "texts" / "b.txt").write_text("d")
    (tmp_path / "texts" / "c.md").write_text("not looked at")
    assert made(tmp_path / "texts", tmp_path / "all") == ["a\n\nb", "c", "d"]
    good = {"filters": Filters(where=("quality >= 0.5",))}
    assert made(tmp_path / "texts" / "a.jsonl", tmp_path / "good", **good) == ["a\n\nb"]
    pattern = tmp_path / "texts" / "{a..b}.txt"
    with pytest.raises(DataError, match=r"does not exist"):
        find_source(str(pattern), kind=TEXTS)
    assert len(find_source(str(tmp_path / "texts" / "*.txt"), kind=TEXTS).files) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"body": "b"}', r"a.jsonl:2 has no text; write an object with it"),
        ("a.jsonl", b'{"text": 3}', r"a.jsonl:1 has something else as text; write"),
        ("a.jsonl", b'{"text": " "}', r"a.jsonl:1: its text is empty; complete"),
        ("a.jsonl", b"[1]", r"a.jsonl:1 holds \[1\], not an object"),
        ("a.txt", b"\xff\xfe", r"a.txt is no whole UTF-8 text"),
        ("a.txt", b" \n", r"No text was found in text .*a.txt"),
        ("a.md", b"x", r"a.md holds no texts, as far as its name tells; give a file that ends in .txt"),
    ],
)  # fmt: skip
def test_what_is_no_text(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        made(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_texts_are_no_pairs(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo")
    made(tmp_path / "a.txt", tmp_path / "out")
    with pytest.raises(
        DataError, match=r"out holds samples of kind texts where image_text is needed"
    ):
        find_source(str(tmp_path / "out"), kind=PAIRS)
