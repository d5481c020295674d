"""The report folder: complete, self-contained, and honest about what is missing."""

import base64
import re
from pathlib import Path
from threading import Thread

import pytest
from torch.utils.tensorboard import SummaryWriter

from tests.study.conftest import Workshop
from tests.study.test_results import finish
from vilau.study.curves import arrange
from vilau.study.events import Events, read_events
from vilau.study.figures import smoothed
from vilau.study.page import page_html
from vilau.study.plan import Plan
from vilau.study.report import write_report
from vilau.study.results import collect
from vilau.study.store import Store, folder_lock
from vilau.study.table import fingerprint

FAMILIES = {
    f"test/vqa{end}/{family}": value
    for end, value in (("", 0.8), ("_chance", 0.4), ("_blind", 0.5))
    for family in ("count", "identity", "compare")
}


def log(plan: Plan, store: Store) -> None:
    """Write event files and configs as stages do."""
    import torch

    for name, run in plan.runs.items():
        folder = store.run_dir(name)
        (folder / "run.yaml").write_text(
            "model: {class_path: a.b.Tower}\ndata: {class_path: c.D}\n"
        )
        if run.stage.command != "fit":
            continue
        with SummaryWriter(str(folder)) as writer:
            for step in range(60):
                writer.add_scalar("train/loss", 1 / (step + 1), step)
                writer.add_scalar("train/learning_rate", 0.1, step)
            for step in (20, 40):
                writer.add_scalar("val/accuracy", step / 60, step)
                writer.add_scalar("val/usage_d1", 0.5, step)
                writer.add_scalar("val/usage_d2", 0.7, step)
                writer.add_image("val/reconstructions", torch.full((3, 8, 24), step / 60), step)


@pytest.fixture
def report(shop: Workshop, tmp_path: Path) -> Path:
    plan = shop.plan(seeds=[0, 1])
    store = Store(tmp_path / "runs")
    finish(plan, store, FAMILIES, seconds=61.0, device="cpu", versions={"torch": "2.x"}, steps=60)
    log(plan, store)
    folder = store.report_dir("toy")
    folder.mkdir(parents=True)
    (folder / "stale.png").write_bytes(b"")
    write_report(collect(plan, store), store, folder, command="lightning run toy.yaml")
    return folder


def test_two_engines_write_one_after_the_other(shop: Workshop, tmp_path: Path) -> None:
    plan, store = shop.plan(seeds=[0]), Store(tmp_path / "runs")
    finish(plan, store, FAMILIES)
    log(plan, store)
    folder = store.report_dir("toy")
    command = "lightning run toy.yaml"
    other = Thread(
        target=write_report, args=(collect(plan, store), store, folder), kwargs={"command": command}
    )
    with folder_lock(folder):
        other.start()
        other.join(timeout=1.0)
        assert other.is_alive()
        assert list(folder.iterdir()) == []
    other.join()
    assert (folder / "index.html").is_file()


def test_the_folder_is_complete(report: Path) -> None:
    names = {path.relative_to(report).as_posix() for path in report.rglob("*") if path.is_file()}
    assert names == {
        "table.md",
        "table.csv",
        "results.json",
        "index.html",
        "first_training.png",
        "first_more_1.png",
        "second_training.png",
        "second_more_1.png",
        "evaluate_vqa.png",
        "first_by_depth.png",
        "second_by_depth.png",
        "images/first_quiet_val_reconstructions.png",
        "images/first_noisy_val_reconstructions.png",
        "images/second_quiet_val_reconstructions.png",
        "images/second_noisy_val_reconstructions.png",
    }


def test_the_page_needs_nothing_from_outside(report: Path) -> None:
    page = (report / "index.html").read_text()
    assert not re.search(r"(src|href)=[\"'](?!data:|#)", page)
    assert "http" not in page
    assert "<script" not in page
    assert "@import" not in page
    assert "prefers-color-scheme: dark" in page
    for picture in re.findall(r'src="data:image/png;base64,([^"]+)"', page):
        assert base64.b64decode(picture).startswith(b"\x89PNG")
    assert page.count("<img") == 6 + 1 + 4  # curves, depths and speeds; bars; pictures


def test_the_page_says_everything(report: Path) -> None:
    page = (report / "index.html").read_text()
    for text in (
        "Does noise in the first stage hurt the second?",
        "A toy, no paper.",
        "Printed in the paper",
        "quiet training answers better",
        "holds for 2 of 2 seeds",
        "0.905",
        "lightning run toy.yaml",
        "reference: set-1",
        "2.x",
        "Tower",
        "1:01",
        "seed 1",
    ):
        assert text in page, text
    assert "not complete" not in page


def test_text_is_escaped(shop: Workshop, tmp_path: Path) -> None:
    shop.replace("label: Quiet", "label: <b>Quiet</b> & more")
    plan = shop.plan()
    store = Store(tmp_path / "runs")
    finish(plan, store)
    write_report(collect(plan, store), store, tmp_path / "report", command="x")
    page = (tmp_path / "report/index.html").read_text()
    assert "&lt;b&gt;Quiet&lt;/b&gt; &amp; more" in page
    assert "<b>Quiet</b>" not in page


def test_an_unfinished_study_has_a_report_too(shop: Workshop, tmp_path: Path) -> None:
    plan = shop.plan()
    store = Store(tmp_path / "runs")
    finish(shop.plan(until="first"), store)
    write_report(collect(plan, store), store, tmp_path / "report", command="x")
    page = (tmp_path / "report/index.html").read_text()
    assert "not complete" in page
    assert "quiet/evaluate has not been run." in page
    assert "not finished" in page


