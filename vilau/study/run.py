"""Run plans: independent runs side by side, one process each, finished ones kept, cut ones resumed.

Several studies are run together: a run that they share is trained once, and while one study has but a chain of
stages to go through, the runs of the next take the other cores.

What happens when something goes wrong:

* a mistake of the user's (exit code 2) stops everything at once, because it would come again;
* a crash lets runs that do not need the crashed one go on, and skips those that do;
* a gate whose condition fails lets running stages end and starts no further one of its study;
* Ctrl-C or SIGTERM stops all children (they write a checkpoint first) and says how to go on.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

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
    told: int = 0
    """Bytes that its log held before, of an earlier start."""


class Engine:
    """Bring every run of some plans to its end.

    Args:
        plans: what to run, one for each study; where not all can go at once, the first comes first.
        store: where the runs live.
        jobs: how many processes side by side; None: one per core or card, as many as the plans can
            use.
        fresh: once the studies check, erase finished and half-finished runs of the plans and train them anew; one
            that another process is at counts as new.
        display: where progress is shown.
        launcher: how processes are started.
        cards: ids of the graphics cards to share out, where every run takes one.
        check: arguments of ``vilau`` that check the whole studies; run beside the first stages, so
            that a mistake in the last stage shows in seconds and not after hours.
        on_end: called once for each plan, with its place among the plans and what came of it, as soon as nothing
            more will be run for it.
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        store: Store,
        *,
        jobs: int | None = None,
        fresh: bool = False,
        display: Display | None = None,
        launcher: Launcher | None = None,
        cards: Sequence[str] = (),
        check: list[str] | None = None,
        on_end: Callable[[int, Outcome], None] = lambda index, outcome: None,
    ) -> None:
        self.plans, self.store, self.fresh = list(plans), store, fresh
        on_cpu = self.plans[0].trainer.get("accelerator") == "cpu"
        cores = available_cores()
        # One core per run however many there are: numbers must not change with ``--only``. A
        # graphics card is not shared unless the user says so.
        self.jobs = jobs or (cores if on_cpu else max(1, len(cards)))
        self.cards = list(cards)
        self.threads = max(1, cores // self.jobs) if on_cpu else None
        self.display = display or Display()
        self.launcher = launcher or Spawner()
        self.outcomes = [Outcome() for _ in self.plans]
        self._on_end, self._told_of = on_end, set[int]()
        self._troubles: list[Exception] = []
        self._check_arguments = check
        self._check: Child | None = None
        self._jobs: dict[str, _Job] = {}
        self._busy_until_s: dict[str, float] = {}

    def run(self) -> list[Outcome]:
        """Run everything that is not finished yet; return what came of each plan, in their order.

        Raises:
            KeyboardInterrupt: the user stopped it; all children are gone by then.
            VilauError: a mistake of the user's, told by a child or found before any was started.
            Exception: what ``on_end`` raised for a plan, once all of them are over.
        """
        self.store.prepare()
        previous = signal.signal(signal.SIGTERM, _as_interrupt)
        try:
            if self.fresh:
                self._start_check()
                self._checked_first()
                self._erase()
            for plan, todo in zip(self.plans, self._open(), strict=True):
                self._say_plan(plan, len(todo))
            if any(self._open()) and not self.fresh:
                self._start_check()
            while self._step():
                time.sleep(_POLL_S)
        finally:
            try:
                self._stop()
            finally:
                signal.signal(signal.SIGTERM, previous)
                self.launcher.close()
        if self._troubles:
            raise self._troubles[0]
        return self.outcomes

    def _erase(self) -> None:
        """Empty all runs at once: one that is left for later would count as finished if this were cut off."""
        for name in set[str]().union(*(plan.runs for plan in self.plans)):
            run_dir = self.store.run_dir(name)
            if not run_dir.exists():
                continue
            with run_lock(run_dir) as mine:
                if mine:
                    erase(run_dir)

    def _stop(self) -> None:
        if self._jobs:
            with contextlib.suppress(
                OSError
            ):  # `| tee` is gone by Ctrl-C as well, and what runs must still be told
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
        waiting = self._open()
        for place, names in enumerate(waiting):
            for name in names:
                if name not in self._jobs and self._ready(place, name):
                    self._start(self.plans[place], self.plans[place].runs[name])
        self.display.show(
            [
                Running(self.title(name), job.started_s, read_json(self._file(name, "status.json")))
                for name, job in self._jobs.items()
            ],
            len(set[str]().union(*(outcome.finished for outcome in self.outcomes))),
            len(set[str]().union(*(plan.runs for plan in self.plans))),
        )
        for place, names in enumerate(waiting):
            if not names and place not in self._told_of:
                self._told_of.add(place)
                self._tell_end(place, others_wait=any(waiting))
        return any(waiting)

    def _tell_end(self, place: int, *, others_wait: bool) -> None:
        try:
            self._on_end(place, self.outcomes[place])
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not the other studies'
            self._troubles.append(error)
            if others_wait:
                name = self.plans[place].study.name
                self.display.say(f"✗ {name}: {error}\n  The other studies go on.")

    # ------------------------------------------------------------------ before a run

    def _open(self) -> list[list[str]]:
        """Return for each plan the runs that wait or go on."""
        return [
            [name for name in plan.runs if not self._settled(plan, outcome, name)]
            for plan, outcome in zip(self.plans, self.outcomes, strict=True)
        ]

    def _settled(self, plan: Plan, outcome: Outcome, name: str) -> bool:
        """Tell whether a plan asks no more of a run: it is finished, or lost."""
        if name in outcome.finished or name in outcome.failed:
            return True
        if name in self._jobs:
            return False
        metrics = self.store.metrics(name)
        if metrics is not None:
            outcome.finished.add(name)
            self._look_at_gates(plan, outcome, name, metrics)
            return True
        lost = [other for other in plan.after[name] if other in outcome.failed]
        if lost or outcome.gate:
            because = outcome.gate or f"{run_title(plan, lost[0])} has no result"
            outcome.failed[name] = f"not run: {because}"
            return True
        return False

    def _ready(self, place: int, name: str) -> bool:
        return (
            len(self._jobs) < self.jobs
            and not self.outcomes[place].gate
            and self.plans[place].after[name] <= self.outcomes[place].finished
            and time.monotonic() >= self._busy_until_s.get(name, 0.0)
        )

    def _start(self, plan: Plan, run: Run) -> None:
        """Write ``run.yaml`` and start the process, unless someone else is at the same run."""
        run_dir = self.store.run_dir(run.name)
        with run_lock(run_dir) as mine:
            if not mine:
                self._wait_for_other(run.name)
                return
            threads = self._threads(run_dir)
            self._write_config(plan, run, run_dir, threads)
        (run_dir / "status.json").unlink(missing_ok=True)
        environment = {"VILAU_CACHE": str(self.store.data_dir()), "TOKENIZERS_PARALLELISM": "false"}
        if threads is not None:
            # PyTorch takes its threads from run.yaml; numpy must not add some of its own.
            environment["OMP_NUM_THREADS"] = "1"
        card = self._free_card()
        if card is not None:
            environment["CUDA_VISIBLE_DEVICES"] = card
        log = run_dir / "log.txt"
        told = log.stat().st_size if log.exists() else 0
        child = self.launcher.launch(
            [run.stage.command, "--config", str(run_dir / "run.yaml")], environment, log
        )
        self._jobs[run.name] = _Job(run, child, time.monotonic(), card, told)
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

    def _write_config(self, plan: Plan, run: Run, run_dir: Path, threads: int | None) -> None:
        products = {name: str(self.store.product(name)) for name in run.inputs.values()}
        config = run_config(plan, run, products, threads=threads)
        path = run_dir / "run.yaml"
        head = (
            f"# Stage {run.stage.name} of study {plan.study.name}, seed {run.seed},"
            f" scale {plan.scale}. Run it alone:\n"
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
        if code == BUSY:
            self._wait_for_other(name)
        elif code != 2 and self.store.metrics(name) is not None:
            seconds = time.monotonic() - job.started_s
            self.display.say(f"✓ {self.title(name)}  {clock(seconds)}")
            if code:
                self.display.say(f"  ! ended with {_how(code)}, after its results were written")
            for warning in _warnings(self._file(name, "log.txt"), job.told):
                self.display.say(f"  ! {warning}")
        elif code == 2:
            self._checked_first()
            raise VilauError(job.child.output.error() or f"{self.title(name)} ended with code 2.")
        else:
            log = self._file(name, "log.txt")
            last = "\n    ".join(line for line in job.child.output.tail()[-12:] if line.strip())
            self.display.say(f"✗ {self.title(name)} crashed ({_how(code)}):\n    {last}\n  {log}")
            for plan, outcome in zip(self.plans, self.outcomes, strict=True):
                if name in plan.runs:
                    outcome.failed[name] = f"crashed ({_how(code)}), see {log}"
                    outcome.exit_code = 1

    def _look_at_gates(
        self, plan: Plan, outcome: Outcome, name: str, metrics: dict[str, Any]
    ) -> None:
        for gate in plan.gates(name):
            sentence = gate_sentence(gate, run_title(plan, name), metrics)
            if sentence and not outcome.gate:
                if not any(other.gate == sentence for other in self.outcomes):
                    self.display.say(f"✗ {sentence}")
                if len(self.plans) > 1:
                    self.display.say(f"  {plan.study.name} starts no further stage.")
                outcome.gate = sentence
                outcome.exit_code = 1

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
            raise VilauError(check.output.error() or "a study does not check.")
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
        return run_title(next(plan for plan in self.plans if name in plan.runs), name)

    def _file(self, name: str, file: str) -> Path:
        return self.store.run_dir(name) / file

    def _say_plan(self, plan: Plan, todo: int) -> None:
        total = len(plan.runs)
        how = f"{self.jobs} at a time" if todo > 1 or (todo and len(self.plans) > 1) else ""
        how += f", {self.threads} thread(s) each" if how and self.threads else ""
        self.display.say(
            f"{plan.study.name} · scale {plan.scale} · machine {plan.options.machine} ·"
            f" {total} runs, {total - todo} finished, {todo} to run{': ' + how if how else ''}"
        )


def _warnings(log: Path, told: int) -> list[str]:
    """What a run's user should see of its log behind the first ``told`` bytes, each line once."""
    if not log.exists():
        return []
    lines = log.read_bytes()[told:].decode("utf-8", errors="replace").splitlines()
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
