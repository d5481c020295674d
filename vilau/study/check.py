"""Parse and build every stage of a plan on the meta device: no training, no weights, no network."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden

from vilau.errors import ConfigError, VilauError
from vilau.study.outcome import run_title
from vilau.study.overview import short_count
from vilau.study.plan import Plan, Run, run_config
from vilau.study.stage_cli import StageCLI


def check_plan(plan: Plan, say: Callable[[str], None]) -> None:
    """Build every run of a plan, stage after stage, handing exported configs over.

    Equal stages are built once, and one seed stands for all.

    Args:
        plan: what to check.
        say: takes one line per stage.

    Raises:
        VilauError: the first mistake, naming stage, key, value and where it was written.
    """
    with tempfile.TemporaryDirectory(prefix="vilau-check-") as folder:
        products: dict[str, str] = {}
        first_seed = {cell.run for cell in plan.cells if cell.seed == plan.seeds[0]}
        for name, run in plan.runs.items():
            if name not in first_seed:
                continue
            started_s = time.perf_counter()
            module = _built(plan, run, products)
            products[name] = _exported(plan, run, module, Path(folder) / name)
            seconds = time.perf_counter() - started_s
            say(f"  ✓ {run_title(plan, name):<42} {_parameters(module)}  {seconds:.1f} s")


def _built(plan: Plan, run: Run, products: dict[str, str]) -> LightningModule:
    title = run_title(plan, run.name)
    config = run_config(plan, run, products)
    try:
        cli = StageCLI(config, run.resolved.origin)
        with torch.device("meta"):
            module, _ = cli.build_parts()
            if is_overridden("configure_model", module):
                module.configure_model()
    except VilauError as error:
        raise type(error)(f"{title}: {error}") from error
    except Exception as error:
        error.add_note(f"while building {title}")
        raise
    return module


def _exported(plan: Plan, run: Run, module: LightningModule, folder: Path) -> str:
    """Export a stage's config for the stages that use its product."""
    users = [other for other in plan.runs.values() if run.name in other.inputs.values()]
    if users:
        export = getattr(module, "export", None)
        if export is None:
            raise ConfigError(
                f"{run_title(plan, users[0].name)} uses the product of stage `{run.stage.name}`,"
                f" but {type(module).__name__} has no `export`; use a module that exports."
            )
        folder.mkdir()
        export(str(folder))
    return str(folder)


def _parameters(module: LightningModule) -> str:
    parameters = list(module.parameters())
    total = sum(p.numel() for p in parameters)
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    text = f"{short_count(total):>8} parameters"
    return text if trained == total else f"{text}, {short_count(trained)} trained"
