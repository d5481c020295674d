"""Web documents as MMC4 has them: which images stand where, and which are left out."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.conftest import encoded, pack, picture
from vilau.data.bundle import MARK, unpack
from vilau.data.bundle import pack as packed
from vilau.data.preparing.filters import Filters
from vilau.data.preparing.prepare import UNREADABLE, Options, Prepared, prepare
from vilau.data.shards import ShardSet
from vilau.data.sources.documents import DocumentLimits
from vilau.data.sources.forms import INTERLEAVED, find_source
from vilau.errors import ConfigError, DataError


def image(number: int, at: int, similarity: float | None = 0.3) -> dict[str, Any]:
    found: dict[str, Any] = {"image_name": f"{number}.jpg", "matched_text_index": at}
    return found if similarity is None else found | {"matched_sim": similarity}


def document(*images: dict[str, Any], sentences: int = 4) -> dict[str, Any]:
    texts = [f"sentence\n {number}." for number in range(sentences)]
    return {"text_list": texts, "image_info": list(images), "url": "https://a.b", "width": 9}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(lines.encode()) if path.suffix == ".gz" else lines.encode())
    return path


def images(folder: Path, *numbers: int) -> Path:
    folder.mkdir(exist_ok=True)
    for number in numbers:
        (folder / f"{number}.jpg").write_bytes(encoded(picture(number)))
    return folder


def made(
    path: Path, folder: Path, limits: DocumentLimits | None = None, **options: Any
) -> tuple[Prepared, list[tuple[str, list[int]]]]:
    """Prepare and read back: each document's text, and the numbers of its images."""
    source = find_source(str(path), kind=INTERLEAVED, image_folder=str(folder),
                         limits=limits or DocumentLimits())  # fmt: skip
    out = path.parent / "out"
    result = prepare(source, out, Options(**options), kind=INTERLEAVED)
    by_bytes = {encoded(picture(number)): number for number in range(10)}
    shards = ShardSet(out)
    found = [
        (record.texts[0], [by_bytes[one] for one in unpack(record.image)])
        for record in shards.read(range(len(shards)))
    ]
    return result, sorted(found)


@pytest.mark.parametrize("name", ["docs.jsonl", "docs.jsonl.gz"])
def test_images_stand_before_their_sentences(tmp_path: Path, name: str) -> None:
    """In the order of the text, whatever their order in the list; the mark itself is never text."""
    row = document(image(1, 2), image(2, 0), image(3, 2))
    row["text_list"][3] = f"a {MARK} b"
    path = write(tmp_path / name, row, document(image(4, 3)))
    result, found = made(path, images(tmp_path / "images", 1, 2, 3, 4))
    assert result.count == 2
    assert found == [
        (f"sentence 0. sentence 1. sentence 2. {MARK} sentence 3.", [4]),
        (f"{MARK} sentence 0. sentence 1. {MARK} {MARK} sentence 2. a b", [2, 1, 3]),
    ]


def test_limits_and_what_they_take(tmp_path: Path) -> None:
    path = write(
        tmp_path / "docs.jsonl",
        document(*(image(number, number % 4, 0.2 + number / 100) for number in range(8))),
        document(image(0, 0, 0.1)),
        document(),
    )
    folder = images(tmp_path / "images", *range(8))
    result, found = made(path, folder, DocumentLimits(max_images=3, min_similarity=0.22))
    assert found == [
        (f"{MARK} sentence 0. {MARK} sentence 1. {MARK} sentence 2. sentence 3.", [4, 5, 2])
    ]
    assert result.spec["images_left_out"] == {
        "beyond 3 in a document": 3,
        "similarity below 0.22": 3,
    }
    assert result.spec["left_out"] == {"document without an image": 2}
    assert "at most 3 images of similarity 0.22 or more" in result.title
    assert "3 images left out of their documents: similarity below 0.22" in result.summary()
    assert "2 left out by the filter: document without an image" in result.summary()


def test_an_image_after_the_last_sentence_is_left_out(tmp_path: Path) -> None:
    row = document(image(1, 3), image(2, 1))
    row["text_list"][3] = " "
    result, found = made(write(tmp_path / "d.jsonl", row), images(tmp_path / "images", 1, 2))
    assert found == [(f"sentence 0. {MARK} sentence 1. sentence 2.", [2])]
    assert result.spec["images_left_out"] == {"no text follows": 1}


def test_images_in_tars(tmp_path: Path) -> None:
    """The tar that is called like the file of documents is the only one that is looked into."""
    path = write(tmp_path / "shard_7.jsonl", document(image(1, 0)))
    (tmp_path / "images").mkdir()
    pack(tmp_path / "images" / "a.tar", {"x/1.jpg": encoded(picture(1))})
    assert made(path, tmp_path / "images")[1][0][1] == [1]
    pack(tmp_path / "images" / "shard_7.tar", {"2.jpg": b""})
    source = find_source(str(path), kind=INTERLEAVED, image_folder=str(tmp_path / "images"))
    with pytest.raises(DataError, match=r"shard_7.jsonl:1: its image 1.jpg is neither in .*images"):
        prepare(source, tmp_path / "other", Options(), kind=INTERLEAVED)
    (tmp_path / "images" / "shard_7.tar").write_bytes(b"no tar")
    source = find_source(str(path), kind=INTERLEAVED, image_folder=str(tmp_path / "images"))
    with pytest.raises(DataError, match=r"shard_7.tar is no whole, uncompressed tar file"):
        source.units[0].listed(())


