"""Scheduling without training: a launcher that finishes stages at once, by script."""

import io
import json
import signal
import time
from pathlib import Path

import pytest
import yaml

from tests.study.conftest import Workshop
from tests.study.fakes import FakeLauncher
from vilau.errors import ConfigError, VilauError
from vilau.study.display import Display, Running, clock, line_of
from vilau.study.plan import Plan
from vilau.study.run import Engine
from vilau.study.session import link_plan, need_devices
from vilau.study.store import Store, run_lock, write_json


def engine(
    plan: Plan, tmp_path: Path, launcher: FakeLauncher, **options: object
) -> tuple[Engine, io.StringIO]:
    stream = io.StringIO()
    store = Store(tmp_path / "runs")
    made = Engine([plan], store, launcher=launcher, display=Display(stream), **options)  # type: ignore[arg-type]
    return made, stream


def test_every_run_is_started_once_after_its_inputs(shop: Workshop, tmp_path: Path) -> None:
    launcher = FakeLauncher()
    made, stream = engine(shop.plan(), tmp_path, launcher)
    (outcome,) = made.run()
    (plan,) = made.plans
    assert sorted(launcher.launched) == sorted(plan.runs)
    for name in plan.runs:
        for other in plan.after[name]:
            assert launcher.launched.index(other) < launcher.launched.index(name)
    assert outcome.finished == set(plan.runs)
    assert outcome.exit_code == 0
    assert launcher.closed
    assert "first · Quiet" in stream.getvalue()
    assert launcher.environments[0]["VILAU_CACHE"] == str((tmp_path / "runs/.data").resolve())


@pytest.mark.parametrize("line", ["health, step 7: it broke.", "precision: computed in 32-true"])
def test_what_a_user_should_see_of_a_run_is_repeated(
    shop: Workshop, tmp_path: Path, line: str
) -> None:
    said = f"Seed set to 0\n 3%\r{line}\n{line}\n"
    made, stream = engine(shop.plan(), tmp_path, FakeLauncher(said=said))
    made.run()
    assert stream.getvalue().count(f"  ! {line}") == len(made.plans[0].runs)


def test_a_second_start_trains_nothing(shop: Workshop, tmp_path: Path) -> None:
    engine(shop.plan(), tmp_path, FakeLauncher())[0].run()
    launcher = FakeLauncher()
    made, stream = engine(shop.plan(), tmp_path, launcher, check=["check"])
    (outcome,) = made.run()
    assert launcher.launched == []
    assert len(outcome.finished) == 6
    assert "6 finished, 0 to run" in stream.getvalue()


def test_fresh_trains_everything_anew(shop: Workshop, tmp_path: Path) -> None:
    engine(shop.plan(), tmp_path, FakeLauncher())[0].run()
    left = next((tmp_path / "runs/.store").glob("first-*")) / "model"
    left.mkdir()
    launcher = FakeLauncher()
    engine(shop.plan(), tmp_path, launcher, fresh=True)[0].run()
    assert len(launcher.launched) == 6
    assert not left.exists()


def test_what_is_left_of_a_fresh_start_that_was_cut_off_is_new(
    shop: Workshop, tmp_path: Path
) -> None:
    engine(shop.plan(), tmp_path, FakeLauncher())[0].run()
    made, _ = engine(shop.plan(), tmp_path, FakeLauncher({"second": 1}), fresh=True)
    made.run()
    launcher = FakeLauncher()
    engine(shop.plan(), tmp_path, launcher)[0].run()  # without --fresh: what the crash held back
    assert sorted({name.split("-")[0] for name in launcher.launched}) == ["evaluate", "second"]
    assert len(launcher.launched) == 4


def test_nothing_is_erased_for_studies_that_do_not_check(shop: Workshop, tmp_path: Path) -> None:
    engine(shop.plan(), tmp_path, FakeLauncher())[0].run()
    launcher = FakeLauncher({"check": 2})
    made, _ = engine(shop.plan(), tmp_path, launcher, fresh=True, check=["check"])
    with pytest.raises(VilauError, match="key x is wrong"):
        made.run()
    assert launcher.launched == ["check"]
    assert all(made.store.metrics(name) for name in made.plans[0].runs)


