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
from vilau.study.store import Store, folder_lock, read_json, write_json
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
        fresh: erase the studies' runs first, once all of them check.

    Returns:
        The exit code: 0, or 1 after a crash or behind a shut gate.

    Raises:
        VilauError: a mistake of the user's.
    """
    planned = plans_of(paths, options)
    paths, plans = list(planned), list(planned.values())
    _check_machines(planned)
    store = Store(runs)
    cards = need_devices(plans[0], _count_devices)
    display = Display()
    undone = [
        path
        for path, plan in planned.items()
        if fresh or any(store.metrics(name) is None for name in plan.runs)
    ]

    def tell(place: int, outcome: Outcome) -> None:
        link_plan(_whole(plans[place]), store)
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
        check=["check", *arguments_of(undone, options)],
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
        for plan in plans_of(paths, options).values():
            print(f"{plan.study.name} · scale {plan.scale}", flush=True)  # noqa: T201
            checker.check(plan, lambda line: print(line, flush=True))  # noqa: T201


def plans_text(paths: Sequence[str], options: Options, *, runs: str = "runs") -> str:
    """Return what studies would run, each and, where there are several, all together (no torch)."""
    plans, store = list(plans_of(paths, options).values()), Store(runs)
    texts = [overview.plan_text(plan, store) for plan in plans]
    return "\n\n".join(
        [*texts, *([overview.together_text(plans, store)] if len(plans) > 1 else [])]
    )


def table_studies(paths: Sequence[str], options: Options, *, runs: str = "runs") -> Iterator[str]:
    """Yield the table of each study and renew its report.

    Raises:
        VilauError: a mistake of the user's, or a disk that is full or may not be written to.
    """
    store = Store(runs)
    try:
        for path, plan in plans_of(paths, options).items():
            yield "\n".join(_told(path, plan, store, Outcome(), renew=True)).strip()
    except OSError as error:
        raise (disk_error(error, Path(runs)) or error) from error


def plans_of(paths: Sequence[str], options: Options) -> dict[str, Plan]:
    """Return path -> plan of study files, each once, however it is spelt.

    Raises:
        ConfigError: a file or an option is wrong; where there are several, the file that it is wrong for is named.
            Also two files with studies of one name, which would share their links and their report.
    """
    once = {Path(path).resolve(): path for path in reversed(paths)}
    plans, named = dict[str, Plan](), dict[str, str]()
    for path in reversed(once.values()):
        try:
            plan = make_plan(load_study(path), options)
        except ConfigError as error:
            if len(once) == 1 or Path(path).name in str(error):
                raise
            raise ConfigError(f"{path}: {error}") from error
        other = named.setdefault(plan.study.name, path)
        if other != path:
            raise ConfigError(
                f"{other} and {path} are both called `{plan.study.name}`; write another name under `study` in one of "
                "them."
            )
        plans[path] = plan
    return plans


def _check_machines(planned: dict[str, Plan]) -> None:
    """Refuse studies of several folders whose machine files differ: one engine shares out one machine."""
    first, *others = planned.items()
    for path, plan in others:
        if plan.trainer != first[1].trainer:
            raise ConfigError(
                f"{first[0]} and {path} have machine files `{plan.options.machine}.yaml` that differ; run them one "
                "after another."
            )


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
    study = plan.study.name
    with folder_lock(store.root / study):  # two engines may end the same study at once
        store.unlink_all(study)
        for cell in plan.cells:
            seed = (f"seed{cell.seed}",) if len(plan.seeds) > 1 else ()
            if store.run_dir(cell.run).exists():
                store.link(study, (cell.variant, *seed, cell.stage), cell.run)


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
    results = collect(_whole(plan), store, outcome.failed)
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


def _whole(plan: Plan) -> Plan:
    """Return the plan of a study without what ``--only`` and ``--until`` left out."""
    return make_plan(plan.study, dataclasses.replace(plan.options, only=(), until=None))


def _count_devices() -> int:
    """Return how many accelerators PyTorch sees (torch is imported only where one is asked for)."""
    torch = importlib.import_module("torch")
    return int(torch.accelerator.device_count())
