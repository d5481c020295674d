"""Run one stage in this process: build, resume, train, measure, export, then say finished."""

from __future__ import annotations

import os
import resource
import shutil
import sys
import time
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only

from vilau.errors import ConfigError
from vilau.study.checkpoints import StepCheckpoints, newest_checkpoint, prune, step_of
from vilau.study.dotted import plain_key
from vilau.study.environment import disk_error, environment_text, versions
from vilau.study.hyperparameters import log_hyperparameters
from vilau.study.memory import keep_freed_memory
from vilau.study.plan import ENGINE_VERSION
from vilau.study.precision import suited_precision
from vilau.study.stage_cli import StageCLI
from vilau.study.store import erase, finished_metrics, run_lock, write_atomic, write_json
from vilau.study.yaml_reader import YamlFile, read_yaml

BUSY = 75
"""Exit code where another process trains the same run (EX_TEMPFAIL)."""
STOPPED = 143
"""Exit code after SIGTERM: a checkpoint is written, the next start resumes from it."""


def run_stage(command: str, config_file: str, *, fresh: bool = False) -> int:
    """Run ``fit``, ``validate``, ``test`` or ``predict`` of one config file to the end.

    Everything goes into the run's folder: the folder of a file called ``run.yaml``, else
    ``trainer.default_root_dir``, else ``runs/<name of the file>``. A run that was cut off is
    resumed from its newest sound checkpoint; a finished one is left alone unless ``fresh``.

    Returns:
        The exit code: 0 finished, 75 another process is at it, 143 stopped on request.

    Raises:
        VilauError: a mistake of the user's, in one sentence; also a full disk.
    """
    file = read_yaml(config_file, what="stage config")
    if not isinstance(file.data, dict):
        raise ConfigError(f"{file.name} holds {file.data!r}; write a stage config (model, data).")
    run_dir = _run_dir(Path(config_file), file.data)
    try:
        if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
            return _run(command, file, run_dir)
        with run_lock(run_dir) as mine:
            if not mine:
                print(f"{run_dir}: another process trains this run.", file=sys.stderr)  # noqa: T201
                return BUSY
            if fresh:
                erase(run_dir)
            if finished_metrics(run_dir):
                rank_zero_info(f"{run_dir} is finished; --fresh runs it again.")
                return 0
            return _run(command, file, run_dir)
    except SIGTERMException:
        return STOPPED
    except SystemExit as error:
        # Lightning leaves the process after Ctrl-C; the command line has a sentence for it.
        raise (KeyboardInterrupt if error.code == 1 else error) from error
    except Exception as error:
        raise (disk_error(error, run_dir) or error) from error


def _run(command: str, file: YamlFile, run_dir: Path) -> int:
    started_s = time.monotonic()
    origins = {plain_key(path): file.where(path) for path in file.lines}
    cli = StageCLI(file.data, lambda key: origins.get(key, file.name))
    if cli.config.threads:
        torch.set_num_threads(cli.config.threads)
    # Deterministic algorithms are asked for by the machine; filling empty tensors costs time and
    # would only hide a read of what was never written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    settings = cli.config.trainer
    settings.precision, change = suited_precision(settings.precision, settings.accelerator)
    if change:
        rank_zero_info(change)
    checkpoint = newest_checkpoint(run_dir / "checkpoints") if command == "fit" else None
    cli.build(
        run_dir,
        first_step=step_of(checkpoint) if checkpoint else 0,
        progress_bar=sys.stderr.isatty(),
    )
    trainer = cli.trainer
    if trainer.strategy.root_device.type == "cpu":
        keep_freed_memory()
    if trainer.is_global_zero:
        write_atomic(run_dir / "environment.txt", environment_text())
    if command == "fit":
        report = _fit(trainer, cli.model, cli.datamodule, checkpoint, run_dir)
    else:
        report = _measure(trainer, cli.model, cli.datamodule, command)
        report["seconds"] = time.monotonic() - started_s
    if trainer.is_global_zero:
        _finish(command, cli, report, run_dir)
    if trainer.world_size > 1:
        # Distributed processes abort now and then while the interpreter shuts down.
        trainer.strategy.barrier("finished")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


