"""What the health callback reads from a trainer, and where it speaks."""

import sys
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from torch import Tensor
from torch.nn.utils import get_total_norm

from vilau.callbacks.step_seed import StepSeed


def tell(trainer: pl.Trainer, text: str) -> None:
    """Print above the progress bar, or on standard error where there is none."""
    bar = trainer.progress_bar_callback
    if isinstance(bar, TQDMProgressBar) and bar.is_enabled and trainer.training:
        bar.print(text)
    else:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def seed_of(trainer: pl.Trainer) -> int | None:
    """Return the seed of the run's `StepSeed`: with it, step and rank a batch is replayed exactly."""
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next((c.seed for c in callbacks if isinstance(c, StepSeed)), None)


def loss_scaler(trainer: pl.Trainer) -> Any:
    """Return float16's loss scaler, or None under other precisions."""
    return getattr(trainer.precision_plugin, "scaler", None)


def gradient_norm(optimizer: torch.optim.Optimizer) -> Tensor:
    """Return the norm of an optimiser's gradients, a float32 scalar on their device."""
    gradients = [
        parameter.grad
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None
    ]
    norm = get_total_norm(gradients)
    # Sharded gradients give a sharded norm.
    whole = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    return whole.float().reshape(())


def spoilt_parameters(
    pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer | None
) -> list[str]:
    """Return the names of parameters whose gradient is not finite, in the module's order."""
    if optimizer is None:
        return []
    mine = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return [
        name
        for name, parameter in pl_module.named_parameters()
        if id(parameter) in mine
        and parameter.grad is not None
        and not bool(parameter.grad.isfinite().all())
    ]