def test_what_cannot_be_read_is_left_out_and_listed(tmp_path: Path) -> None:
    """A missing, a broken and a small image go, their document stays; one without any image goes."""
    folder = images(tmp_path / "images", 1, 2)
    (folder / "3.jpg").write_bytes(encoded(picture(3))[:300])
    (folder / "4.jpg").write_bytes(encoded(picture(4, (9, 9))))
    path = write(
        tmp_path / "docs.jsonl",
        document(image(9, 0), image(3, 0), image(1, 1), image(4, 2), image(2, 3)),
        document(image(3, 1)),
        document(image(9, 1)),
        *(document(image(1, 0)) for _ in range(3)),
    )
    options = {"allow_unpaired": True, "max_unreadable": 0.3, "filters": Filters(min_side=10)}
    result, found = made(path, folder, **options)
    assert found[0] == (f"sentence 0. {MARK} sentence 1. sentence 2. {MARK} sentence 3.", [1, 2])
    assert result.count == 4
    assert result.spec["images_lost"] == 3
    assert result.spec["unreadable"] == 1
    assert result.spec["images_left_out"] == {"side of 10 pixels or more": 1}
    listed = (tmp_path / "out" / UNREADABLE).read_text()
    assert "docs.jsonl:1 image 1\t" in listed
    assert listed.count("9.jpg is neither in") == 2
    assert "3 images that documents do without, listed in" in result.summary()


def test_shards_of_documents_can_be_prepared_again(tmp_path: Path) -> None:
    path = write(tmp_path / "docs.jsonl", document(image(1, 0), image(2, 2)))
    made(path, images(tmp_path / "images", 1, 2))
    again = find_source(str(tmp_path / "out"), kind=INTERLEAVED)
    prepare(again, tmp_path / "small", Options(image_size=10), kind=INTERLEAVED)
    (record,) = ShardSet(tmp_path / "small").read([0])
    assert [one[:4] for one in unpack(record.image)] == [b"\x89PNG"] * 2
    assert record.texts[0].count(MARK) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_list": "x"}, r"d.jsonl:1 has no text_list; write the document's sentences"),
        ({"image_info": None}, r"d.jsonl:1 has no image_info; write a list of objects"),
        ({"image_info": [image(1, 4)]}, r"matched_text_index 4 for image 1; write .* from 0 to 3"),
        ({"image_info": [image(1, -1)]}, r"matched_text_index -1 for image 1"),
        ({"image_info": [{"matched_text_index": 0, "matched_sim": 0.5}]}, r"has no image_name for image 1"),
        ({"image_info": [image(1, 0, None)]}, r"has matched_sim None for image 1, but a least similar"),
    ],
)  # fmt: skip
def test_what_is_no_document(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "d.jsonl", document(image(1, 0)) | change)
    limits = DocumentLimits(min_similarity=0.2)
    source = find_source(str(path), kind=INTERLEAVED, limits=limits)
    with pytest.raises(DataError, match=message):
        prepare(source, tmp_path / "out", Options(), kind=INTERLEAVED)
    assert not (tmp_path / "out").exists()


def test_paths_and_limits_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"gone does not exist; write the path of a file or folder of i"
    ):
        find_source(str(tmp_path / "gone"), kind=INTERLEAVED)
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(DataError, match=r"a.csv holds no documents.* ends in .jsonl or .jsonl.gz"):
        find_source(str(tmp_path / "a.csv"), kind=INTERLEAVED)
    with pytest.raises(DataError, match=r"holds no documents, as far as"):
        find_source(str(tmp_path), kind=INTERLEAVED)
    write(tmp_path / "a.jsonl", document())
    for limits, message in (
        (DocumentLimits(max_images=0), r"max images is 0; write at least 1"),
        (DocumentLimits(min_similarity=30), r"min similarity is 30; write a cosine"),
    ):
        with pytest.raises(ConfigError, match=message):
            find_source(str(tmp_path / "a.jsonl"), kind=INTERLEAVED, limits=limits)
    (tmp_path / "b.jsonl.gz").write_bytes(b"no gzip")
    source = find_source(str(tmp_path / "b.jsonl.gz"), kind=INTERLEAVED)
    with pytest.raises(DataError, match=r"b.jsonl.gz is no whole UTF-8 text"):
        source.units[0].listed(())


def test_bundles() -> None:
    media = [b"one", (b"a", b"bb", b""), b"two\n"]
    assert unpack(packed(media)) == media
    for damaged in (packed(media)[:-1], packed(media) + b"x", packed(media)[:15]):
        with pytest.raises(DataError, match="a bundle of images is damaged; prepare its set again"):
            unpack(damaged)
