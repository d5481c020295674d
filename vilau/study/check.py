"""Parse and build every stage of a plan on the meta device: no training, no weights, no network."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden

from vilau.errors import ConfigError, VilauError
from vilau.study.explain import placed
from vilau.study.outcome import run_title
from vilau.study.overview import short_count
from vilau.study.plan import Plan, Run, run_config
from vilau.study.stage_cli import StageCLI


@dataclass(frozen=True)
class Built:
    """What is left of a run that was built."""

    study: str
    module: str
    parameters: str
    product: str | None
    """Folder of its exported config; None: it exports nothing."""


class Checker:
    """Builds the runs of plans, each of them once, however many studies share it."""

    def __init__(self, folder: Path) -> None:
        """``folder`` takes the exported configs."""
        self._folder = folder
        self._built: dict[str, Built] = {}

    def check(self, plan: Plan, say: Callable[[str], None]) -> None:
        """Build every run of a plan, stage after stage, handing exported configs over.

        Equal stages are built once, and one seed stands for all.

        Args:
            plan: what to check.
            say: takes one line per stage.

        Raises:
            VilauError: the first mistake, naming stage, key, value and where it was written.
        """
        first_seed = {cell.run for cell in plan.cells if cell.seed == plan.seeds[0]}
        for name, run in plan.runs.items():
            if name not in first_seed:
                continue
            known, started_s = self._built.get(name), time.perf_counter()
            built = known or self._build(plan, run)
            self._built[name] = built
            if built.product is None:
                _refuse_users(plan, run, built)
            seconds = time.perf_counter() - started_s
            told = f"as in {known.study}" if known else f"{seconds:.1f} s"
            say(f"  ✓ {run_title(plan, name):<42} {built.parameters}  {told}")

    def _build(self, plan: Plan, run: Run) -> Built:
        products = {name: built.product for name, built in self._built.items() if built.product}
        module = _built(plan, run, products)
        export, folder = getattr(module, "export", None), self._folder / run.name
        if export is not None:
            folder.mkdir()
            export(str(folder))
        product = None if export is None else str(folder)
        return Built(plan.study.name, type(module).__name__, _parameters(module), product)


def check_plan(plan: Plan, say: Callable[[str], None]) -> None:
    """Check one plan; see ``Checker.check``."""
    with tempfile.TemporaryDirectory(prefix="vilau-check-") as folder:
        Checker(Path(folder)).check(plan, say)


def _built(plan: Plan, run: Run, products: dict[str, str]) -> LightningModule:
    title = run_title(plan, run.name)
    config = run_config(plan, run, products)
    try:
        cli = StageCLI(config, run.resolved.origin)
        with torch.device("meta"):
            module, _ = cli.build_parts()
            if is_overridden("configure_model", module):
                module.configure_model()
        _refuse_image_size(run, module)
    except VilauError as error:
        told = placed(error, config, run.resolved.origin)
        raise type(error)(f"{title}: {told}") from error
    except Exception as error:
        error.add_note(f"while building {title}")
        raise
    return module


def _refuse_image_size(run: Run, module: LightningModule) -> None:
    """Refuse to train on images of another size than the visual tokenizer reads, where both are known.

    Only of the kit's own modules, which hand images on as they come, and where the study writes a size: text alone
    needs none. An evaluation may draw at one size and compare with pictures of another.
    """
    arguments = (run.resolved.config.get("data") or {}).get("init_args") or {}
    written = arguments.get("image_size")
    if run.stage.command != "fit" or written is None or not _is_ours(module):
        return
    specs = [getattr(part, "spec", None) for part in module.modules()]
    sizes = {getattr(spec, "image_size", None) for spec in specs} - {None}
    if len(sizes) == 1 and written not in sizes:
        (size,) = sizes
        raise ConfigError(
            f"data.image_size is {written}, but the visual tokenizer reads images of {size} x {size} pixels; write "
            f"{size}."
        )


def _is_ours(module: LightningModule) -> bool:
    return type(module).__module__.partition(".")[0] == __name__.partition(".")[0]


def _refuse_users(plan: Plan, run: Run, built: Built) -> None:
    """Refuse stages that use the product of one that exports nothing."""
    users = [other for other in plan.runs.values() if run.name in other.inputs.values()]
    if users:
        raise ConfigError(
            f"{run_title(plan, users[0].name)} uses the product of stage `{run.stage.name}`,"
            f" but {built.module} has no `export`; use a module that exports."
        )


def _parameters(module: LightningModule) -> str:
    parameters = list(module.parameters())
    total = sum(p.numel() for p in parameters)
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    text = f"{short_count(total):>8} parameters"
    return text if trained == total else f"{text}, {short_count(trained)} trained"
