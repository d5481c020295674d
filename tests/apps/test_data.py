"""``vilau data``: what a user reads who mistypes, is refused, or is stopped."""

from __future__ import annotations

import copy
import errno
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image

from tests.apps.conftest import Command
from vilau.apps.files import resumable
from vilau.data.cache import disk_errors
from vilau.data.chunks import ChunkWriter
from vilau.data.preparing import prepare
from vilau.data.preparing.workers import WorkerLostError
from vilau.errors import DataError

PREPARE = ("data", "prepare", "photos", "out", "--workers", 0)


@pytest.fixture
def captioned(photos: Path) -> Path:
    """Three pictures with a caption and a score each."""
    for path in photos.glob("*.png"):
        path.with_suffix(".txt").write_text(f"a red circle {path.stem}")
        path.with_suffix(".json").write_text('{"score": 0.5}')
    return photos


@pytest.fixture
def shards(captioned: Path, vilau: Command) -> Path:
    assert vilau("data", "prepare", captioned, "shards", "--workers", 0)[0] == 0
    return Path("shards")


def hidden() -> list[Path]:
    return list(Path.cwd().glob(".*"))


# ------------------------------------------------------------------ verbs


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "vilau data needs a verb; write one of prepare, tokenize, show behind it."),
        (("prepar", "a", "b"), "there is no verb `data prepar`. Did you mean `prepare`?"),
        (("foo",), "there is no verb `data foo`. There is: `prepare`, `show`, `tokenize`."),
    ],
)
def test_verbs_that_are_not_there(vilau: Command, words: tuple[str, ...], says: str) -> None:
    assert vilau("data", *words) == (2, "", f"error: {says}\n")


# ------------------------------------------------------------------ prepare


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--where", "score > 1"), "The filters leave nothing of folder"),
        (("--min-side", 100000), "The filters leave nothing of folder"),
        (("--where", "size > 1"), "has a value in the column size, which --where names; write"),
    ],
)
def test_filters_that_leave_nothing_leave_no_folder(
    vilau: Command, captioned: Path, arguments: tuple[object, ...], says: str
) -> None:
    code, printed, error = vilau(*PREPARE, *arguments)
    assert (code, printed, error.count("\n")) == (2, "", 1)
    assert says in error
    assert not hidden()


def test_sources_that_are_refused_leave_no_folder(vilau: Command, photos: Path) -> None:
    def refused(*command: object, says: str) -> None:
        code, printed, error = vilau("data", "prepare", *command, "out", "--workers", 0)
        assert (code, printed, error.count("\n")) == (2, "", 1), error
        assert says in error
        assert not hidden()

    refused("photos", says="its caption a.txt is missing (and 2 more)")
    Path("words.txt").write_text("\n\n")
    refused("words.txt", "--texts", says="No text was found in text")
    for path in photos.glob("*.png"):
        path.write_text("no picture")
        path.with_suffix(".txt").write_text("a caption")
    refused("photos", says="None of the 3 samples can be read")


def test_what_a_larger_share_goes_on_from_is_kept(vilau: Command, captioned: Path) -> None:
    (captioned / "a.png").write_text("no picture")
    code, _, error = vilau(*PREPARE)
    first, second = error.splitlines()
    assert code == 2
    assert first.startswith("What was finished is kept in .out.preparing-")
    assert first.endswith("; the same command with a larger --max-unreadable goes on.")
    assert second.startswith("error: 1 of 3 samples (33.3%) cannot be read, more than the allowed")
    assert vilau(*PREPARE, "--max-unreadable", 0.5)[0] == 0
    assert not hidden()


