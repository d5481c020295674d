"""One whole study in real processes: killed in the middle, resumed, and bit for bit the same."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.study.conftest import Workshop
from tests.study.toys import stage_numbers
from vilau.study.forge import Forge
from vilau.study.run import Engine
from vilau.study.store import Store

REPO = Path(__file__).parents[2]


def run_engine(shop: Workshop, runs: Path, forge: Forge, **options: object) -> Engine:
    class Kept(Forge):
        """The shared launcher, which a finished engine must not close."""

        def __init__(self) -> None:
            self.launch = forge.launch  # type: ignore[method-assign]

        def close(self) -> None:
            pass

    engine = Engine(shop.plan(**options), Store(runs), launcher=Kept(), jobs=2)
    engine.threads = 1
    engine.run()
    return engine


@pytest.mark.parametrize("place", ["train:13", "validate:20", "export"])
def test_a_killed_run_resumes_to_the_same_bits(
    shop: Workshop, tmp_path: Path, forge: Forge, place: str, plain: dict[str, object]
) -> None:
    marker = tmp_path / "killed"
    options = {
        "only": ["quiet"],
        "overrides": [
            f"first.model.exit_at={place}@{marker}",
            "first.checkpoint_every_n_steps=5",
        ],
    }
    first = run_engine(shop, tmp_path / "runs", forge, **options)
    assert marker.exists()
    assert first.outcome.exit_code == 1
    assert "SIGKILL" in next(iter(first.outcome.failed.values()))
    again = run_engine(shop, tmp_path / "runs", forge, **options)
    assert again.outcome.exit_code == 0
    assert numbers(again) == plain


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, forge: Forge) -> dict[str, object]:
    """The numbers of the same study, never interrupted."""
    folder = tmp_path_factory.mktemp("plain")
    shop = Workshop(folder / "studies")
    engine = run_engine(shop, folder / "runs", forge, only=["quiet"])
    assert engine.outcome.exit_code == 0
    return numbers(engine)


def numbers(engine: Engine) -> dict[str, object]:
    return {
        run.stage.name: stage_numbers(engine.store.run_dir(name))
        for name, run in engine.plan.runs.items()
    }


def test_the_command_line_from_start_to_report(shop: Workshop, tmp_path: Path) -> None:
    """Kill the engine itself while stages train; nothing survives it, and the next start goes on."""
    runs = tmp_path / "runs"
    slow = ["--set", "first.model.step_s=0.2", "first.checkpoint_every_n_steps=4"]
    command = [sys.executable, "-m", "vilau", "run", str(shop.path), "--runs", str(runs), *slow]
    engine = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=REPO)
    store = runs / ".store"
    wait_for(lambda: any(store.glob("first-*/checkpoints/step=*.ckpt")), engine)
    engine.kill()
    engine.communicate()
    wait_for(lambda: not processes_with(str(runs)))
    assert not list(store.glob("*/metrics.json"))

    engine = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=REPO, text=True
    )
    wait_for(lambda: any(store.glob("second-*/run.yaml")), engine)
    engine.send_signal(signal.SIGINT)
    out, _ = engine.communicate(timeout=60)
    assert engine.returncode == 130, out
    assert "stopped; the same command goes on from here." in out
    wait_for(lambda: not processes_with(str(runs)))

    done = subprocess.run(command, capture_output=True, text=True, cwd=REPO)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resuming from step=" in "".join(p.read_text() for p in store.glob("first-*/log.txt"))
    assert "✓ both beat chance" in done.stdout
    report = runs / "toy/report"
    assert json.loads((report / "results.json").read_text())["complete"] is True
    assert "val/reconstructions" in (report / "index.html").read_text()
    assert (runs / "toy/noisy/evaluate/metrics.json").exists()

    started_s = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPO)
    assert "6 finished, 0 to run" in done.stdout
    assert time.perf_counter() - started_s < 15


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