def test_many_columns_become_lines(shop: Workshop, tmp_path: Path) -> None:
    more = "".join(f"    M{i}: first/val/accuracy\n" for i in range(8))
    shop.replace(
        "    Top-1: evaluate/test/accuracy\n", "    Top-1: evaluate/test/accuracy\n" + more
    )
    plan = shop.plan()
    store = Store(tmp_path / "runs")
    finish(plan, store)
    write_report(collect(plan, store), store, tmp_path / "report", command="x")
    assert 'class="turned"' in (tmp_path / "report/index.html").read_text()
    assert "| M7 ↑ | 0.900 | 0.600 | – | – | – | – |" in (tmp_path / "report/table.md").read_text()


def test_a_report_is_written_again_only_when_something_changed(
    shop: Workshop, tmp_path: Path
) -> None:
    plan = shop.plan()
    store = Store(tmp_path / "runs")
    finish(shop.plan(until="first"), store)
    marks = [fingerprint(collect(plan, store), store, "x") for _ in range(2)]
    finish(shop.plan(until="second"), store)
    marks.append(fingerprint(collect(plan, store), store, "x"))
    marks.append(fingerprint(collect(plan, store), store, "y"))
    assert marks[0] == marks[1]
    assert len({mark["sha256"] for mark in marks}) == 3


def test_the_later_of_two_equal_steps_counts(tmp_path: Path) -> None:
    for value in (1.0, 2.0):  # two files, as after a restart
        with SummaryWriter(str(tmp_path), filename_suffix=str(value)) as writer:
            writer.add_scalar("loss", value, 5)
    curve = read_events(tmp_path).curves["loss"]
    assert (curve.steps, curve.values) == ([5], [2.0])


def test_what_a_resumed_run_strikes_out_is_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with SummaryWriter(str(tmp_path), filename_suffix="first") as writer:
        for step in range(6):
            writer.add_scalar("loss", float(step), step)
    with SummaryWriter(str(tmp_path), filename_suffix="second", purge_step=4) as writer:
        writer.add_scalar("loss", 9.0, 4)
    curve = read_events(tmp_path).curves["loss"]
    assert (curve.steps, curve.values) == ([0, 1, 2, 3, 4], [0.0, 1.0, 2.0, 3.0, 9.0])
    assert not caplog.records


def test_a_run_without_events(tmp_path: Path) -> None:
    assert read_events(tmp_path) == Events()


def test_curves_find_their_places() -> None:
    tags = [
        "train/loss", "train/l2_loss", "train/gradient_cosine", "train/samples_per_s",
        "train/learning_rate", "val/rfid", "val/psnr", "val/a_loss", "val/usage_d1", "val/usage_d2",
        "val/top1_depth1", "val/top1_depth2", "val/top1", "val/odd_d1",
    ]  # fmt: skip
    found = arrange(tags, {"val/rfid"})
    assert found.training == ["train/l2_loss", "train/loss", "train/gradient_cosine"]
    assert found.measured == ["val/rfid", "val/a_loss", "val/odd_d1", "val/psnr", "val/top1"]
    assert found.by_depth == {
        "val/usage": {1: "val/usage_d1", 2: "val/usage_d2"},
        "val/top1": {1: "val/top1_depth1", 2: "val/top1_depth2"},
    }
    assert found.folded == ["train/learning_rate", "train/samples_per_s"]
    many = arrange([f"val/{i:02d}" for i in range(12)], {"val/11"})
    assert many.measured[0] == "val/11"
    assert many.folded == ["val/08", "val/09", "val/10"]


def test_smoothing_keeps_constants_and_lengths() -> None:
    assert smoothed([2.0] * 100) == pytest.approx([2.0] * 100)
    assert smoothed([1.0, 2.0]) == [1.0, 2.0]


def test_a_stage_that_the_scale_lacks_is_not_shown(shop: Workshop, tmp_path: Path) -> None:
    shop.replace("    inputs: {model.checkpoint: first}", "    scales: [tiny]")
    for scale, shown in (("tiny", True), ("small", False)):
        plan, store = shop.plan(scale=scale), Store(tmp_path / scale)
        finish(plan, store, FAMILIES)
        log(plan, store)
        folder = store.report_dir("toy")
        folder.mkdir(parents=True)
        write_report(collect(plan, store), store, folder, command="lightning run toy.yaml")
        assert ('id="stage-second"' in (folder / "index.html").read_text()) == shown


@pytest.mark.parametrize(
    ("claim", "mark"),
    [
        ("quiet.Top-1 > noisy.Top-1", '<li class="yes"><span class="mark">✓<'),
        ("quiet.Top-1 > 0.905", '<li class="open"><span class="mark">~<'),  # two seeds of three
        ("noisy.Top-1 > quiet.Top-1", '<li class="no"><span class="mark">✗<'),
    ],
)
def test_claims_bear_their_mark(claim: str, mark: str, shop: Workshop, tmp_path: Path) -> None:
    shop.replace("quiet.Top-1 > noisy.Top-1}", f"{claim}}}")
    plan, store = shop.plan(seeds=[0, 1, 2]), Store(tmp_path / "runs")
    finish(plan, store)
    assert mark in page_html(collect(plan, store), [], command="")
