"""LightningCLI for one stage: its parser, our trainer defaults, and errors a user can read."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger

from vilau.errors import ConfigError
from vilau.study.checkpoints import StepCheckpoints
from vilau.study.explain import explain, root_cause

STEP_SEED = "vilau.callbacks.step_seed.StepSeed"
HEALTH = "vilau.callbacks.health.Health"
PROGRESS_FILE = "vilau.callbacks.progress.ProgressFile"

TRAINER_DEFAULTS: dict[str, Any] = {
    # A stage that is cut off and resumed must not measure once more than one that is not.
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
}


class StageCLI(LightningCLI):
    """Parse a stage config; build module, data and trainer only when ``build`` is called.

    Args:
        config: the stage config (``model``, ``data``, ``trainer``, …).
        origin: dotted key -> where the user wrote it, for messages.

    Raises:
        ConfigError: a key is unknown or holds a value of the wrong kind.
    """

    def __init__(
        self, config: dict[str, Any], origin: Callable[[str], str] = lambda key: ""
    ) -> None:
        self.source = config
        self.origin = origin
        try:
            super().__init__(
                LightningModule,
                LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                run=False,
                save_config_callback=None,
                seed_everything_default=0,
                trainer_defaults=TRAINER_DEFAULTS,
                parser_kwargs={"exit_on_error": False},
                # parse_object changes what it is given.
                args=deepcopy(config),
            )
        except Exception as error:
            raise (explain(error, config, origin) or error) from error

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Declare the keys of a stage that Lightning does not know."""
        parser.add_argument(
            "--checkpoint_every_n_steps",
            type=int | None,
            default=None,
            help="optimizer steps between checkpoints (default: a tenth of max_steps, at most 500)",
        )
        parser.add_argument(
            "--threads", type=int | None, default=None, help="CPU threads to compute with"
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the config given, whatever the command line of this process says."""
        self.config = parser.parse_object(args)

    def instantiate_classes(self) -> None:
        """Build nothing yet: the caller chooses between ``build`` and ``build_parts``."""

    def build(self, run_dir: Path, *, first_step: int = 0, progress_bar: bool = False) -> None:
        """Build ``model``, ``datamodule`` and ``trainer`` for a run in ``run_dir``.

        Args:
            run_dir: event files, checkpoints and status go there.
            first_step: the step that is resumed; events after it are struck out.
            progress_bar: show Lightning's own bar (a person watches this process).

        Raises:
            ConfigError: a constructor refused its settings, or the machine lacks what they ask.
        """
        self._parts(self.config)
        settings = self._trainer_settings(run_dir, first_step, progress_bar)
        try:
            self.trainer = self.instantiate_trainer(**settings)
        except (MisconfigurationException, ValueError, TypeError) as error:
            raise _trainer_error(error, self.source) from error

    def build_parts(self) -> tuple[LightningModule, LightningDataModule | None]:
        """Build module, data and callbacks alone, without trainer or logger (``check``)."""
        config = self.config.clone()
        config.trainer.logger = False
        config.trainer.strategy = "auto"
        config.trainer.plugins = None
        config.trainer.profiler = None
        self._parts(config)
        return self.model, self.datamodule

    def _parts(self, config: Any) -> None:
        try:
            self.config_init = self.parser.instantiate_classes(config)
        except Exception as error:
            # jsonargparse wraps what a constructor raised; its own words are the useful ones.
            raise (explain(error, self.source, self.origin) or root_cause(error)) from error
        self.model = self._get(self.config_init, "model")
        self.datamodule = self._get(self.config_init, "data")
        if not isinstance(self.model, LightningModule):
            raise ConfigError("a stage needs `model: {class_path: …}`; it names none.")
        self._add_configure_optimizers_method_to_model(None)

    def _trainer_settings(
        self, run_dir: Path, first_step: int, progress_bar: bool
    ) -> dict[str, Any]:
        """Return what a run adds to its config's trainer."""
        trainer = self.config.trainer
        # A stage that counts epochs only (max_steps -1) is treated like a long one.
        max_steps = int(trainer.max_steps) if trainer.max_steps > 0 else 10_000
        every = self.config.checkpoint_every_n_steps or max(1, min(500, max_steps // 10))
        chosen = _listed(self._get(self.config_init, "trainer").callbacks)
        health = _class(HEALTH)
        settings: dict[str, Any] = {
            "default_root_dir": str(run_dir),
            "callbacks": [
                *chosen,
                # Every run is watched; who wants other thresholds lists a `Health` of their own.
                *([] if any(isinstance(one, health) for one in chosen) else [health()]),
                _class(STEP_SEED)(seed=self.config.seed_everything),
                _class(PROGRESS_FILE)(path=str(run_dir / "status.json")),
                StepCheckpoints(str(run_dir / "checkpoints"), every),
            ],
        }
        if trainer.logger in (None, True):
            purge = first_step + 1 if first_step else None
            settings["logger"] = TensorBoardLogger(
                run_dir, name="", version="", default_hp_metric=False, purge_step=purge
            )
        if trainer.enable_progress_bar is None:
            settings["enable_progress_bar"] = progress_bar
        if trainer.log_every_n_steps is None:
            # About a hundred points on a curve, however short the run.
            settings["log_every_n_steps"] = max(1, min(50, max_steps // 100))
        if trainer.max_epochs is None and trainer.max_steps > 0:
            settings["max_epochs"] = -1
        return settings


def _trainer_error(error: Exception, config: dict[str, Any]) -> ConfigError:
    text = str(error)
    accelerator = (config.get("trainer") or {}).get("accelerator")
    if "No supported gpu backend" in text or "CUDAAccelerator" in text or "can not run" in text:
        return ConfigError(
            f"trainer.accelerator is `{accelerator}`, but PyTorch sees no such device here;"
            " use --machine cpu."
        )
    return ConfigError(f"trainer: {text.splitlines()[0]}")


def _listed(callbacks: Any) -> list[Any]:
    if callbacks is None:
        return []
    return list(callbacks) if isinstance(callbacks, list) else [callbacks]


def _class(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)