def test_a_fresh_start_leaves_what_another_process_trains(shop: Workshop, tmp_path: Path) -> None:
    engine(shop.plan(), tmp_path, FakeLauncher())[0].run()
    store = Store(tmp_path / "runs")
    theirs = next(iter(shop.plan().runs))
    launcher = FakeLauncher()
    made, _ = engine(shop.plan(), tmp_path, launcher, fresh=True)
    with run_lock(store.run_dir(theirs)):
        made._erase()
    assert store.metrics(theirs) is not None
    assert [store.metrics(name) for name in made.plans[0].runs].count(None) == 5


def test_runs_are_stopped_even_where_nobody_listens(shop: Workshop, tmp_path: Path) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    launcher = FakeLauncher({"first": None})
    made, _ = engine(shop.plan(), tmp_path, launcher, jobs=1)
    made.store.prepare()
    made._step()
    made.display = Display(Broken())
    made._stop()
    assert launcher.children[0].signals


def test_an_abort_behind_the_results_is_a_warning(shop: Workshop, tmp_path: Path) -> None:
    class Aborting(FakeLauncher):
        def launch(self, arguments, environment, log):
            child = super().launch(arguments, environment, log)
            child.code = -6
            return child

    made, stream = engine(shop.plan(), tmp_path, Aborting())
    (outcome,) = made.run()
    assert (len(outcome.finished), outcome.exit_code) == (6, 0)
    assert stream.getvalue().count("! ended with SIGABRT, after its results were written") == 6


def test_warnings_of_an_earlier_start_are_not_told_again(shop: Workshop, tmp_path: Path) -> None:
    engine(shop.plan(), tmp_path, FakeLauncher(said="health, step 7: it broke.\n"))[0].run()

    class Appending(FakeLauncher):
        def launch(self, arguments, environment, log):
            before = log.read_text()
            child = super().launch(arguments, environment, log)
            log.write_text(before + "health, step 9: again.\n")
            return child

    made, stream = engine(shop.plan(), tmp_path, Appending(), fresh=True)
    made.run()
    assert "it broke" not in stream.getvalue()
    assert stream.getvalue().count("again") == 6


def test_run_yaml_is_complete_and_says_how_to_run_it(shop: Workshop, tmp_path: Path) -> None:
    made, _ = engine(shop.plan(), tmp_path, FakeLauncher(), jobs=2)
    made.run()
    (plan,) = made.plans
    cell = plan.cell("noisy", 0, "second")
    assert cell is not None
    path = tmp_path / "runs/.store" / cell.run / "run.yaml"
    config = yaml.safe_load(path.read_text())
    first = plan.cell("noisy", 0, "first")
    assert first is not None
    product = tmp_path.resolve() / "runs/.store" / first.run / "model"
    assert config["model"]["init_args"]["checkpoint"] == str(product)
    assert config["trainer"]["accelerator"] == "cpu"
    assert config["threads"] >= 1
    assert f"vilau fit --config {path}" in path.read_text()


def test_threads_of_a_run_stay_those_of_its_first_start(shop: Workshop, tmp_path: Path) -> None:
    made, _ = engine(shop.plan(), tmp_path, FakeLauncher(), jobs=1)
    made.threads = 7
    made.run()
    run_dir = next((tmp_path / "runs/.store").glob("first-*"))
    (run_dir / "checkpoints").mkdir()
    (run_dir / "metrics.json").unlink()  # as if it had been cut off
    made, _ = engine(shop.plan(), tmp_path, FakeLauncher(), jobs=2)
    made.threads = 3
    made.run()
    assert yaml.safe_load((run_dir / "run.yaml").read_text())["threads"] == 7


def test_jobs_limit_what_runs_side_by_side(shop: Workshop, tmp_path: Path) -> None:
    launcher = FakeLauncher({"first": None})
    made, _ = engine(shop.plan(seeds=[0, 1]), tmp_path, launcher, jobs=3)
    made.store.prepare()
    made._step()
    assert len(launcher.launched) == 3


