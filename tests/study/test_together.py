"""Several studies in one engine: what they share runs once, and one's trouble is not another's."""

import io
import shutil
from glob import glob
from pathlib import Path

import pytest

from tests.study.conftest import Workshop
from tests.study.fakes import FakeLauncher
from vilau.cli import main
from vilau.errors import ConfigError
from vilau.study.display import Display
from vilau.study.load import load_study
from vilau.study.outcome import Outcome
from vilau.study.plan import Options, Plan, joined, make_plan
from vilau.study.run import Engine
from vilau.study.session import plans_of, plans_text, run_studies
from vilau.study.store import Store, is_running, run_lock


def second_study(shop: Workshop, **changes: str) -> Path:
    """Write ``other.yaml``: the toy study under another name, with texts replaced."""
    text = shop.path.read_text().replace("study: toy", "study: other")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path = shop.folder / "other.yaml"
    path.write_text(text)
    return path


def plan_of(path: Path, **options: object) -> Plan:
    return make_plan(load_study(path), Options(**options))  # type: ignore[arg-type]


def together(
    plans: list[Plan], tmp_path: Path, launcher: FakeLauncher, **options: object
) -> tuple[Engine, list[int], io.StringIO]:
    """Return an engine, the places of plans in the order of their ends, and what is said."""
    ends: list[int] = []

    def ended(place: int, outcome: Outcome) -> None:
        ends.append(place)
        assert {*outcome.finished, *outcome.failed} == set(plans[place].runs)

    stream = io.StringIO()
    engine = Engine(
        plans,
        Store(tmp_path / "runs"),
        launcher=launcher,
        display=Display(stream),
        on_end=ended,
        **options,  # type: ignore[arg-type]
    )
    return engine, ends, stream


def test_what_studies_share_runs_once(shop: Workshop, tmp_path: Path) -> None:
    plans = [shop.plan(only=["quiet"]), plan_of(second_study(shop))]
    assert len(set(plans[0].runs) & set(plans[1].runs)) == 3
    launcher = FakeLauncher()
    engine, ends, stream = together(plans, tmp_path, launcher, jobs=1, fresh=True)
    outcomes = engine.run()
    assert sorted(launcher.launched) == sorted(plans[1].runs)
    assert [outcome.finished for outcome in outcomes] == [set(plan.runs) for plan in plans]
    assert ends == [0, 1]
    assert stream.getvalue().count("▸") == 6


def test_the_next_study_takes_the_cores_that_a_chain_leaves(shop: Workshop, tmp_path: Path) -> None:
    plans = [shop.plan(only=["quiet"]), plan_of(second_study(shop), only=["noisy"])]
    launcher = FakeLauncher({"first": None})
    engine, _, _ = together(plans, tmp_path, launcher, jobs=2)
    engine.store.prepare()
    assert engine._step()
    assert launcher.launched == [next(iter(plan.runs)) for plan in plans]


def test_a_study_that_is_over_ends_before_the_others(shop: Workshop, tmp_path: Path) -> None:
    plans = [shop.plan(), plan_of(second_study(shop), only=["quiet"], until="first")]
    engine, ends, _ = together(plans, tmp_path, FakeLauncher(), jobs=1)
    engine.run()
    assert ends == [1, 0]


def test_a_shut_gate_stops_its_own_study_alone(shop: Workshop, tmp_path: Path) -> None:
    gate = 'gate: {val/accuracy: ">= 0.5", says: "Below chance nothing can be compared."}'
    plans = [shop.plan(), plan_of(second_study(shop, **{gate: ""}))]
    launcher = FakeLauncher(accuracy=0.4)
    engine, ends, stream = together(plans, tmp_path, launcher, jobs=1)
    stopped, through = engine.run()
    assert (stopped.exit_code, through.exit_code) == (1, 0)
    assert through.finished == set(plans[1].runs)
    assert len(stopped.failed) == 5
    assert all(why.startswith("not run: first · Quiet") for why in stopped.failed.values())
    assert sorted(ends) == [0, 1]
    assert stream.getvalue().count("the gate asks for") == 1


def test_a_gate_that_two_studies_have_is_told_once(shop: Workshop, tmp_path: Path) -> None:
    plans = [shop.plan(), plan_of(second_study(shop))]
    engine, _, stream = together(plans, tmp_path, FakeLauncher(accuracy=0.4), jobs=1)
    assert [outcome.exit_code for outcome in engine.run()] == [1, 1]
    assert stream.getvalue().count("the gate asks for") == 1


def test_a_crash_is_every_study_s_that_needs_the_run(shop: Workshop, tmp_path: Path) -> None:
    plans = [shop.plan(only=["quiet"]), plan_of(second_study(shop), only=["noisy"], seeds=[0, 1])]
    shared = plan_of(second_study(shop), only=["quiet"], seeds=[0, 1])
    engine, _, stream = together([*plans, shared], tmp_path, FakeLauncher({"second": 1}))
    outcomes = engine.run()
    assert [len(outcome.failed) for outcome in outcomes] == [2, 4, 4]
    assert [outcome.exit_code for outcome in outcomes] == [1, 1, 1]
    assert stream.getvalue().count("crashed (exit code 1)") == 4  # each run is told of once


