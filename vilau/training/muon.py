"""Muon for hidden matrices and AdamW for all else, as one optimiser."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from vilau.errors import ConfigError

NOT_HIDDEN = ("embed", "lm_head", "classifier", "linear_out", "codebook")
"""Parts of the names of matrices that look things up or say things: their rows stand for tokens, codes or pixels."""


def hidden_matrices(trained: Sequence[tuple[str, nn.Parameter]]) -> list[nn.Parameter]:
    """Return the named parameters that map hidden states to hidden states, in order.

    Raises ``ConfigError`` where there are none, or where a rank holds only a part of them: orthogonalising a part
    is not orthogonalising the matrix.
    """
    found = [
        parameter
        for name, parameter in trained
        if parameter.ndim == 2 and not any(part in name for part in NOT_HIDDEN)
    ]
    if any(isinstance(parameter, DTensor) for parameter in found):
        raise ConfigError(
            "optimizer.kind is muon, but weights are sharded over ranks; write adamw, or trainer.strategy: ddp."
        )
    if not found:
        raise ConfigError(
            "optimizer.kind is muon, but nothing that trains is a matrix between hidden states; write adamw."
        )
    return found


class MuonAdamW(torch.optim.Optimizer):
    """Orthogonalised momentum for hidden matrices (Muon, Jordan et al. 2024) and AdamW for the other parameters.

    One learning rate serves both: Muon's step is scaled to the root mean square of AdamW's, 0.2 sqrt(max(rows,
    columns)) (Liu et al. 2025). The groups of ``torch.optim.Muon`` and ``torch.optim.AdamW`` are this
    optimiser's own, so that schedules, clipping and ``zero_grad`` see every parameter.

    Args:
        matrices: parameter groups of hidden matrices.
        others: parameter groups of everything else; not empty.
        lr: learning rate of all groups.
        betas: AdamW's; the second is Muon's momentum too, 0.95 by default as Muon's own.
    """

    def __init__(
        self,
        matrices: list[dict[str, Any]],
        others: list[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
    ) -> None:
        muon = torch.optim.Muon(matrices, lr=lr, momentum=betas[1], adjust_lr_fn="match_rms_adamw")
        self.parts = (muon, torch.optim.AdamW(others, lr=lr, betas=betas))
        super().__init__([group for part in self.parts for group in part.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every parameter that has a gradient; return what ``closure``, called first, returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The states of both parts, in order."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what ``state_dict`` returned."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]
