from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from litdata import StreamingDataset
from litdata.streaming.writer import BinaryWriter

from vilau.data.cache import written_once
from vilau.data.shards import MANIFEST, Record, ShardSet, ShardWriter
from vilau.errors import DataError


def records(num: int) -> list[Record]:
    return [
        Record(os.urandom(50 + 7 * i % 40), (f"größe {i}", "zwei\nlines"), '{"x": 1}' * (i % 2))
        for i in range(num)
    ]


def write(folder: Path, samples: Iterable[Record], **options: int) -> ShardSet:
    with ShardWriter(folder, kind="image_text", source="test", spec={"a": 1}, **options) as writer:
        for sample in samples:
            writer.add(sample)
    return ShardSet(folder)


def test_samples_come_back_exactly_in_any_order_and_from_several_chunks(tmp_path: Path) -> None:
    samples = [*records(50), Record(b"", ("only text",))]
    shards = write(tmp_path / "set", samples, chunk_bytes=1000)
    assert len(shards) == 51
    assert len(shards.chunk_sizes) > 3
    assert sum(shards.chunk_sizes) == 51
    assert shards.read(range(51)) == samples
    assert shards.read([50, 0, 17, 17]) == [samples[i] for i in (50, 0, 17, 17)]


def test_litdata_itself_reads_the_same_samples(tmp_path: Path) -> None:
    samples = records(20)
    write(tmp_path / "set", samples, chunk_bytes=1000)
    stream = StreamingDataset(str(tmp_path / "set"), shuffle=False)
    for index, sample in enumerate(samples):
        image, texts, scene = stream[index]
        found = Record(bytes(image), tuple(json.loads(texts)), scene)
        assert found == sample


def test_the_same_samples_give_the_same_files(tmp_path: Path) -> None:
    samples = records(30)
    first, second = (write(tmp_path / name, samples, chunk_bytes=1000) for name in "ab")
    assert first.manifest == second.manifest


def test_a_set_can_be_sent_to_another_process(tmp_path: Path) -> None:
    samples = records(5)
    shards = write(tmp_path / "set", samples)
    shards.read([0])
    assert pickle.loads(pickle.dumps(shards)).read([3]) == [samples[3]]


def test_an_exception_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[Record]:
        yield from records(1)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write(tmp_path / "set", broken())
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(BinaryWriter, "merge", full)
    with pytest.raises(DataError, match=r"disk filled up while writing .*set.*free space"):
        write(tmp_path / "set", records(3))
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_never_written_into(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(DataError, match=r"set already exists; delete it or name another"):
        write(tmp_path / "set", records(1))


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"file/set cannot be written .*choose a folder"):
        write(tmp_path / "file" / "set", records(1))


def test_missing_and_unfinished_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist; write it with `vilau data prep"):
        ShardSet(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no manifest.json, so it is no finished shard"):
        ShardSet(tmp_path)


def test_damage_is_found(tmp_path: Path) -> None:
    shards = write(tmp_path / "set", records(30), chunk_bytes=1000)
    shards.verify()
    chunk = shards.folder / shards.manifest.chunks[1].file
    content = bytearray(chunk.read_bytes())
    content[-10] ^= 255
    chunk.write_bytes(content)
    with pytest.raises(DataError, match=rf"{chunk.name} is damaged: its SHA-256 differs"):
        ShardSet(shards.folder).verify()
    chunk.write_bytes(content[:-1])
    with pytest.raises(DataError, match=rf"{chunk.name} holds \d+ bytes where the manifest says"):
        ShardSet(shards.folder)
    chunk.unlink()
    with pytest.raises(DataError, match=rf"{chunk.name} holds 0 bytes"):
        ShardSet(shards.folder)


def test_a_damaged_manifest(tmp_path: Path) -> None:
    manifest = write(tmp_path / "set", records(2)).folder / MANIFEST
    content = manifest.read_text()
    manifest.write_text(content.replace('"format_version": 1', '"format_version": 9'))
    with pytest.raises(DataError, match=r"has format version 9, this vilau reads 1; delete"):
        ShardSet(manifest.parent)
    manifest.write_text(content[:40])
    with pytest.raises(DataError, match=r"manifest.json is damaged .*; delete .* and write it ag"):
        ShardSet(manifest.parent)


# ------------------------------------------------------------------ several processes


def _write_slowly(folder: Path, log: Path) -> None:
    def write_set() -> None:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.3)
        write(folder, [Record(b"x", ("a",))])

    written_once(folder, write_set, marker=MANIFEST)


def test_processes_that_need_one_set_write_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    arguments = (tmp_path / "set", tmp_path / "log")
    processes = [context.Process(target=_write_slowly, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=30)
        assert process.exitcode == 0
    assert len((tmp_path / "log").read_text().split()) == 1
    assert len(ShardSet(tmp_path / "set")) == 1


def _die_while_writing(folder: Path) -> None:
    def write_set() -> None:
        with ShardWriter(folder, kind="image_text", source="", spec={}) as writer:
            writer.add(Record(b"x", ("a",)))
            os.kill(os.getpid(), signal.SIGKILL)

    written_once(folder, write_set, marker=MANIFEST)


def test_a_killed_writer_leaves_no_set_and_stands_in_nobodys_way(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    process = multiprocessing.get_context("fork").Process(target=_die_while_writing, args=(folder,))
    process.start()
    process.join(timeout=30)
    assert process.exitcode == -signal.SIGKILL
    assert not folder.exists()
    assert list(tmp_path.glob(".set.writing-*"))
    written_once(folder, lambda: write(folder, records(3)), marker=MANIFEST)
    assert len(ShardSet(folder)) == 3
    assert not list(tmp_path.glob(".set.writing-*"))
