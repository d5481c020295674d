"""What all LightningModules of the kit share: plain hyper-parameters, the optimiser, sharding."""

from collections.abc import Iterable
from dataclasses import asdict, is_dataclass
from typing import Any, TypeVar

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from torch import Tensor, nn

from vilau.errors import ConfigError
from vilau.training.optimizers import OptimizerConfig, build_optimizer
from vilau.training.strategies import shard_module

Config = TypeVar("Config")


class TrainingModule(LightningModule):
    """A LightningModule whose optimiser, logging and sharding follow the house rules."""

    def __init__(self, optimizer: OptimizerConfig) -> None:
        super().__init__()
        self.optimizer_config = optimizer
        self._sharded = False

    def remember(self, **hyper_parameters: Any) -> None:
        """Save hyper-parameters as plain types, which checkpoints load with ``weights_only=True``."""
        plain = {k: asdict(v) if is_dataclass(v) else v for k, v in hyper_parameters.items()}  # type: ignore[arg-type]
        self.save_hyperparameters({k: _plain(v) for k, v in plain.items()})

    def trained_parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Named parameters that the optimiser may move (those that require gradients)."""
        return self.named_parameters()

    def setup(self, stage: str) -> None:
        """Refuse to train weights that are themselves half precision, or in shards that are not put together again."""
        precision = str(self.trainer.precision)
        if isinstance(self.trainer.strategy, FSDPStrategy | DeepSpeedStrategy):
            raise ConfigError(
                f"trainer.strategy is {type(self.trainer.strategy).__name__}, whose shards are not put together again "
                "where a model is saved; write lightning.pytorch.strategies.ModelParallelStrategy, as in "
                "experiments/machines/fsdp_8gpu.yaml, or ddp."
            )
        if (
            stage == "fit"
            and precision.endswith("-true")
            and not precision.startswith(("32", "64"))
        ):
            raise ConfigError(
                f"trainer.precision is {precision}, in which most updates of the weights round to "
                f"nothing; write {precision.removesuffix('-true')}-mixed."
            )

    def configure_optimizers(self) -> Any:
        """AdamW with the configured schedule over the trainer's number of steps."""
        steps = int(self.trainer.estimated_stepping_batches)
        return build_optimizer(self.trained_parameters(), self.optimizer_config, num_steps=steps)

    def configure_model(self) -> None:
        """Shard parameters over the device mesh of a ModelParallelStrategy; elsewhere do nothing.

        Raises ``ConfigError`` for tensor parallelism, which is Lightning's choice where none is written.
        """
        mesh = self.device_mesh
        if not self._sharded and mesh is not None:
            if (split := mesh["tensor_parallel"].size()) > 1:
                raise ConfigError(
                    f"trainer.strategy.tensor_parallel_size is {split}, but weights are sharded over "
                    "data-parallel ranks alone; write tensor_parallel_size: 1 and "
                    f"data_parallel_size: {mesh.size()}."
                )
            shard_module(self, self.blocks_to_shard(), mesh["data_parallel"])
            self._sharded = True

    def blocks_to_shard(self) -> list[nn.Module]:
        """Transformer blocks that FSDP gathers one at a time."""
        return []

    def log_losses(self, terms: dict[str, Tensor], *, split: str, batch_size: int) -> None:
        """Log named losses as ``<split>/<name>_loss``."""
        self.log_dict(
            {f"{split}/{name}_loss": value.detach() for name, value in terms.items()},
            batch_size=batch_size,
            sync_dist=split != "train",
            on_step=split == "train",
            on_epoch=split != "train",
        )

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the learning rate beside the losses."""
        self.log("train/learning_rate", optimizer.param_groups[0]["lr"])


def given(default: Config, value: Config | dict[str, Any] | None) -> Config:
    """Return ``value``; ``default`` for None; a dict, which checkpoints keep, as the default's class."""
    if value is None:
        return default
    if isinstance(value, dict):
        return type(default)(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
        )
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value
