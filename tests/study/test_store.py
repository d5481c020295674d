import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vilau.errors import ConfigError
from vilau.study.store import Store, erase, finished_metrics, run_lock, write_atomic, write_json


def test_only_complete_metrics_mean_finished(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run_dir = store.run_dir("tower-12345678")
    run_dir.mkdir(parents=True)
    assert store.metrics("tower-12345678") is None
    for text in ("", '{"finished": true', '{"finished": false}', "[]", '{"metrics": {}}'):
        (run_dir / "metrics.json").write_text(text)
        assert finished_metrics(run_dir) is None
    write_json(run_dir / "metrics.json", {"finished": True, "metrics": {"a": 1.0}})
    assert store.metrics("tower-12345678") == {"finished": True, "metrics": {"a": 1.0}}


def test_atomic_writing_leaves_the_old_file_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.json"
    write_atomic(path, "old")

    def full(self: Path, *_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_links_are_relative_and_follow_the_plan(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    for name in ("tower-1", "tower-2"):
        (store.run_dir(name)).mkdir(parents=True)
        (store.run_dir(name) / "name").write_text(name)
    store.link("study", ("a", "tower"), "tower-1")
    store.link("study", ("a", "tower"), "tower-2")
    link = tmp_path / "runs/study/a/tower"
    assert os.readlink(link) == "../../.store/tower-2"
    (tmp_path / "runs").rename(tmp_path / "moved")
    assert (tmp_path / "moved/study/a/tower/name").read_text() == "tower-2"
    moved = Store(tmp_path / "moved")
    moved.unlink_all("study")
    assert not (tmp_path / "moved/study").exists()
    assert (moved.run_dir("tower-2") / "name").exists()


def test_a_file_in_the_way_of_a_link_is_not_touched(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "study/a/tower").mkdir(parents=True)
    with pytest.raises(ConfigError, match="is in the way of a link to tower-1; move it elsewhere"):
        store.link("study", ("a", "tower"), "tower-1")


def test_unlinking_keeps_the_report(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.report_dir("study").mkdir(parents=True)
    (store.report_dir("study") / "table.md").write_text("kept")
    store.run_dir("tower-1").mkdir(parents=True)
    store.link("study", ("a", "tower"), "tower-1")
    store.unlink_all("study")
    assert (store.report_dir("study") / "table.md").exists()
    assert not (tmp_path / "study/a").exists()


def test_no_write_permission_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")  # a file where the folder should be: refused even for root
    with pytest.raises(
        ConfigError, match=r"--runs .*file: cannot write there \(.*\); name another"
    ):
        Store(tmp_path / "file").prepare()


def test_a_run_is_locked_by_one_process_only(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from vilau.study.store import run_lock\n"
        "with run_lock(Path(sys.argv[1])) as mine: print(mine)"
    )

    def from_outside() -> str:
        arguments = [sys.executable, "-c", code, str(tmp_path)]
        return subprocess.run(arguments, capture_output=True, text=True).stdout.strip()

    with run_lock(tmp_path) as mine:
        assert mine
        assert from_outside() == "False"
    assert from_outside() == "True"


def test_erase_keeps_what_the_next_start_needs(tmp_path: Path) -> None:
    for name in ("metrics.json", "lock", "run.yaml", "log.txt", "events.out.tfevents.1"):
        (tmp_path / name).write_text("x")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/step=00000001.ckpt").write_text("x")
    erase(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["lock", "log.txt", "run.yaml"]


def test_json_is_readable(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ü": 1})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"ü": 1}
