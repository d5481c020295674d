"""Preparing in parts: any number of workers, any number of kills, one result."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from litdata import StreamingDataset

from tests.data.conftest import encoded, pack, picture, tree
from tests.data.crew_jobs import DeadlyUnit, loads_torch, wait_a_little
from vilau.data.chunks import Chunk, ChunkWriter, Record
from vilau.data.preparing import encoding, listing, parts, prepare
from vilau.data.preparing.parts import being_read
from vilau.data.preparing.prepare import Options
from vilau.data.preparing.workers import Crew, WorkerLostError
from vilau.data.preparing.workplace import Workplace
from vilau.data.shards import ShardSet, ShardWriter
from vilau.data.sources.forms import find_source
from vilau.data.sources.items import Source
from vilau.errors import DataError

SMALL = Options(chunk_bytes=32 << 10)
"""Parts of eight samples."""


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Sixty photographs in three tar files, one of them broken; eight parts of eight or less."""
    folder = tmp_path / "many"
    folder.mkdir()
    for shard in range(3):
        members = {}
        for n in range(20 * shard, 20 * shard + 20):
            members[f"{n:05d}.jpg"] = b"broken" if n == 31 else encoded(picture(n, (120, 90)))
            members[f"{n:05d}.txt"] = f"photo number {n}".encode()
        pack(folder / f"{shard:05d}.tar", members)
    return folder


def prepared(source: Path, folder: Path, options: Options = SMALL) -> prepare.Prepared:
    return prepare.prepare(find_source(str(source)), folder, options)


def workplace(folder: Path) -> Path:
    (found,) = folder.parent.glob(f".{folder.name}.preparing-*")
    return found


def test_chunks_are_byte_for_byte_what_litdata_writes(tmp_path: Path) -> None:
    records = [
        Record(os.urandom(37 * i % 900), ("größe", "zwei\n") * (i % 3), "{}") for i in range(40)
    ]
    records.insert(17, Record(os.urandom(5000), ("larger than a chunk",)))
    with ShardWriter(tmp_path / "set", kind="x", source="", spec={}, chunk_bytes=2000) as writer:
        for record in records:
            writer.add(record)
    ours = ChunkWriter(tmp_path, 0, chunk_bytes=2000)
    for record in records:
        ours.add(record)
    chunks = ours.done()
    assert chunks == ShardSet(tmp_path / "set").manifest.chunks
    for chunk in chunks:
        assert (tmp_path / chunk.file).read_bytes() == (tmp_path / "set" / chunk.file).read_bytes()


def test_the_number_of_workers_changes_nothing(many: Path, tmp_path: Path) -> None:
    first = prepared(many, tmp_path / "first")
    second = prepared(many, tmp_path / "second", Options(chunk_bytes=32 << 10, workers=2))
    assert first.count == second.count == 59
    assert tree(first.folder) == tree(second.folder)
    assert (first.folder / "unreadable.txt").read_text().count("00031\tcannot identify") == 1
    shards = ShardSet(first.folder)
    shards.verify()
    texts = [record.texts[0] for record in shards.read(range(59))]
    assert sorted(texts) == sorted(f"photo number {n}" for n in range(60) if n != 31)
    assert len({text for text in texts[:8] if int(text.split()[-1]) < 20}) < 8  # shuffled over tars
    stream = StreamingDataset(str(first.folder), shuffle=False)
    assert [json.loads(stream[n][1])[0] for n in range(59)] == texts
    assert {path.name for path in tmp_path.iterdir()} == {"many", "first", "second"}


def killed(target: Callable[..., None], *arguments: object) -> None:
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    process.join(timeout=60)
    assert process.exitcode == -signal.SIGKILL


def _die_at_image(source: Path, folder: Path, number: int) -> None:
    left, real = [number], encoding.storable

    def storable(*arguments: object, **more: object) -> bytes:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **more)

    encoding.storable = storable
    prepared(source, folder)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_preparation_goes_on_where_it_stopped(
    many: Path, tmp_path: Path, workers: int
) -> None:
    killed(_die_at_image, many, tmp_path / "out", 30)
    assert not (tmp_path / "out").exists()
    work = workplace(tmp_path / "out")
    assert len(list((work / "parts").glob("*.json"))) == 3
    assert ".tar:000" in being_read(Workplace(tmp_path / "out", work.name.split("-")[-1]))[0]
    before = {path.name: path.stat().st_ino for path in (work / "set").glob("*.bin")}
    killed(_die_at_image, many, tmp_path / "out", 20)
    done = prepared(many, tmp_path / "out", Options(chunk_bytes=32 << 10, workers=workers))
    assert before
    assert all((done.folder / name).stat().st_ino == node for name, node in before.items())
    assert tree(done.folder) == tree(prepared(many, tmp_path / "whole").folder)
    assert not list(tmp_path.glob(".*"))


def _die_at_tar(source: Path, folder: Path, number: int) -> None:
    real = listing.write_record

    def write_record(*arguments: object) -> None:
        if arguments[1] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        real(*arguments)

    listing.write_record = write_record
    prepared(source, folder)


