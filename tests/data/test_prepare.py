"""Every form of user data, and everything that can be wrong with it."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
from litdata.streaming.writer import BinaryWriter

from tests.data.conftest import encoded, pack, picture
from vilau.data.media.images import open_rgb
from vilau.data.preparing.prepare import UNREADABLE, Options, Prepared, prepare
from vilau.data.shards import ShardSet
from vilau.data.sources.forms import find_source
from vilau.errors import ConfigError, DataError


def prepared(path: object, folder: Path, **options: object) -> ShardSet:
    result = prepare(find_source(str(path)), folder, Options(**options))
    assert result.count == len(ShardSet(folder))
    return ShardSet(folder)


def content(shards: ShardSet) -> dict[str, bytes]:
    return {record.texts[0]: record.image for record in shards.read(range(len(shards)))}


def expected() -> dict[str, bytes]:
    return {f"photo number {n}": encoded(picture(n)) for n in range(20)}


# ------------------------------------------------------------------ forms


def test_a_folder_with_captions_beside_the_images(photos: Path, tmp_path: Path) -> None:
    shards = prepared(photos, tmp_path / "out")
    assert content(shards) == expected()
    texts = [record.texts[0] for record in shards.read(range(20))]
    assert texts != sorted(texts, key=lambda text: int(text.split()[-1]))  # written shuffled
    assert not (tmp_path / "out" / UNREADABLE).exists()


def test_order_depends_on_the_seed_alone(photos: Path, tmp_path: Path) -> None:
    sets = [prepared(photos, tmp_path / f"{n}", seed=s, workers=w)
            for n, (s, w) in enumerate([(0, 0), (0, 2), (1, 0)])]  # fmt: skip
    orders = [[record.texts for record in shards.read(range(20))] for shards in sets]
    assert orders[0] == orders[1] != orders[2]
    assert sets[0].manifest.chunks == sets[1].manifest.chunks


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("columns", [("file_name", "text"), ("Image_Path", "Caption")])
def test_tables(photos: Path, tmp_path: Path, suffix: str, columns: tuple[str, str]) -> None:
    rows = [(f"{'more/' if n == 7 else ''}p{n:02d}.jpg", f"photo number {n}") for n in range(20)]
    file = photos / f"table.{suffix}"
    if suffix == "jsonl":
        lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
        file.write_text("\n".join(lines) + "\n\n")
    elif suffix == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        table = {name: [row[i] for row in rows] for i, name in enumerate(columns)}
        parquet.write_table(pyarrow.table(table), file)
    else:
        comma = "," if suffix == "csv" else "\t"
        lines = [comma.join(["id", *columns]), *(comma.join(["1", *row]) for row in rows)]
        file.write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    assert content(prepared(file, tmp_path / "out")) == expected()
    title = ShardSet(tmp_path / "out").manifest.source
    assert f"images from column {columns[0]}, captions from {columns[1]}" in title


def test_metadata_in_a_folder_and_an_image_folder_elsewhere(photos: Path, tmp_path: Path) -> None:
    (photos / "metadata.csv").write_text('file_name,text\np00.jpg,"red, green"\np01.jpg,b\n')
    assert set(content(prepared(photos, tmp_path / "a"))) == {"red, green", "b"}
    (tmp_path / "list.csv").write_text("path,caption\np02.jpg,c\n")
    source = find_source(str(tmp_path / "list.csv"), image_folder=str(photos))
    assert [item.texts for item in source.items] == [("c",)]


def test_several_captions_of_one_image(photos: Path, tmp_path: Path) -> None:
    row = {"file_name": "p00.jpg", "captions": ["one  dog", "", "a\npuppy"]}
    (photos / "t.jsonl").write_text(json.dumps(row))
    (record,) = prepared(photos / "t.jsonl", tmp_path / "out").read([0])
    assert record.texts == ("one dog", "a puppy")


def photo_members(numbers: range) -> dict[str, bytes]:
    members = {}
    for n in numbers:
        members[f"./set/{n:05d}.jpg"] = encoded(picture(n))
        if n % 2:
            members[f"./set/{n:05d}.json"] = json.dumps({"caption": f"photo number {n}"}).encode()
        else:
            members[f"./set/{n:05d}.txt"] = f"photo number {n}".encode()
    return members


def test_webdataset_tars(tmp_path: Path) -> None:
    tars = tmp_path / "tars"
    tars.mkdir()
    pack(tars / "a-08.tar", photo_members(range(8)))
    pack(tars / "a-09.tar", photo_members(range(8, 15)))
    pack(tars / "a-10.tar", photo_members(range(15, 20)))
    for number, path in enumerate([tars, tars / "a-{08..10}.tar", tars / "a-*.tar"]):
        assert content(prepared(path, tmp_path / str(number))) == expected()
    assert len(prepared(tars / "a-09.tar", tmp_path / "one")) == 7
    with pytest.raises(DataError, match=r"a-11.tar does not exist \(from data path .*\{08..11\}"):
        find_source(str(tars / "a-{08..11}.tar"))


def test_shards_and_foreign_litdata_folders(photos: Path, tmp_path: Path) -> None:
    shards = prepared(photos, tmp_path / "ours")
    assert content(prepared(shards.folder, tmp_path / "again", seed=5)) == expected()
    for name, make in {
        "bytes": lambda n: {"image": encoded(picture(n)), "caption": f"photo number {n}", "id": n},
        "pil": lambda n: {"image": picture(n), "caption": f"photo number {n}", "id": n},
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        writer = BinaryWriter(str(folder), chunk_bytes=4000)
        for n in range(20):
            writer[n] = make(n)
        writer.done()
        writer.merge()
        found = content(prepared(folder, tmp_path / f"{name}-out"))
        if name == "bytes":
            assert found == expected()
        else:
            pixels = {text: np.asarray(open_rgb(data)) for text, data in found.items()}
            assert all((pixels[f"photo number {n}"] == picture(n)).all() for n in range(20))


def test_images_can_be_shrunk(photos: Path, tmp_path: Path) -> None:
    (photos / "p03.jpg").write_bytes(encoded(picture(3, (16, 12))))
    shards = prepared(photos, tmp_path / "out", image_size=15)
    sizes = {text: open_rgb(data).size for text, data in content(shards).items()}
    assert sizes.pop("photo number 3") == (16, 12)
    assert set(sizes.values()) == {(20, 15)}
    assert shards.manifest.spec["image_size"] == 15


# ------------------------------------------------------------------ unreadable images


def break_some(photos: Path) -> None:
    data = encoded(picture(0))
    (photos / "p00.jpg").write_bytes(data[: len(data) // 2])
    (photos / "p01.jpg").write_bytes(b"")
    (photos / "p02.jpg").write_text("no image at all")


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_skipped_and_listed(
    photos: Path, tmp_path: Path, workers: int
) -> None:
    break_some(photos)
    (photos / "p04.txt").write_bytes(b"\xff\xfe\xff")
    options = Options(max_unreadable=0.2, workers=workers)
    result = prepare(find_source(str(photos)), tmp_path / "out", options)
    assert result.count == 16
    lines = (tmp_path / "out" / UNREADABLE).read_text().splitlines()
    listed = dict(line.split("\t") for line in lines)
    assert {Path(name).name for name in listed} == {"p00.jpg", "p01.jpg", "p02.jpg", "p04.txt"}
    assert listed[str(photos / "p01.jpg")] == "the file is empty"
    assert "truncated" in listed[str(photos / "p00.jpg")].lower()
    assert "cannot identify" in listed[str(photos / "p02.jpg")]
    assert "no UTF-8 text" in listed[str(photos / "p04.txt")]
    assert ShardSet(result.folder).manifest.spec["unreadable"] == 4
    summary = result.summary()
    assert "16 samples" in summary
    assert "4 unreadable, skipped and listed in" in summary


def test_too_many_unreadable_images_are_refused(photos: Path, tmp_path: Path) -> None:
    break_some(photos)
    message = r"3 of 20 samples \(15.0%\) cannot be read, more than the allowed 5.0%.*max-unread"
    with pytest.raises(DataError, match=message):
        prepared(photos, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert len((tmp_path / f"out.{UNREADABLE}").read_text().splitlines()) == 3


def test_all_images_corrupt(photos: Path, tmp_path: Path) -> None:
    for path in photos.rglob("*.jpg"):
        path.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(DataError, match=r"None of the 20 samples can be read, first .*p\d\d.jpg"):
        prepared(photos, tmp_path / "out", max_unreadable=1.0)


def test_an_image_that_vanishes_or_is_forbidden_is_unreadable(photos: Path, tmp_path: Path) -> None:
    source = find_source(str(photos))
    (photos / "p05.jpg").unlink()
    result = prepare(source, tmp_path / "out", Options())
    assert result.count == 19
    assert "p05.jpg\t[Errno 2] No such file" in (tmp_path / "out" / UNREADABLE).read_text()


def test_broken_tars(tmp_path: Path) -> None:
    tars = tmp_path / "tars"
    tars.mkdir()
    pack(tars / "good.tar", photo_members(range(20)))
    whole = pack(tars / "short.tar", photo_members(range(20, 23))).read_bytes()
    cut = whole.index(encoded(picture(22))) + 40
    (tars / "short.tar").write_bytes(whole[:cut])
    (tars / "foreign.tar").write_text("not a tar file" * 100)
    result = prepare(find_source(str(tars)), tmp_path / "out", Options(
        max_unreadable=0.2, allow_unpaired=True))  # fmt: skip
    assert result.count == 22
    listed = (tmp_path / "out" / UNREADABLE).read_text()
    assert "foreign.tar\tno whole tar file: " in listed
    assert "short.tar" in listed
    pack(tmp_path / "x.tar", photo_members(range(2)), "w:gz")
    with pytest.raises(DataError, match=r"None of the 1 samples .*compressed; unpack it with gunz"):
        prepared(tmp_path / "x.tar", tmp_path / "gz")


# ------------------------------------------------------------------ files without partner


def test_an_image_without_caption(photos: Path, tmp_path: Path) -> None:
    (photos / "p06.txt").unlink()
    message = r"p06.jpg: its caption p06.txt is missing; complete the pair, .*--allow-unpaired"
    with pytest.raises(DataError, match=message):
        prepared(photos, tmp_path / "out")
    (photos / "p08.txt").write_text("  \n")
    with pytest.raises(DataError, match=r"p06.jpg: .* \(and 1 more\)"):
        prepared(photos, tmp_path / "out")
    result = prepare(find_source(str(photos)), tmp_path / "out", Options(allow_unpaired=True))
    assert result.count == 18
    listed = (tmp_path / "out" / UNREADABLE).read_text()
    assert "p08.jpg\tits caption is empty" in listed
    assert "p06.jpg\tits caption p06.txt is missing" in listed
    assert f"1 unpaired, skipped and listed in {tmp_path / 'out' / UNREADABLE}" in result.summary()
    assert "1 with an empty caption, skipped and listed in" in result.summary()
    assert result.spec["unpaired"] == result.spec["empty_captions"] == 1


def test_a_caption_without_its_image(photos: Path, tmp_path: Path) -> None:
    (photos / "p06.jpg").unlink()
    with pytest.raises(DataError, match=r"p06.txt: the image it describes is missing; complete"):
        prepared(photos, tmp_path / "out")
    assert len(prepared(photos, tmp_path / "out", allow_unpaired=True)) == 19


def test_table_rows_without_partner(photos: Path, tmp_path: Path) -> None:
    table = photos / "t.csv"
    for row, message in {
        "gone.jpg,x": r"t.csv:2: its image .*gone.jpg does not exist; complete",
        "p00.jpg,": r"t.csv:2 \(p00.jpg\): its caption is empty",
        ",x": r"t.csv:2: no image file is named",
        f"{'long ' * 99},x": r"t.csv:2: its image .*long does not exist",
        "https://a.b/c.jpg,x": r"t.csv:2: https://a.b/c.jpg is a web address, but nothing is down",
    }.items():
        table.write_text(f"file_name,text\n{row}\n")
        with pytest.raises(DataError, match=message):
            prepared(table, tmp_path / "out")


def test_tar_samples_without_partner(tmp_path: Path) -> None:
    tar = pack(tmp_path / "a.tar", {"1.jpg": encoded(picture()), "2.txt": b"x"})
    with pytest.raises(DataError, match=r"a.tar:1: its caption .* is missing \(and 1 more\)"):
        prepared(tar, tmp_path / "out")
    message = r"No image with a caption was found in 1 WebDataset tar"
    with pytest.raises(DataError, match=message):
        prepared(tar, tmp_path / "out", allow_unpaired=True)


# ------------------------------------------------------------------ paths and tables


def test_paths_that_hold_no_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist; write the path of a folder"):
        find_source(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no images \(0 other files\); put images"):
        find_source(str(tmp_path / "empty"))
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(DataError, match=r"a.docx is a .docx file, whose form is unknown; give"):
        find_source(str(tmp_path / "a.docx"))
    with pytest.raises(DataError, match=r"image folder .*gone does not exist"):
        find_source(str(tmp_path / "empty"), image_folder=str(tmp_path / "gone"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "", r"t.csv holds no rows; give it a header"),
        (
            "t.csv",
            "a,b\n1,2\n",
            r"has the columns a, b but none of image files; name one file_name",
        ),
        (
            "t.csv",
            "file_name,b\n1,2\n",
            r"file_name, b but none of captions; name one text \(or cap",
        ),
        (
            "t.csv",
            "url,caption\nhttps://a.b/c.jpg,x\n",
            r"has web addresses in the column url and no images; download them with img2dataset",
        ),
        ("t.jsonl", '{"a": 1}\n{', r"t.jsonl:2 is no JSON .*; write one object per line"),
        ("t.jsonl", "[1]\n", r"t.jsonl:1 holds \[1\], not an object"),
        ("t.parquet", "x", r"t.parquet is no readable parquet file"),
    ],
)
def test_broken_tables(tmp_path: Path, name: str, text: str, message: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        find_source(str(tmp_path / name))


def test_tables_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("file_name,text\na.jpg,größe\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"t.csv is no readable table .*; save it as UTF-8"):
        find_source(str(tmp_path / "t.csv"))


def test_a_source_that_cannot_be_read(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("os.scandir", forbidden)
    with pytest.raises(DataError, match=r"photos cannot be read \(Permission denied\); allow"):
        find_source(str(photos))


def test_litdata_folders_that_do_not_fit(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(DataError, match=r"index.json is no litdata index"):
        find_source(str(tmp_path))
    for name, sample, message in (
        ("odd", {"x": 1}, r"fields x; it needs an image"),
        ("pickled", {"image": {1, 2}, "text": "a"}, r"stores pickled objects, which can run code"),
    ):
        (tmp_path / name).mkdir()
        writer = BinaryWriter(str(tmp_path / name), chunk_bytes=1000)
        writer[0] = sample
        writer.done()
        writer.merge()
        with pytest.raises(DataError, match=message):
            find_source(str(tmp_path / name))


# ------------------------------------------------------------------ destination and options


def test_destinations(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"photos already exists; delete it or name another"):
        prepared(photos, photos)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/out cannot be written"):
        prepared(photos, tmp_path / "file" / "out")
    with pytest.raises(DataError, match=r"/proc/out cannot be written \(No such file"):
        prepared(photos, Path("/proc/out"))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("vilau.data.preparing.workplace.write_whole", full)
    with pytest.raises(DataError, match=r"The disk filled up while writing .*out; nothing half"):
        prepared(photos, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "file"}


def test_senseless_options(photos: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"image_size": 0}, r"image size is 0; write a number of pixels"),
        ({"max_unreadable": 5}, r"max unreadable is 5; write a share from 0 to 1"),
        ({"workers": -1}, r"workers is -1; write 0 or a number"),
        ({"seed": -1}, r"seed is -1; write a whole number from 0 on"),
        ({"chunk_bytes": 0}, r"chunk megabytes is 0; write a number above 0 and below 2048"),
        ({"chunk_bytes": 4 << 30}, r"chunk megabytes is 4096; write a number above 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            prepared(photos, tmp_path / "out", **options)


def test_a_summary_without_losses_is_short(tmp_path: Path) -> None:
    spec = {"unreadable": 0, "unpaired": 0, "left_out": {}}
    assert Prepared(tmp_path, "x", 3, spec).summary().count("\n") == 1