def test_a_gate_stops_later_stages(shop: Workshop, tmp_path: Path) -> None:
    launcher = FakeLauncher(accuracy=0.4)
    made, stream = engine(shop.plan(), tmp_path, launcher, jobs=1)
    (outcome,) = made.run()
    assert len(launcher.launched) == 1
    assert outcome.exit_code == 1
    sentence = (
        "first · Quiet: val/accuracy is 0.4, the gate asks for val/accuracy >= 0.5."
        " Below chance nothing can be compared."
    )
    assert outcome.gate == sentence
    assert stream.getvalue().count(sentence) == 1
    assert len(outcome.failed) == 5


def test_a_shut_gate_of_a_finished_run_stays_shut(shop: Workshop, tmp_path: Path) -> None:
    engine(shop.plan(), tmp_path, FakeLauncher(accuracy=0.4), jobs=1)[0].run()
    launcher = FakeLauncher()
    (outcome,) = engine(shop.plan(), tmp_path, launcher, jobs=1)[0].run()
    assert launcher.launched == []
    assert "the gate asks for" in outcome.gate


def test_a_gate_on_a_metric_that_was_not_logged(shop: Workshop, tmp_path: Path) -> None:
    shop.replace("gate: {val/accuracy", "gate: {val/acuracy")
    (outcome,) = engine(shop.plan(), tmp_path, FakeLauncher(), jobs=1)[0].run()
    assert "the gate val/acuracy >= 0.5 cannot be checked" in outcome.gate
    assert "val/accuracy" in outcome.gate


def test_a_crash_skips_what_needs_it_and_lets_the_rest_finish(
    shop: Workshop, tmp_path: Path
) -> None:
    launcher = FakeLauncher({"second": 1})
    made, stream = engine(shop.plan(), tmp_path, launcher)
    (outcome,) = made.run()
    assert outcome.exit_code == 1
    assert len([n for n in launcher.launched if n.startswith("first")]) == 2
    assert not [n for n in launcher.launched if n.startswith("evaluate")]
    reasons = sorted(outcome.failed.values())
    assert reasons[0].startswith("crashed (exit code 1), see ")
    assert reasons[-1].startswith("not run: second · ")
    assert "boom" in stream.getvalue()


def test_a_users_mistake_stops_everything(shop: Workshop, tmp_path: Path) -> None:
    launcher = FakeLauncher({"first": None, "second": 2})
    engine(shop.plan(only=["quiet"], until="first"), tmp_path, FakeLauncher())[0].run()
    made, _ = engine(shop.plan(), tmp_path, launcher, jobs=2)
    with pytest.raises(VilauError, match=r"^key x is wrong; write y\.$"):
        made.run()
    running = launcher.children[[n.split("-")[0] for n in launcher.launched].index("first")]
    assert signal.SIGTERM in running.signals
    assert launcher.closed


def test_the_check_runs_beside_and_stops_the_study(shop: Workshop, tmp_path: Path) -> None:
    launcher = FakeLauncher({"first": None, "check": 2})
    made, _ = engine(shop.plan(), tmp_path, launcher, check=["check", "x.yaml"])
    with pytest.raises(VilauError, match="key x is wrong"):
        made.run()
    assert launcher.launched[0] == "check"
    assert all(child.code is not None for child in launcher.children)


