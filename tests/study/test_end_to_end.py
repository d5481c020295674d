"""One whole study in real processes: killed in the middle, resumed, and bit for bit the same."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.study.conftest import Workshop
from tests.study.toys import stage_numbers
from vilau.study.forge import Forge
from vilau.study.plan import Plan, run_config
from vilau.study.run import Engine
from vilau.study.stage import run_stage
from vilau.study.store import Store

REPO = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The numbers of the quiet variant, run in this process and never interrupted."""
    folder = tmp_path_factory.mktemp("plain")
    plan = Workshop(folder / "studies").plan(only=["quiet"])
    store = Store(folder / "runs")
    products: dict[str, str] = {}
    for name, run in plan.runs.items():
        run_dir = store.run_dir(name)
        run_dir.mkdir(parents=True)
        config = run_config(plan, run, products, threads=1)
        (run_dir / "run.yaml").write_text(yaml.safe_dump(config))
        assert run_stage(run.stage.command, str(run_dir / "run.yaml")) == 0
        products[name] = str(store.product(name))
    return numbers(plan, store)


def numbers(plan: Plan, store: Store) -> dict[str, object]:
    return {run.stage.name: stage_numbers(store.run_dir(name)) for name, run in plan.runs.items()}


SLOW = ["--set", "first.model.step_s=0.2", "first.checkpoint_every_n_steps=4"]


def start(shop: Workshop, runs: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "vilau", "run", str(shop.path), "--runs", str(runs), *SLOW]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=REPO,
        text=True,
        # Where the tests run in the background the signal is ignored, and a child would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_kill_the_engine_start_again_and_read_the_report(
    shop: Workshop, tmp_path: Path, plain: dict[str, object]
) -> None:
    runs = tmp_path / "runs"
    store = runs / ".store"
    engine = start(shop, runs)
    wait_for(lambda: any(store.glob("first-*/checkpoints/step=*.ckpt")), engine)
    engine.kill()
    engine.communicate()
    wait_for(lambda: not processes_with(str(runs)))  # nothing outlives the engine
    assert not list(store.glob("*/metrics.json"))

    engine = start(shop, runs)
    out, _ = engine.communicate(timeout=300)
    assert engine.returncode == 0, out
    assert "resuming from step=" in "".join(p.read_text() for p in store.glob("first-*/log.txt"))
    assert "✓ both beat chance" in out
    plan = shop.plan(only=["quiet"], overrides=SLOW[1:])
    assert numbers(plan, Store(runs)) == plain
    report = runs / "toy/report"
    assert json.loads((report / "results.json").read_text())["complete"] is True
    assert "val/reconstructions" in (report / "index.html").read_text()
    assert (runs / "toy/noisy/evaluate/metrics.json").exists()

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out, _ = start(shop, runs).communicate(timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "6 finished, 0 to run" in out
    # Seconds of the processor: the promise is 15 by the clock, on a machine with nothing else to do.
    assert after.ru_utime - before.ru_utime < 3


@pytest.mark.slow
def test_ctrl_c_ends_the_children_and_says_how_to_go_on(shop: Workshop, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    engine = start(shop, runs)
    wait_for(lambda: any(runs.glob(".store/first-*/checkpoints/step=*.ckpt")), engine)
    engine.send_signal(signal.SIGINT)
    out, _ = engine.communicate(timeout=60)
    assert engine.returncode == 130, out
    assert "stopped; the same command goes on from here." in out
    assert "Traceback" not in out
    wait_for(lambda: not processes_with(str(runs)))


@pytest.mark.slow
@pytest.mark.parametrize("place", ["train:3", "train:13", "validate:20", "export"])
def test_a_stage_killed_anywhere_resumes_to_the_same_bits(
    shop: Workshop, tmp_path: Path, forge: Forge, place: str, plain: dict[str, object]
) -> None:
    marker = tmp_path / "killed"
    plan = shop.plan(
        only=["quiet"],
        overrides=[
            f"first.model.exit_at={place}@{marker}",
            "first.checkpoint_every_n_steps=5",
        ],
    )
    codes = []
    for _ in range(2):
        engine = Engine([plan], Store(tmp_path / "runs"), launcher=Unclosed(forge), jobs=2)
        engine.threads = 1
        codes.append(engine.run()[0].exit_code)
    assert marker.exists()
    assert codes == [1, 0]
    assert numbers(plan, engine.store) == plain


class Unclosed:
    """The shared launcher, which a finished engine must not close."""

    def __init__(self, forge: Forge) -> None:
        self.launch = forge.launch

    def close(self) -> None:
        pass


def wait_for(condition, engine: subprocess.Popen | None = None, seconds: float = 120) -> None:  # type: ignore[no-untyped-def,type-arg]
    deadline_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline_s
        assert engine is None or engine.poll() is None, engine.communicate()[0]
        time.sleep(0.05)


def processes_with(text: str) -> list[int]:
    """Return living processes whose command line or environment names ``text``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                content = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
            except OSError:
                continue
            if text.encode() in content and state != "Z":
                found.append(int(entry.name))
    return found