def test_a_kill_while_listing(many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(_die_at_tar, many, tmp_path / "out", 3)
    listed, real = [], listing.write_record
    monkeypatch.setattr(listing, "write_record", lambda *a: (listed.append(a[1]), real(*a)))
    prepared(many, tmp_path / "out")
    assert listed == [3]
    assert tree(tmp_path / "out") == tree(prepared(many, tmp_path / "whole").folder)


def test_a_lost_or_cut_chunk_is_written_again(many: Path, tmp_path: Path) -> None:
    killed(_die_at_image, many, tmp_path / "out", 30)
    first, second, *_ = sorted((workplace(tmp_path / "out") / "set").glob("*.bin"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1])
    prepared(many, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(prepared(many, tmp_path / "whole").folder)


def test_what_is_done_is_recognised_and_what_is_not_refused(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepared(many, tmp_path / "out")
    content = tree(first.folder)

    def unexpected(*_: object) -> None:
        raise AssertionError("looked into the data")

    monkeypatch.setattr(prepare, "list_source", unexpected)
    again = prepared(many, tmp_path / "out", Options(chunk_bytes=32 << 10, workers=3))
    assert again.already
    assert again.count == 59
    assert "out holds them already; nothing was done" in again.summary()
    message = r"out already exists and was made from another source, .* with other settings \(3 Web"
    for options in (Options(chunk_bytes=32 << 10, seed=1), Options(image_size=8), Options()):
        with pytest.raises(DataError, match=message):
            prepared(many, tmp_path / "out", options)
    os.utime(many / "00001.tar", (1, 1))
    with pytest.raises(DataError, match=message):
        prepared(many, tmp_path / "out")
    assert tree(first.folder) == content


def test_one_process_at_a_time(many: Path, tmp_path: Path) -> None:
    mark = SMALL.mark(find_source(str(many)), prepare.PAIRS)
    with (
        Workplace(tmp_path / "out", mark),
        pytest.raises(DataError, match=r"Another process is preparing .*out; wait until it is"),
    ):
        prepared(many, tmp_path / "out")
    assert prepared(many, tmp_path / "out").count == 59


def test_a_full_disk_keeps_what_was_finished(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = ChunkWriter.done, [3]

    def done(writer: ChunkWriter) -> tuple[Chunk, ...]:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(writer)

    monkeypatch.setattr(ChunkWriter, "done", done)
    with pytest.raises(
        DataError, match=r"The disk filled up while writing .*out; nothing half-wri"
    ):
        prepared(many, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert len(list((workplace(tmp_path / "out") / "parts").iterdir())) == 3
    monkeypatch.undo()
    assert tree(prepared(many, tmp_path / "out").folder) == tree(
        prepared(many, tmp_path / "whole").folder
    )


def test_too_much_that_is_unreadable_stops_the_work_early(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    real = parts.encode
    monkeypatch.setattr(parts, "encode", lambda item, how: (read.append(item), real(item, how))[1])
    pack(many / "00000.tar", {f"{n}.{s}": b"x" for n in range(60) for s in ("jpg", "txt")})
    with pytest.raises(
        DataError, match=r"of 100 samples \(\d+.\d%\) cannot be read, more than the"
    ):
        prepared(many, tmp_path / "out")
    assert len(read) < 32
    assert (tmp_path / "out.unreadable.txt").read_text().count("cannot identify") > 5
    prepared(many, tmp_path / "out", Options(chunk_bytes=32 << 10, max_unreadable=0.7))
    assert len(read) == 100  # what was read before was not read again


# ------------------------------------------------------------------ workers


def test_a_worker_that_dies_is_told_in_a_sentence(tmp_path: Path) -> None:
    source = Source("deadly things", units=[DeadlyUnit(), DeadlyUnit()])
    with pytest.raises(
        DataError, match=r"A worker process ended without a word, as one does when m"
    ):
        prepare.prepare(source, tmp_path / "out", Options(workers=2))


def test_a_crew_gives_all_results_and_can_be_left_early() -> None:
    with Crew(2) as crew:
        assert sorted(crew.run(wait_a_little, [0.01 * n for n in range(9)])) == [
            0.01 * n for n in range(9)
        ]
        assert not any(crew.run(loads_torch, [1, 2]))
        begun = time.monotonic()
        for _ in crew.run(wait_a_little, [0.0, *[0.1] * 500]):
            break
    assert time.monotonic() - begun < 20
    with Crew(2) as crew, pytest.raises(WorkerLostError):
        list(crew.run(os._exit, [1, 1]))


ORPHANS = """
import sys, time
from vilau.data.preparing.workers import Crew
from tests.data.crew_jobs import wait_a_little
if __name__ == "__main__":
    with Crew(2) as crew:
        for _ in crew.run(wait_a_little, [0.0, 0.0, 300.0, 300.0]):
            print(*crew._pool._processes, flush=True)
"""


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "crew.py").write_text(ORPHANS)
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, str(tmp_path / "crew.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=variables) as parent:
        assert parent.stdout is not None
        workers = [int(number) for number in parent.stdout.readline().split()]
        parent.kill()
    assert len(workers) == 2
    for _ in range(200):
        if not any(Path(f"/proc/{worker}").exists() for worker in workers):
            return
        time.sleep(0.1)
    raise AssertionError("workers outlive their parent")
