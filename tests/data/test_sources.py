"""Forms in which large data sets come: img2dataset, parquet with images, ImageNet."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.data.conftest import encoded, pack, picture, tree
from vilau.data.image_text import ImageTextPairs
from vilau.data.preparing.filters import Filters
from vilau.data.preparing.prepare import CLASSES, UNREADABLE, Options, prepare
from vilau.data.shards import ShardSet
from vilau.data.sources.class_folders import class_names, class_source
from vilau.data.sources.documents import document_source
from vilau.data.sources.folders import folder_source
from vilau.data.sources.forms import find_source
from vilau.data.sources.items import Source
from vilau.data.sources.tars import tar_source
from vilau.errors import ConfigError, DataError


def content(folder: Path) -> dict[str, bytes]:
    shards = ShardSet(folder)
    return {record.texts[0]: record.image for record in shards.read(range(len(shards)))}


def rows(numbers: range) -> Iterator[dict[str, Any]]:
    """Side rows as img2dataset writes them, with a column carried along from COYO."""
    for n in numbers:
        yield {
            "key": f"{n:09d}",
            "url": f"https://a.b/{n}.jpg",
            "caption": f"photo {n}",
            "status": "success" if n % 5 else "failed_to_download",
            "error_message": None if n % 5 else "HTTP Error 404",
            "clip_similarity_vitb32": n / 100,
        }


def write_table(path: Path, table: list[dict[str, Any]], **options: Any) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="reading parquet needs the extra parquet")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(table), path, **options)


GOOD = [n for n in range(20) if n % 5]
WHERE = Options(filters=Filters(where=("clip_similarity_vitb32 >= 0.1",)))


# ------------------------------------------------------------------ img2dataset


def tars(folder: Path, *, with_json: bool) -> Path:
    """Two shards of tars with their side files; links that were dead have no members."""
    folder.mkdir()
    for shard in range(2):
        members = {}
        for row in rows(range(10 * shard, 10 * shard + 10)):
            if row["status"] == "success":
                members[f"{row['key']}.jpg"] = encoded(picture(int(row["key"])))
                members[f"{row['key']}.txt"] = row["caption"].encode()
                if with_json:
                    members[f"{row['key']}.json"] = json.dumps(row).encode()
        pack(folder / f"{shard:05d}.tar", members)
        (folder / f"{shard:05d}_stats.json").write_text("{}")
    return folder


def test_tars_of_img2dataset(tmp_path: Path) -> None:
    source = tars(tmp_path / "coyo", with_json=True)
    (source / "00000.parquet").write_text("never looked at")
    prepare(find_source(str(source)), tmp_path / "all", Options())
    assert content(tmp_path / "all") == {f"photo {n}": encoded(picture(n)) for n in GOOD}
    result = prepare(find_source(str(source)), tmp_path / "some", WHERE)
    assert set(content(tmp_path / "some")) == {f"photo {n}" for n in GOOD if n >= 10}
    assert result.spec["left_out"] == {"where clip_similarity_vitb32 >= 0.1": 8}


def test_columns_from_the_table_beside_a_tar(tmp_path: Path) -> None:
    source = tars(tmp_path / "coyo", with_json=False)
    for shard in range(2):
        table = list(rows(range(10 * shard, 10 * shard + 10)))
        write_table(source / f"{shard:05d}.parquet", table)
    prepare(find_source(str(source)), tmp_path / "some", WHERE)
    assert set(content(tmp_path / "some")) == {f"photo {n}" for n in GOOD if n >= 10}


@pytest.mark.parametrize("side", ["json", "parquet"])
def test_files_of_img2dataset(tmp_path: Path, side: str) -> None:
    source = tmp_path / "coyo"
    for shard in range(2):
        folder = source / f"{shard:05d}"
        folder.mkdir(parents=True)
        table = list(rows(range(10 * shard, 10 * shard + 10)))
        for row in table:
            if row["status"] == "success":
                stem = folder / row["key"]
                stem.with_suffix(".jpg").write_bytes(encoded(picture(int(row["key"]))))
                stem.with_suffix(".txt").write_text(row["caption"])
                if side == "json":
                    stem.with_suffix(".json").write_text(json.dumps(row))
        (source / f"{shard:05d}_stats.json").write_text("{}")
        if side == "parquet":
            write_table(source / f"{shard:05d}.parquet", table)
        else:
            (source / f"{shard:05d}.parquet").write_text("never looked at")
    prepare(find_source(str(source)), tmp_path / "all", Options())
    assert content(tmp_path / "all") == {f"photo {n}": encoded(picture(n)) for n in GOOD}
    prepare(find_source(str(source)), tmp_path / "some", WHERE)
    assert set(content(tmp_path / "some")) == {f"photo {n}" for n in GOOD if n >= 10}


def test_parquet_of_img2dataset(tmp_path: Path) -> None:
    table = [
        {**row, "jpg": encoded(picture(n)) if row["status"] == "success" else None}
        for n, row in enumerate(rows(range(20)))
    ]
    write_table(tmp_path / "00000.parquet", table, row_group_size=7)
    source = find_source(str(tmp_path / "00000.parquet"))
    assert "images from column jpg, captions from caption" in source.title
    result = prepare(source, tmp_path / "all", Options(allow_unpaired=True))
    assert content(tmp_path / "all") == {f"photo {n}": encoded(picture(n)) for n in GOOD}
    assert result.spec["unpaired"] == 4


# ------------------------------------------------------------------ parquet with images


def hub_set(folder: Path) -> Path:
    """Three tables of nine rows in row groups of four, with images as the hub stores them."""
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "beside.png").write_bytes(encoded(picture(26), "PNG"))
    for shard in range(3):
        table = []
        for n in range(9 * shard, 9 * shard + 9):
            image = {"bytes": encoded(picture(n)), "path": f"{n}.jpg"}
            if n == 26:
                image = {"bytes": None, "path": "beside.png"}
            if n == 25:
                image = {"bytes": None, "path": None}
            table.append({"image": image, "text": f"photo {n}", "id": n})
        write_table(folder / "data" / f"train-{shard:05d}.parquet", table, row_group_size=4)
    return folder


def test_parquet_with_images_inside(tmp_path: Path) -> None:
    source = hub_set(tmp_path / "hub")
    expected = {f"photo {n}": encoded(picture(n)) for n in range(25)}
    expected["photo 26"] = encoded(picture(26), "PNG")
    whole = None
    for number, (path, workers) in enumerate(
        [(source, 0), (source, 2), (source / "data" / "train-*.parquet", 0)]
    ):
        options = Options(chunk_bytes=24 << 10, workers=workers)
        result = prepare(find_source(str(path)), tmp_path / str(number), options)
        assert content(result.folder) == expected
        files = tree(result.folder)
        if whole is not None:
            assert files == whole
        whole = files
        assert files[UNREADABLE].endswith(b"train-00002.parquet:8\tthe row holds no image\n")
    # Rows of a group stay together, for it can only be read whole; groups and rows are shuffled.
    shards = ShardSet(tmp_path / "0")
    groups = [
        (n // 9, n % 9 // 4)
        for n in (int(record.texts[0].split()[-1]) for record in shards.read(range(26)))
    ]
    runs = [group for n, group in enumerate(groups) if n == 0 or group != groups[n - 1]]
    assert len(runs) == len(set(runs)) == 9
    assert runs != sorted(runs)
    order = [int(record.texts[0].split()[-1]) for record in shards.read(range(26))]
    assert any(a > b for a, b in zip(order, order[1:], strict=False) if a // 4 == b // 4)


def test_broken_tables_of_images(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", [{"image": b"123", "what": 1}])
    with pytest.raises(DataError, match=r"a.parquet has the columns image, what but none of capti"):
        find_source(str(tmp_path / "a.parquet"))
    write_table(tmp_path / "a.parquet", [{"image": b"123", "text": "x"}])
    write_table(tmp_path / "b.parquet", [{"image": "c.jpg", "text": "x"}])
    with pytest.raises(DataError, match=r"b.parquet holds paths of images in the column image, un"):
        find_source(str(tmp_path))
    write_table(tmp_path / "c.parquet", [{"url": "https://a.b/c.jpg", "text": "x"}])
    with pytest.raises(DataError, match=r"c.parquet has web addresses in the column url and no im"):
        find_source(str(tmp_path / "c.parquet"))


def test_without_the_package_a_sentence_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(
        DataError, match=r"a.parquet needs the package pyarrow; run `pip install 'v"
    ):
        find_source(str(tmp_path / "a.parquet"))


# ------------------------------------------------------------------ ImageNet

TENCH, CRANE, HOIST, MAILLOT = "n01440764", "n02012849", "n03126707", "n03710721"


def imagenet(folder: Path) -> Path:
    for number, name in enumerate((TENCH, CRANE, HOIST)):
        (folder / "train" / name).mkdir(parents=True)
        for image in range(3):
            file = folder / "train" / name / f"{name}_{image}.JPEG"
            file.write_bytes(encoded(picture(10 * number + image)))
    return folder / "train"


def zero_shot(path: Path, pairs: Path) -> Any:
    data = ImageTextPairs(
        str(pairs), zero_shot=str(path), image_size=16, global_batch_size=16, validation=str(pairs)
    )
    data.prepare_data()
    data.setup()
    (batch,) = list(data.val_dataloader()[1])
    return batch


def test_imagenet_s_folders_have_names(tmp_path: Path, photos: Path, own_cache: Path) -> None:
    train = imagenet(tmp_path / "ILSVRC")
    message = r"has 2 classes named 'crane' \(n02012849, n03126707\): their texts are equal"
    with pytest.warns(UserWarning, match=message):
        batch = zero_shot(train, photos)
    firsts = ["a photo of a tench.", "a photo of a crane.", "a photo of a crane."]
    assert [texts[0] for texts in batch.class_texts] == firsts
    assert sorted(batch.labels.tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]

    options = Options(image_size=20)
    prepare(find_source(str(train), kind=CLASSES), tmp_path / "shards", options, kind=CLASSES)
    with pytest.warns(UserWarning, match=message):
        again = zero_shot(tmp_path / "shards", photos)
    assert again.class_texts == batch.class_texts
    assert sorted(again.labels.tolist()) == sorted(batch.labels.tolist())
    long = Options(filters=Filters(min_caption=8))
    with pytest.raises(
        ConfigError, match=r"a length of captions is asked for, but samples of kind c"
    ):
        prepare(find_source(str(train), kind=CLASSES), tmp_path / "long", long, kind=CLASSES)
    with pytest.raises(DataError, match=r"shards holds samples of kind classes where image_text"):
        zero_shot(train, tmp_path / "shards")
    prepare(find_source(str(photos)), tmp_path / "pairs", Options())
    with pytest.raises(DataError, match=r"kind image_text where classes is needed"):
        zero_shot(tmp_path / "pairs", photos)


def test_imagenet_as_pairs(tmp_path: Path) -> None:
    train = imagenet(tmp_path)
    source = find_source(str(train))
    assert source.title.endswith(
        "named by timm's list of WordNet) with the caption 'a photo of a {}.'"
    )
    result = prepare(source, tmp_path / "out", Options())
    assert result.count == 9
    assert set(content(tmp_path / "out")) == {"a photo of a tench.", "a photo of a crane."}
    for image in train.rglob("*.JPEG"):
        image.with_suffix(".txt").write_text(image.stem)
    assert find_source(str(train)).title.endswith("(a caption file beside each image)")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("LOC_synset_mapping.txt", f"{CRANE} crane bird, wader\n{HOIST} hoist\nn00000000 x"),
        (
            "imagenet_class_index.json",
            json.dumps({"0": [CRANE, "crane_bird"], "1": [HOIST, "hoist"]}),
        ),
    ],
)
def test_files_of_class_names(tmp_path: Path, file: str, text: str) -> None:
    train = imagenet(tmp_path / "ILSVRC" / "Data")
    (tmp_path / "ILSVRC" / file).write_text(text)
    names, origin = class_names(train, [TENCH, CRANE, HOIST, "n99999999"])
    assert names == {
        TENCH: "tench", CRANE: "crane bird", HOIST: "hoist", "n99999999": "n99999999",
    }  # fmt: skip
    assert origin.startswith(str(tmp_path / "ILSVRC" / file))
    (train / "classes.txt").write_text(f"{TENCH} my fish\n")
    assert class_names(train, [TENCH])[0] == {TENCH: "my fish"}
    (train / "classes.txt").write_text(f"{TENCH} my fish\n{TENCH} your fish\n")
    message = r"classes.txt names the class n01440764 twice, as 'my fish' and 'your fish'; keep one"
    with pytest.raises(DataError, match=message):
        class_names(train, [TENCH])
    (train / "classes.txt").unlink()
    (train / "imagenet_class_index.json").write_text("[1]")
    if file.endswith(".json"):
        with pytest.raises(DataError, match=r"imagenet_class_index.json is no list of classes"):
            class_names(train, [TENCH])


# ------------------------------------------------------------------ what decides a prepared copy


def lay(root: Path, files: dict[str, bytes | str]) -> None:
    for name, held in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(held if isinstance(held, bytes) else held.encode())


PICTURE = encoded(picture(1))
DOCUMENT = json.dumps(
    {"text_list": ["a dog"], "image_info": [{"image_name": "a.jpg", "matched_text_index": 0}]}
)
STATES: dict[str, tuple[Callable[[Path], Source], dict[str, bytes | str], str]] = {
    "caption": (folder_source, {"a.jpg": PICTURE, "a.txt": "a dog"}, "a.txt"),
    "row": (folder_source, {"a.jpg": PICTURE, "a.json": '{"caption": "a dog"}'}, "a.json"),
    "table of a folder": (
        folder_source,
        {"0/a.jpg": PICTURE, "0/a.txt": "a", "0.parquet": "-"},
        "0.parquet",
    ),
    "table of a tar": (
        lambda root: tar_source([root / "0.tar"]),
        {"0.tar": "-", "0.parquet": "-"},
        "0.parquet",
    ),
    "names of classes": (
        class_source,
        {"x/a.jpg": PICTURE, "classes.txt": "x dog\n"},
        "classes.txt",
    ),
    "image of a document": (
        lambda root: document_source(str(root)),
        {"a.jsonl": DOCUMENT, "a.jpg": PICTURE},
        "a.jpg",
    ),
}


@pytest.mark.parametrize("kind", STATES)
def test_every_file_that_decides_the_content_decides_the_copy(kind: str, tmp_path: Path) -> None:
    find, files, decisive = STATES[kind]
    root = tmp_path / "photos"
    lay(root, files)
    before = find(root).state()
    assert find(root).state() == before
    lay(root, {decisive: "another, longer content"})
    assert find(root).state() != before


def test_a_folder_that_may_not_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.jpg").write_bytes(encoded(picture(0)))
    (tmp_path / "a.txt").write_text("a thing")
    listed = os.scandir

    def scandir(folder: str) -> Any:  # the superuser, whom tests may run as, may list every folder
        if Path(folder).name == "closed":
            raise PermissionError(13, "Permission denied", folder)
        return listed(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"closed cannot be read \(.*\); allow reading it"):
        folder_source(tmp_path)
