"""Optimisers and the learning-rate schedules of the three papers."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from vilau.errors import ConfigError
from vilau.training.muon import MuonAdamW, hidden_matrices

CODEBOOKS = {"codebook", "codebooks"}
"""What a ``ResidualQuantizer`` calls its codebook, or those of its depths."""


@dataclass
class OptimizerConfig:
    """AdamW (or Muon) with a linear warm-up and a cosine or constant schedule."""

    kind: Literal["adamw", "muon"] = "adamw"
    """``muon``: Muon for hidden matrices and AdamW for all else; not where weights are sharded."""
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    """Applied to weights of two or more dimensions; biases, norms, scales and codes learnt by gradient stay free."""
    betas: tuple[float, float] = (0.9, 0.95)
    warmup_share: float = 0.03
    """Share of all steps spent rising from 0 to the full rate."""
    schedule: Literal["cosine", "constant"] = "cosine"
    final_share: float = 0.0
    """Rate at the end as a share of the full rate (cosine only)."""

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ConfigError(
                f"optimizer.learning_rate is {self.learning_rate}; write a positive number."
            )
        if not 0 <= self.warmup_share < 1:
            raise ConfigError(
                f"optimizer.warmup_share is {self.warmup_share}; write a share from 0 to below 1."
            )


def build_optimizer(
    parameters: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig, *, num_steps: int
) -> dict[str, Any]:
    """Return Lightning's optimizer dictionary for the named parameters that require gradients.

    Raises ``ConfigError`` for Muon where there is no whole matrix for it.
    """
    trained = [(name, parameter) for name, parameter in parameters if parameter.requires_grad]
    matrices = hidden_matrices(trained) if config.kind == "muon" else []
    taken = {id(matrix) for matrix in matrices}
    rest = [(name, parameter) for name, parameter in trained if id(parameter) not in taken]
    decayed = [parameter for name, parameter in rest if is_decayed(name, parameter)]
    free = [parameter for name, parameter in rest if not is_decayed(name, parameter)]
    groups = [
        {"params": members, "weight_decay": decay}
        for members, decay in ((decayed, config.weight_decay), (free, 0.0))
        if members
    ]
    optimizer: torch.optim.Optimizer
    if config.kind == "muon":
        hidden = [{"params": matrices, "weight_decay": config.weight_decay}]
        optimizer = MuonAdamW(hidden, groups, lr=config.learning_rate, betas=config.betas)
    else:
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas)
    scheduler = LambdaLR(optimizer, lambda step: rate_share(step, num_steps, config))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Tell whether a named parameter is drawn to 0: matrices are, a codebook is not.

    Codes stand for features as they are. Decay would pull them off these, above all the codes that no vector
    chose in a step, which no gradient pulls back.
    """
    return parameter.ndim >= 2 and not CODEBOOKS & set(name.split("."))


def rate_share(step: int, num_steps: int, config: OptimizerConfig) -> float:
    """Return the rate of ``step`` as a share of the full rate."""
    warmup = max(1, round(config.warmup_share * num_steps))
    if step < warmup:
        return (step + 1) / warmup
    if config.schedule == "constant":
        return 1.0
    progress = min(1.0, (step - warmup) / max(1, num_steps - warmup))
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return config.final_share + (1 - config.final_share) * cosine