def test_another_engine_is_waited_for(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vilau.study.run._RETRY_BUSY_S", 0.0)
    plan = shop.plan(only=["quiet"], until="first")
    (name,) = plan.runs
    launcher = FakeLauncher()
    made, stream = engine(plan, tmp_path, launcher)
    made.store.prepare()
    run_dir = made.store.run_dir(name)
    with run_lock(run_dir):
        for _ in range(3):
            assert made._step()
        assert launcher.launched == []
        write_json(run_dir / "metrics.json", {"finished": True, "metrics": {"val/accuracy": 1}})
    (outcome,) = made.run()
    assert launcher.launched == []  # the other one finished it
    assert outcome.finished == {name}
    assert stream.getvalue().count("another process runs") == 1


def test_a_child_that_finds_the_run_taken_is_no_failure(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vilau.study.run._RETRY_BUSY_S", 0.0)
    plan = shop.plan(only=["quiet"], until="first")
    launcher = FakeLauncher({"first": 75})
    made, _ = engine(plan, tmp_path, launcher)
    made.store.prepare()
    made._step()
    made._step()
    launcher.codes = {}
    assert made.run()[0].exit_code == 0


def test_ctrl_c_stops_the_children(shop: Workshop, tmp_path: Path) -> None:
    launcher = FakeLauncher({"first": None})
    made, stream = engine(shop.plan(), tmp_path, launcher)
    step, calls = made._step, []

    def interrupted() -> bool:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return step()

    made._step = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        made.run()
    assert launcher.children
    assert all(signal.SIGTERM in child.signals for child in launcher.children)
    assert "each run ends its step and writes a checkpoint" in stream.getvalue()
    assert launcher.closed


def test_links_follow_the_plan(shop: Workshop, tmp_path: Path) -> None:
    made, _ = engine(shop.plan(), tmp_path, FakeLauncher())
    made.run()
    link_plan(made.plans[0], made.store)
    runs = tmp_path / "runs/toy"
    assert json.loads((runs / "quiet/first/metrics.json").read_text())["finished"]
    made, _ = engine(shop.plan(seeds=[0, 1]), tmp_path, FakeLauncher())
    made.run()
    link_plan(made.plans[0], made.store)
    assert (runs / "quiet/seed1/first/metrics.json").exists()
    assert not (runs / "quiet/first").exists()


@pytest.mark.parametrize(
    ("machine", "there", "message"),
    [
        ("gpu", 0, r"--machine gpu needs a GPU and PyTorch sees none here; use --machine cpu"),
        (
            "eight",
            2,
            r"--machine eight asks for 8 devices and PyTorch sees 2 here; use --machine gpu",
        ),
    ],
)
def test_a_machine_without_its_devices_is_refused(
    shop: Workshop, machine: str, there: int, message: str
) -> None:
    (shop.folder / "machines/eight.yaml").write_text("trainer: {accelerator: gpu, devices: 8}\n")
    with pytest.raises(ConfigError, match=message):
        need_devices(shop.plan(machine=machine), lambda: there)
    need_devices(shop.plan(machine=machine), lambda: 8)
    assert need_devices(shop.plan(), lambda: 0) == []


def test_cards_are_shared_out_to_runs_that_take_one(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = shop.plan(machine="gpu", seeds=[0, 1])
    assert need_devices(plan, lambda: 1) == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,7")
    cards = need_devices(plan, lambda: 3)
    assert cards == ["4", "6", "7"]
    launcher = FakeLauncher({"first": None})
    made, _ = engine(plan, tmp_path, launcher, cards=cards)
    made.store.prepare()
    made._step()
    assert [found["CUDA_VISIBLE_DEVICES"] for found in launcher.environments] == cards
    assert made.jobs == 3
    assert "OMP_NUM_THREADS" not in launcher.environments[0]


def test_status_lines() -> None:
    status = {"phase": "train", "step": 30, "max_steps": 120, "loss": 0.25, "steps_per_second": 3.0}
    line = line_of(Running("tower · Recon.", 0.0, status), 65.0)
    assert "30/120" in line
    assert "loss 0.25" in line
    assert "0:30 left" in line
    assert line.endswith("1:05")
    assert "starting" in line_of(Running("tower", 0.0, None), 1.0)
    assert clock(3725) == "1:02:05"


def test_plain_lines_where_nobody_watches() -> None:
    stream = io.StringIO()
    display = Display(stream, every_s=0.05)
    item = Running("tower", time.monotonic(), None)
    display.show([item], 0, 1)
    assert stream.getvalue() == ""
    time.sleep(0.06)
    display.show([item], 0, 1)
    display.show([item], 0, 1)
    assert stream.getvalue().count("tower") == 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_are_redrawn_on_a_terminal() -> None:
    stream = Terminal()
    display = Display(stream)
    display.show([Running("tower", time.monotonic(), None)], 0, 2)
    display.say("done")
    assert "0 of 2 runs finished" in stream.getvalue()
    assert "\x1b[2F\x1b[J" in stream.getvalue()
    assert stream.getvalue().endswith("done\n")