@pytest.mark.parametrize(
    ("stop", "code", "says"),
    [
        (KeyboardInterrupt(), 130, "\nstopped.\n"),
        (OSError(errno.ENOSPC, "full"), 2, "error: The disk filled up while writing out; nothing"),
        (PermissionError(errno.EACCES, "no"), 2, "error: out cannot be written (no); choose a fol"),
        (WorkerLostError(), 2, "error: A worker process ended without a word"),
    ],
)
def test_what_a_stopped_run_had_finished_is_kept_and_told(
    vilau: Command, captioned: Path, stop: BaseException, code: int, says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def stopped(*_: object) -> None:
        raise stop

    monkeypatch.setattr(ChunkWriter, "done", stopped)
    found, _, error = vilau(*PREPARE)
    first, _, rest = error.partition("\n")
    assert found == code
    assert first.startswith("What was finished is kept in .out.preparing-")
    assert first.endswith("; the same command goes on.")
    assert rest.startswith(says)
    assert "VILAU_CACHE" not in error
    assert list(Path.cwd().glob(".out.preparing-*/listing.json"))
    monkeypatch.undo()


def test_a_full_disk_that_a_worker_met_keeps_what_was_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Errors come from worker processes without their cause, but of their own type."""
    with pytest.raises(DataError) as full, disk_errors(Path("out")):
        raise OSError(errno.ENOSPC, "full")
    left = tmp_path / ".out.preparing-1"
    left.mkdir()
    with pytest.raises(DataError, match="choose another place.$"), resumable(Path("out"), lambda: left):  # fmt: skip
        raise copy.copy(full.value)  # as pickle makes it anew
    assert left.is_dir()
    assert f"is kept in {left}; the same command goes on." in capsys.readouterr().err


def test_a_folder_that_came_into_being_meanwhile_keeps_what_was_finished(
    vilau: Command, captioned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = prepare.write_index

    def write_index(*arguments: object, **settings: object) -> None:
        real(*arguments, **settings)  # type: ignore[arg-type]
        Path("out").mkdir()

    monkeypatch.setattr(prepare, "write_index", write_index)
    code, _, error = vilau(*PREPARE)
    assert (code, "the same command goes on.\nerror: out already exists" in error) == (2, True)
    assert hidden()


def test_the_folder_of_another_process_is_left_alone(
    vilau: Command, captioned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ChunkWriter, "done", stopped)
    vilau(*PREPARE)
    (left,) = hidden()
    with FileLock(left / "lock"):
        code, _, error = vilau(*PREPARE)
    assert code == 2
    assert error == "error: Another process is preparing out; wait until it is done.\n"
    assert left.is_dir()


def test_seeds_have_the_range_of_all_verbs(vilau: Command) -> None:
    for seed, says in (
        ("-1", "argument --seed: '-1' is no whole number from 0 on"),
        ("9" * 23, f"argument --seed: {'9' * 23} is above {2**63 - 1}, the largest allowed"),
    ):
        code, _, error = vilau(*PREPARE, f"--seed={seed}")
        assert (code, says in error) == (2, True), error


# ------------------------------------------------------------------ show


def test_a_sheet_is_looked_at_before_anything_is_printed(vilau: Command, shards: Path) -> None:
    Path("taken.png").write_text("mine")
    Path("folder").mkdir()
    for sheet, says in (
        ("photos.txt", "photos.txt is no name for a picture; end it in .png or .jpg."),
        ("folder", "folder is a folder, but a file is to be written there"),
        ("taken.png", "taken.png exists already; write another --sheet, or --force to replace it."),
        ("taken.png/s.png", "since taken.png is no folder; write another --sheet."),
    ):
        code, printed, error = vilau("data", "show", shards, "--sheet", sheet)
        assert (code, printed, error.count("\n")) == (2, "", 1), error
        assert says in error
    assert Path("taken.png").read_text() == "mine"
    assert not Path("photos.txt").exists()
    assert vilau("data", "show", shards, "--sheet", "taken.png", "--force")[0] == 0
    for sheet in ("taken.png", "new/folder/sheet.jpg"):
        if sheet != "taken.png":
            assert vilau("data", "show", shards, "--sheet", sheet)[0] == 0
        with Image.open(sheet) as image:
            assert image.size == (800, 100)


def test_a_sheet_appears_whole_or_not_at_all(
    vilau: Command, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(image: Image.Image, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(Image.Image, "save", full)
    code, _, error = vilau("data", "show", shards, "--sheet", "sheet.png")
    assert (code, "The disk filled up while writing sheet.png" in error) == (2, True)
    assert "VILAU_CACHE" not in error
    assert not list(Path.cwd().glob("*sheet*"))
    assert not hidden()


def test_texts_have_no_sheet(vilau: Command) -> None:
    Path("t.txt").write_text("one\n\ntwo\n")
    assert vilau("data", "prepare", "t.txt", "texts", "--texts", "--workers", 0)[0] == 0
    code, printed, error = vilau("data", "show", "texts", "--sheet", "sheet.png")
    assert (code, printed) == (2, "")
    assert error == "error: texts holds no image in its first 2 samples; leave out --sheet.\n"
    assert not Path("sheet.png").exists()


def test_samples_are_counted_from_0(vilau: Command, shards: Path) -> None:
    code, printed, error = vilau("data", "show", shards, "--samples", "-1")
    assert (code, printed) == (2, "")
    assert "argument --samples: '-1' is no whole number from 0 on" in error
    assert vilau("data", "show", shards, "--samples", 0)[0] == 0


def test_a_file_is_no_set(vilau: Command) -> None:
    Path("a.txt").write_text("words")
    says = "a.txt is a file; give the folder that vilau data prepare or vilau data tokenize wrote."
    assert vilau("data", "show", "a.txt") == (2, "", f"error: {says}\n")