def test_what_the_end_of_a_study_raises_is_not_the_others(shop: Workshop, tmp_path: Path) -> None:
    plans = [shop.plan(only=["quiet"]), plan_of(second_study(shop), only=["noisy"])]
    launcher, stream, told = FakeLauncher(), io.StringIO(), list[int]()

    def ended(place: int, outcome: Outcome) -> None:
        told.append(place)
        if place == 0:
            raise ConfigError("runs/toy/quiet is in the way; move it elsewhere.")

    engine = Engine(
        plans, Store(tmp_path / "runs"), launcher=launcher, display=Display(stream), jobs=1, on_end=ended
    )  # fmt: skip
    with pytest.raises(ConfigError, match="in the way"):
        engine.run()
    assert told == [0, 1]
    assert len(launcher.launched) == 6
    assert "✗ toy: runs/toy/quiet is in the way" in stream.getvalue()
    assert not any(child.signals for child in launcher.children)


def test_plans_with_unlike_gates_are_counted_together(shop: Workshop) -> None:
    """A gate of one study holds nothing of another back, in whatever order they are named."""
    gate = 'gate: {val/accuracy: ">= 0.5", says: "Below chance nothing can be compared."}'
    plans = [shop.plan(), plan_of(second_study(shop, **{gate: ""}))]
    for order in (plans, plans[::-1]):
        whole = joined(order)
        assert set(whole.runs) == set(plans[0].runs)
        for name, before in whole.after.items():
            assert before == plans[1].after[name] <= plans[0].after[name]
            assert before >= set(whole.runs[name].inputs.values())


def test_all_shipped_studies_are_counted_together() -> None:
    paths = sorted(glob("experiments/*.yaml"))
    for order in (paths, paths[::-1]):
        assert "together: " in plans_text(order, Options())


def test_a_study_is_taken_once_however_it_is_spelt(shop: Workshop, tmp_path: Path) -> None:
    same = [str(shop.path), f"{shop.folder}/./{shop.path.name}"]
    assert list(plans_of(same, Options())) == same[:1]
    copy = shutil.copytree(shop.folder, tmp_path / "copy") / "toy.yaml"
    with pytest.raises(
        ConfigError, match=r"toy.yaml and .*copy/toy.yaml are both called `toy`; write"
    ):
        plans_of([str(shop.path), str(copy)], Options())


def test_options_name_the_study_that_lacks_them(shop: Workshop) -> None:
    text = second_study(shop).read_text().replace("noisy:", "loud:").replace("noisy", "loud")
    other = shop.folder / "other.yaml"
    other.write_text(text)
    paths = [str(shop.path), str(other)]
    with pytest.raises(ConfigError, match=r"other.yaml: --only noisy: there is no variant"):
        plans_of(paths, Options(only=["noisy"]))
    with pytest.raises(ConfigError, match=r"^--only noisy: there is no variant"):
        plans_of(paths[1:], Options(only=["noisy"]))


def test_machines_that_differ_are_refused(shop: Workshop, tmp_path: Path) -> None:
    there = tmp_path / "there"
    shutil.copytree(shop.folder, there)
    for path in there.rglob("cpu.yaml"):
        path.write_text("trainer: {accelerator: cpu, devices: 2}\n")
    other = there / shop.path.name
    other.write_text(other.read_text().replace("study: toy", "study: other"))
    with pytest.raises(ConfigError, match=r"machine files `cpu.yaml` that differ; run them one"):
        run_studies([str(shop.path), str(other)], Options(), runs=str(tmp_path / "runs"))


def test_two_files_on_the_command_line(
    shop: Workshop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    launcher = FakeLauncher()
    monkeypatch.setattr("vilau.study.session.Forge", lambda modules, say: launcher)
    paths = [str(shop.path), str(second_study(shop)), str(shop.path)]
    runs = tmp_path / "runs"
    assert run_studies(paths, Options(), runs=str(runs)) == 0
    assert sorted(set(launcher.launched)) == sorted(
        launcher.launched
    )  # a file named twice counts once
    assert launcher.launched.count("check") == 1
    said = capsys.readouterr().out
    for name in ("toy", "other"):
        assert said.count(f"{runs / name / 'report' / 'index.html'}") == 1
        assert (runs / name / "quiet/first/metrics.json").exists()


def test_the_plans_of_several_studies_add_up(shop: Workshop, tmp_path: Path) -> None:
    paths = [str(shop.path), str(second_study(shop))]
    text = plans_text(paths, Options(), runs=str(tmp_path / "runs"))
    assert text.count("6 to run") == 3
    assert "together: 6 different runs, 0 finished, 6 to run" in text
    assert "together" not in plans_text(paths[:1], Options(), runs=str(tmp_path / "runs"))


def test_studies_may_stand_behind_options(
    shop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = str(shop.path), str(second_study(shop))
    assert main(["plan", first, "--runs", str(tmp_path / "runs"), second]) == 0
    assert "together: 6 different runs" in capsys.readouterr().out


def test_links_of_variants_that_were_left_out_stay(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vilau.study.session.Forge", lambda modules, say: FakeLauncher())
    runs = tmp_path / "runs"
    for only in ((), ("quiet",)):
        assert run_studies([str(shop.path)], Options(only=only), runs=str(runs)) == 0
    assert (runs / "toy/noisy/first/metrics.json").exists()


def test_a_plan_of_somebody_else_s_store_writes_nothing(shop: Workshop, tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    folder = store.run_dir(next(iter(shop.plan().runs)))
    folder.mkdir(parents=True)
    assert "6 to run" in plans_text([str(shop.path)], Options(), runs=str(store.root))
    assert list(folder.iterdir()) == []
    with run_lock(folder):
        assert "running, at ?" in plans_text([str(shop.path)], Options(), runs=str(store.root))
        assert is_running(folder)
    assert not is_running(folder)
