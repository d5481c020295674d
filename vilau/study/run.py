"""Run a plan: independent runs side by side, one process each, finished ones kept, cut ones resumed.

What happens when something goes wrong:

* a mistake of the user's (exit code 2) stops everything at once, because it would come again;
* a crash lets runs that do not need the crashed one go on, and skips those that do;
* a gate whose condition fails lets running stages end and starts no further one;
* Ctrl-C or SIGTERM stops all children (they write a checkpoint first) and says how to go on.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import yaml

from vilau.errors import VilauError
from vilau.study.display import Display, Running, clock
from vilau.study.environment import available_cores
from vilau.study.outcome import Outcome, gate_sentence, run_title
from vilau.study.plan import Plan, Run, run_config
from vilau.study.processes import Child, Launcher, Spawner, stop_all
from vilau.study.store import Store, erase, read_json, run_lock, write_atomic

BUSY = 75
_POLL_S = 0.1
_RETRY_BUSY_S = 2.0
_TOLD = ("health, step ", "precision: ")
"""How lines of a run's log begin that its user should see: of the callback ``Health``, of ``vilau.study.precision``."""


@dataclass
class _Job:
    run: Run
    child: Child
    started_s: float
    card: str | None = None


class Engine:
    """Bring every run of a plan to its end.

    Args:
        plan: what to run.
        store: where the runs live.
        jobs: how many processes side by side; None: one per core or card, as many as the plan can
            use.
        fresh: erase finished and half-finished runs of the plan and train them anew.
        display: where progress is shown.
        launcher: how processes are started.
        cards: ids of the graphics cards to share out, where every run takes one.
        check: arguments of ``vilau`` that check the whole study; run beside the first stages, so
            that a mistake in the last stage shows in seconds and not after hours.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        *,
        jobs: int | None = None,
        fresh: bool = False,
        display: Display | None = None,
        launcher: Launcher | None = None,
        cards: Sequence[str] = (),
        check: list[str] | None = None,
    ) -> None:
        self.plan, self.store, self.fresh = plan, store, fresh
        on_cpu = plan.trainer.get("accelerator") == "cpu"
        cores = available_cores()
        # One core per run whatever the plan's width: numbers must not change with ``--only``. A
        # graphics card is not shared unless the user says so.
        self.jobs = jobs or (cores if on_cpu else min(max(1, len(cards)), plan.width()))
        self.cards = list(cards)
        self.threads = max(1, cores // self.jobs) if on_cpu else None
        self.display = display or Display()
        self.launcher = launcher or Spawner()
        self.outcome = Outcome()
        self._check_arguments = check
        self._check: Child | None = None
        self._jobs: dict[str, _Job] = {}
        self._busy_until_s: dict[str, float] = {}

    def run(self) -> Outcome:
        """Run everything that is not finished yet.

        Raises:
            KeyboardInterrupt: the user stopped it; all children are gone by then.
            VilauError: a mistake of the user's, told by a child or found before any was started.
        """
        self.store.prepare()
        todo = [name for name in self.plan.runs if self._settle(name) is None]
        self._say_plan(todo)
        if not todo:
            return self.outcome
        previous = signal.signal(signal.SIGTERM, _as_interrupt)
        try:
            self._start_check()
            while self._step():
                time.sleep(_POLL_S)
        finally:
            try:
                self._stop()
            finally:
                signal.signal(signal.SIGTERM, previous)
                self.launcher.close()
        return self.outcome

    def _stop(self) -> None:
        if self._jobs:
            self.display.say(
                "Stopping: each run ends its step and writes a checkpoint; Ctrl-C once more ends it at once."
            )
        stop_all([job.child for job in self._jobs.values()] + self._checks())

    def _step(self) -> bool:
        """Do what can be done now; return False when all is over."""
        for name, job in list(self._jobs.items()):
            code = job.child.poll()
            if code is not None:
                del self._jobs[name]
                self._ended(job, code)
        self._look_at_check()
        waiting = [name for name in self.plan.runs if self._settle(name) is None]
        for name in waiting:
            if name not in self._jobs and self._ready(name):
                self._start(self.plan.runs[name])
        self.display.show(
            [
                Running(self.title(name), job.started_s, read_json(self._file(name, "status.json")))
                for name, job in self._jobs.items()
            ],
            len(self.outcome.finished),
            len(self.plan.runs),
        )
        return bool(self._jobs) or any(name not in self._jobs for name in waiting)

    # ------------------------------------------------------------------ before a run

    def _settle(self, name: str) -> str | None:
        """Return ``finished`` or ``failed`` for a run that needs nothing more, else None."""
        if name in self.outcome.finished:
            return "finished"
        if name in self.outcome.failed:
            return "failed"
        if name in self._jobs:
            return None
        metrics = self.store.metrics(name)
        if metrics is not None and (not self.fresh or name in self.outcome.trained):
            self._finished(name)
            return "finished"
        lost = [other for other in self.plan.after[name] if other in self.outcome.failed]
        if lost or self.outcome.gate:
            because = self.outcome.gate or f"{self.title(lost[0])} has no result"
            self.outcome.failed[name] = f"not run: {because}"
            return "failed"
        return None

    def _ready(self, name: str) -> bool:
        return (
            len(self._jobs) < self.jobs
            and self.plan.after[name] <= self.outcome.finished
            and time.monotonic() >= self._busy_until_s.get(name, 0.0)
        )

    def _start(self, run: Run) -> None:
        """Write ``run.yaml`` and start the process, unless someone else is at the same run."""
        run_dir = self.store.run_dir(run.name)
        with run_lock(run_dir) as mine:
            if not mine:
                self._wait_for_other(run.name)
                return
            if self.fresh and run.name not in self.outcome.trained:
                erase(run_dir)
            threads = self._threads(run_dir)
            self._write_config(run, run_dir, threads)
        (run_dir / "status.json").unlink(missing_ok=True)
        environment = {"VILAU_CACHE": str(self.store.data_dir()), "TOKENIZERS_PARALLELISM": "false"}
        if threads is not None:
            # PyTorch takes its threads from run.yaml; numpy must not add some of its own.
            environment["OMP_NUM_THREADS"] = "1"
        card = self._free_card()
        if card is not None:
            environment["CUDA_VISIBLE_DEVICES"] = card
        child = self.launcher.launch(
            [run.stage.command, "--config", str(run_dir / "run.yaml")],
            environment,
            run_dir / "log.txt",
        )
        self._jobs[run.name] = _Job(run, child, time.monotonic(), card)
        self.outcome.trained.add(run.name)
        self.display.say(f"▸ {self.title(run.name)}  ({run.name})")

    def _free_card(self) -> str | None:
        """Return the card that fewest running stages use; None where cards are not shared out."""
        used = [job.card for job in self._jobs.values()]
        return min(self.cards, key=used.count) if self.cards else None

    def _threads(self, run_dir: Path) -> int | None:
        """Return the threads to use: those of the first start, for a resumed run to compute alike."""
        if self.threads is None:
            return None
        try:
            before = yaml.safe_load((run_dir / "run.yaml").read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError):
            return self.threads
        has_started = (run_dir / "checkpoints").exists()
        found = before.get("threads") if has_started and isinstance(before, dict) else None
        return found if isinstance(found, int) else self.threads

    def _write_config(self, run: Run, run_dir: Path, threads: int | None) -> None:
        products = {name: str(self.store.product(name)) for name in run.inputs.values()}
        config = run_config(self.plan, run, products, threads=threads)
        path = run_dir / "run.yaml"
        head = (
            f"# Stage {run.stage.name} of study {self.plan.study.name}, seed {run.seed},"
            f" scale {self.plan.scale}. Run it alone:\n"
            f"#   vilau {run.stage.command} --config {path}\n"
        )
        body = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        write_atomic(path, head + body)

    def _wait_for_other(self, name: str) -> None:
        if name not in self._busy_until_s:
            self.display.say(f"… {self.title(name)}: another process runs {name}; waiting for it.")
        self._busy_until_s[name] = time.monotonic() + _RETRY_BUSY_S

    # ------------------------------------------------------------------ after a run

    def _ended(self, job: _Job, code: int) -> None:
        name = job.run.name
        if code == 0 and self.store.metrics(name) is not None:
            seconds = time.monotonic() - job.started_s
            self.display.say(f"✓ {self.title(name)}  {clock(seconds)}")
            for warning in _warnings(self.store.run_dir(name) / "log.txt"):
                self.display.say(f"  ! {warning}")
            self._finished(name)
        elif code == BUSY:
            self.outcome.trained.discard(name)
            self._wait_for_other(name)
        elif code == 2:
            self._checked_first()
            raise VilauError(job.child.output.error() or f"{self.title(name)} ended with code 2.")
        else:
            log = self._file(name, "log.txt")
            last = "\n    ".join(line for line in job.child.output.tail()[-12:] if line.strip())
            self.display.say(f"✗ {self.title(name)} crashed ({_how(code)}):\n    {last}\n  {log}")
            self.outcome.failed[name] = f"crashed ({_how(code)}), see {log}"
            self.outcome.exit_code = 1

    def _finished(self, name: str) -> None:
        self.outcome.finished.add(name)
        for gate in self.plan.gates(name):
            sentence = gate_sentence(gate, self.title(name), self.store.metrics(name) or {})
            if sentence and not self.outcome.gate:
                self.display.say(f"✗ {sentence}")
                self.outcome.gate = sentence
                self.outcome.exit_code = 1

    # ------------------------------------------------------------------ the check beside

    def _start_check(self) -> None:
        if self._check_arguments:
            log = self.store.root / ".store" / "check.log"
            log.unlink(missing_ok=True)
            environment = {"OMP_NUM_THREADS": "1"}
            self._check = self.launcher.launch(self._check_arguments, environment, log)

    def _checks(self) -> list[Child]:
        return [self._check] if self._check else []

    def _look_at_check(self) -> None:
        if self._check is None or (code := self._check.poll()) is None:
            return
        check, self._check = self._check, None
        if code == 2:
            raise VilauError(check.output.error() or "the study does not check.")
        if code:
            last = "\n    ".join(check.output.tail()[-12:])
            self.display.say(f"✗ the check of the study crashed ({_how(code)}):\n    {last}")

    def _checked_first(self) -> None:
        """Wait for the check: where a stage fails at once, it knows which line to blame."""
        while self._check is not None:
            self._look_at_check()
            time.sleep(_POLL_S)

    # ------------------------------------------------------------------ words

    def title(self, name: str) -> str:
        """Return ``stage · variants · seed`` of a run, for people."""
        return run_title(self.plan, name)

    def _file(self, name: str, file: str) -> Path:
        return self.store.run_dir(name) / file

    def _say_plan(self, todo: list[str]) -> None:
        plan = self.plan
        total = len(plan.runs)
        kept = total - len(todo)
        how = f"{self.jobs} at a time" if len(todo) > 1 else ""
        how += f", {self.threads} thread(s) each" if how and self.threads else ""
        self.display.say(
            f"{plan.study.name} · scale {plan.scale} · machine {plan.options.machine} ·"
            f" {total} runs, {kept} finished, {len(todo)} to run{': ' + how if how else ''}"
        )


def _warnings(log: Path) -> list[str]:
    """What a run's user should see of its log, each line once."""
    if not log.exists():
        return []
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return list(dict.fromkeys(line for line in lines if line.startswith(_TOLD)))


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    if -code == signal.SIGKILL:
        return "SIGKILL: somebody killed it, or the system ran out of memory"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    sys.stderr.flush()
    raise KeyboardInterrupt
