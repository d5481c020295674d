"""The verbs of the command line as functions: run, check, plan, table, list, and one stage."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import os
import shlex
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vilau.errors import ConfigError
from vilau.study import overview
from vilau.study.display import Display
from vilau.study.environment import disk_error
from vilau.study.forge import Forge, can_fork, modules_of
from vilau.study.load import load_study
from vilau.study.outcome import Outcome
from vilau.study.plan import Options, Plan, make_plan
from vilau.study.processes import Spawner
from vilau.study.results import collect
from vilau.study.run import Engine
from vilau.study.store import Store, read_json, write_json
from vilau.study.table import MADE_OF, fingerprint, terminal_table


def run_studies(
    paths: Sequence[str],
    options: Options,
    *,
    runs: str = "runs",
    jobs: int | None = None,
    fresh: bool = False,
) -> int:
    """Bring studies to their end together; print the table of each and write its report as soon as it is over.

    Args:
        paths: the study files.
        options: scale, machine, seeds and whatever else the command line adds to every one of them.
        runs: the runs folder.
        jobs: processes side by side; None: one per core.
        fresh: erase the studies' runs first.

    Returns:
        The exit code: 0, or 1 after a crash or behind a shut gate.

    Raises:
        VilauError: a mistake of the user's.
    """
    paths = list(dict.fromkeys(paths))
    plans = [make_plan(load_study(path), options) for path in paths]
    store = Store(runs)
    cards = need_devices(plans[0], _count_devices)
    display = Display()

    def tell(place: int, outcome: Outcome) -> None:
        link_plan(plans[place], store)
        for text in _told(paths[place], plans[place], store, outcome):
            display.say(text)

    forked = all(can_fork(plan) for plan in plans)
    modules = sorted({name for plan in plans for name in modules_of(plan)})
    engine = Engine(
        plans,
        store,
        jobs=jobs,
        fresh=fresh,
        display=display,
        launcher=Forge(modules, display.say) if forked else Spawner(),
        cards=cards,
        check=["check", *arguments_of(paths, options)],
        on_end=tell,
    )
    try:
        outcomes = engine.run()
    except OSError as error:
        raise (disk_error(error, Path(runs)) or error) from error
    return max(outcome.exit_code for outcome in outcomes)


def check_studies(paths: Sequence[str], options: Options) -> None:
    """Parse and build every stage of studies on the meta device; print parameters per stage."""
    # torch and lightning, only for this verb
    quiet_lightning()
    check = importlib.import_module("vilau.study.check")
    with tempfile.TemporaryDirectory(prefix="vilau-check-") as folder:
        checker = check.Checker(Path(folder))
        for path in paths:
            plan = make_plan(load_study(path), options)
            print(f"{plan.study.name} · scale {plan.scale}", flush=True)  # noqa: T201
            checker.check(plan, lambda line: print(line, flush=True))  # noqa: T201


def plans_text(paths: Sequence[str], options: Options, *, runs: str = "runs") -> str:
    """Return what studies would run, each and, where there are several, all together (no torch)."""
    plans, store = (
        [make_plan(load_study(path), options) for path in dict.fromkeys(paths)],
        Store(runs),
    )
    texts = [overview.plan_text(plan, store) for plan in plans]
    return "\n\n".join(
        [*texts, *([overview.together_text(plans, store)] if len(plans) > 1 else [])]
    )


def table_study(path: str, options: Options, *, runs: str = "runs") -> str:
    """Return a study's table and renew its report."""
    plan = make_plan(load_study(path), options)
    return "\n".join(_told(path, plan, Store(runs), Outcome(), renew=True)).strip()


def list_studies(folder: str | None = None, *, runs: str | None = None) -> str:
    """Return the studies in a folder and the finished runs of the store.

    Args:
        folder: the folder of studies; None: ``experiments``, which need not be there.
        runs: the runs folder; None: ``runs``, which need not be there.

    Raises:
        ConfigError: a folder that was named is not there, or is a file.
    """
    for shown, named in ((folder, folder), (f"--runs {runs}", runs)):
        if named is not None and not Path(named).is_dir():
            raise ConfigError(
                f"{shown} is a file; name a folder."
                if Path(named).exists()
                else f"{shown}: there is no such folder; check the path."
            )
    return overview.studies_text(Path(folder or "experiments"), Store(runs or "runs"))