def _fit(
    trainer: Trainer,
    module: LightningModule,
    data: LightningDataModule | None,
    checkpoint: Path | None,
    run_dir: Path,
) -> dict[str, Any]:
    """Train, measure at the last step, export the product."""
    measured = _LastMeasurement()
    trainer.callbacks.append(measured)  # type: ignore[attr-defined]
    if checkpoint:
        rank_zero_info(f"resuming from {checkpoint.name}")
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    saver = next(callback for callback in callbacks if isinstance(callback, StepCheckpoints))
    seconds = saver.seconds
    if measured.step == trainer.global_step:
        metrics = measured.metrics
    elif _has_validation(trainer, module, data):
        # The last validation inside fit came before the last step, or before a restart.
        trainer.validate(module, datamodule=data, verbose=False)
        metrics = _numbers(trainer)
    else:
        metrics = {}
    _export(trainer, module, run_dir)
    return {
        "metrics": metrics,
        "train_metrics": saver.train_metrics,
        "passports": _passports(trainer, module),
        "steps": trainer.global_step,
        "seconds": seconds,
    }


def _measure(
    trainer: Trainer, module: LightningModule, data: LightningDataModule | None, command: str
) -> dict[str, Any]:
    """Run ``validate``, ``test`` or ``predict``."""
    if command == "predict":
        trainer.predict(module, datamodule=data, return_predictions=False)
    else:
        getattr(trainer, command)(module, datamodule=data, verbose=False)
    return {"metrics": _numbers(trainer), "passports": _passports(trainer, module)}


class _LastMeasurement(Callback):
    """Remember the step of the last validation inside ``fit``, and what it found."""

    def __init__(self) -> None:
        self.step = -1
        self.metrics: dict[str, float] = {}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning keeps metrics of earlier validations; a resumed run would not have them.
        for name in [name for name in trainer.callback_metrics if name.startswith("val/")]:
            del trainer.callback_metrics[name]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.step = trainer.global_step
        self.metrics = {
            name: value for name, value in _numbers(trainer).items() if name.startswith("val/")
        }


def _numbers(trainer: Trainer) -> dict[str, float]:
    return {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}


def _passports(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    """Collect what callbacks and module say about what they measured."""
    found: dict[str, Any] = {}
    for owner in (*trainer.callbacks, module):  # type: ignore[attr-defined]
        passports = getattr(owner, "passports", None)
        if isinstance(passports, dict):
            found.update(
                {name: asdict(p) for name, p in passports.items() if is_dataclass(p)}  # type: ignore[arg-type]
            )
    return dict(sorted(found.items()))


def _has_validation(
    trainer: Trainer, module: LightningModule, data: LightningDataModule | None
) -> bool:
    return (
        is_overridden("validation_step", module)
        and (is_overridden("val_dataloader", data) or is_overridden("val_dataloader", module))
        and trainer.limit_val_batches != 0
    )


def _export(trainer: Trainer, module: LightningModule, run_dir: Path) -> None:
    """Save the product for later stages; the folder ``model`` appears only when complete."""
    export = getattr(module, "export", None)
    if export is None:
        return
    final, partial = run_dir / "model", run_dir / "model.partial"
    if trainer.is_global_zero:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    trainer.strategy.barrier("before export")
    export(str(partial))
    trainer.strategy.barrier("after export")
    if trainer.is_global_zero:
        shutil.rmtree(final, ignore_errors=True)
        os.replace(partial, final)


def _finish(command: str, cli: StageCLI, report: dict[str, Any], run_dir: Path) -> None:
    """Log the hyper-parameters, drop what only resuming needs, and write ``metrics.json`` last."""
    trainer = cli.trainer
    log_hyperparameters(trainer.logger, cli.source, report["metrics"])
    prune(run_dir / "checkpoints", keep=1)
    parameters = list(cli.model.parameters())
    write_json(
        run_dir / "metrics.json",
        {
            "command": command,
            "finished": True,
            **report,
            "parameters": sum(p.numel() for p in parameters),
            "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
            "peak_memory_bytes": _peak_memory(trainer.strategy.root_device),
            "device": str(trainer.strategy.root_device),
            "ranks": trainer.world_size,
            "threads": torch.get_num_threads(),
            "precision": str(trainer.precision),
            "versions": versions(),
            "engine": ENGINE_VERSION,
            "finished_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        },
    )


def _run_dir(config_file: Path, config: dict[str, Any]) -> Path:
    if config_file.name == "run.yaml":
        return config_file.parent.resolve()
    named = (config.get("trainer") or {}).get("default_root_dir")
    return Path(named or Path("runs") / config_file.stem).resolve()


def _peak_memory(device: torch.device) -> int:
    """Most bytes that the tensors of a CUDA device took at once; elsewhere, that this process did."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