def stage(command: str, config: str, *, fresh: bool = False) -> int:
    """Run one stage in this process; see ``vilau.study.stage.run_stage``."""
    quiet_lightning()
    run_stage = importlib.import_module("vilau.study.stage").run_stage
    return int(run_stage(command, config, fresh=fresh))


def arguments_of(paths: Sequence[str], options: Options) -> list[str]:
    """Return the command-line arguments that lead to the same plans."""
    arguments = [*paths, "--machine", options.machine]
    if options.scale:
        arguments += ["--scale", options.scale]
    if options.seeds is not None:
        arguments += ["--seeds", *map(str, options.seeds)]
    for flag, values in (("--set", options.overrides), ("--only", options.only)):
        arguments += [flag, *values] if values else []
    return arguments + (["--until", options.until] if options.until else [])


def link_plan(plan: Plan, store: Store) -> None:
    """Make ``runs/<study>/<variant>[/seed<k>]/<stage>`` links to every run that exists."""
    store.unlink_all(plan.study.name)
    for cell in plan.cells:
        seed = (f"seed{cell.seed}",) if len(plan.seeds) > 1 else ()
        if store.run_dir(cell.run).exists():
            store.link(plan.study.name, (cell.variant, *seed, cell.stage), cell.run)


def need_devices(plan: Plan, count: Callable[[], int]) -> list[str]:
    """Refuse a machine whose devices this computer lacks, before anything is started.

    Args:
        plan: its ``trainer`` names accelerator and devices.
        count: returns how many accelerators PyTorch sees.

    Returns:
        The ids of the cards to share out between runs that take one each; none for other machines.

    Raises:
        ConfigError: too few.
    """
    if plan.trainer.get("accelerator") not in ("gpu", "cuda", "mps"):
        return []
    wanted = plan.trainer.get("devices", 1)
    there = count()
    if there == 0:
        raise ConfigError(
            f"--machine {plan.options.machine} needs a GPU and PyTorch sees none here;"
            " use --machine cpu."
        )
    if isinstance(wanted, int) and wanted > there:
        raise ConfigError(
            f"--machine {plan.options.machine} asks for {wanted} devices and PyTorch sees {there}"
            " here; use --machine gpu."
        )
    if wanted != 1 or there == 1:
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(index) for index in range(there)]


def quiet_lightning() -> None:
    """Keep Lightning's tips and hardware lines out of the log; its warnings stay."""
    for name in _CHATTY_LOGGERS:
        logging.getLogger(f"lightning.{name}").addFilter(_no_chatter)
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
    # lpips builds torchvision's networks with arguments of an older version.
    warnings.filterwarnings("ignore", module="torchvision.models._utils")


_CHATTY_LOGGERS = (
    "pytorch.utilities.rank_zero",
    "pytorch.trainer.connectors.checkpoint_connector",
    "fabric.utilities.seed",
)
_CHATTER = ("Tip:", "GPU available", "TPU available", "weights_only", "Seed set to")


def _no_chatter(record: logging.LogRecord) -> bool:
    return not any(word in record.getMessage() for word in _CHATTER)


def _told(
    path: str, plan: Plan, store: Store, outcome: Outcome, *, renew: bool = False
) -> Iterator[str]:
    """Yield the study's table, then write its report and yield where it lies.

    A report that already tells these results is left as it is, unless ``renew``.
    """
    whole = make_plan(plan.study, dataclasses.replace(plan.options, only=(), until=None))
    results = collect(whole, store, outcome.failed)
    if plan.study.columns:
        width = shutil.get_terminal_size((120, 24)).columns
        yield f"\n{terminal_table(results, width)}\n"
    if not results.metrics:
        return
    folder = store.report_dir(plan.study.name)
    command = shlex.join(["lightning", "run", *arguments_of([path], plan.options)])
    mark = fingerprint(results, store, command)
    if renew or read_json(folder / MADE_OF) != mark:
        # matplotlib and TensorBoard's reader, only when there is something to draw
        report = importlib.import_module("vilau.study.report")
        report.write_report(results, store, folder, command=command)
        write_json(folder / MADE_OF, mark)
    yield f"report: {folder / 'index.html'}"


def _count_devices() -> int:
    """Return how many accelerators PyTorch sees (torch is imported only where one is asked for)."""
    torch = importlib.import_module("torch")
    return int(torch.accelerator.device_count())
