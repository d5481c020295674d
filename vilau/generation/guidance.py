"""Classifier-free guidance (Ho & Salimans 2022) in the convention of VILA-U and Liquid.

R results, P positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from vilau.errors import ConfigError, DataError


def guide(conditional: Tensor, unconditional: Tensor, scale: float | Tensor) -> Tensor:
    """Return unconditional + scale * (conditional - unconditional); scale 1 is the plain model.

    A tensor ``(N, 1)`` holds one scale per row of logits ``(N, K)``; rows of scale 1 stay bit for bit as
    they are. VARGPT's lambda (eq. 3) is scale - 1.
    """
    guided = unconditional + scale * (conditional - unconditional)
    return torch.where(scale == 1, conditional, guided) if isinstance(scale, Tensor) else guided


@dataclass(frozen=True)
class Guidance:
    """How strongly each result follows its prompt, position by position.

    ``Guidance(3.0)`` is the same everywhere; ``Guidance(3.0, start=1.0)`` grows linearly from 1 at the first
    position to 3 at the last; ``Guidance([1.0, 3.0])`` draws two results, each with a scale of its own.

    Raises ``ConfigError`` for a scale that cannot guide.
    """

    scale: float | Sequence[float] = 3.0
    """One number, or one for each result."""
    start: float | None = None
    """Scale at the first position, from where it goes linearly to ``scale`` at the last; None: no ramp."""

    def __post_init__(self) -> None:
        for scale in [self.scale] if isinstance(self.scale, int | float) else self.scale:
            check_scale(scale)
        if self.start is not None:
            check_scale(self.start, name="guidance_start")

    def schedule(self, num_results: int, num_positions: int) -> Tensor:
        """Return the scales, float32 ``(R, P)``.

        Raises ``DataError`` when there are more or fewer scales than results.
        """
        scales = [self.scale] * num_results if isinstance(self.scale, int | float) else self.scale
        if len(scales) != num_results:
            raise DataError(
                f"guidance_scale holds {len(scales)} scales for {num_results} results; write one for "
                "each, or a single number."
            )
        # Not in the default format, which `bf16-true` changes: guidance is computed in float32.
        end_R1 = torch.tensor([float(scale) for scale in scales], dtype=torch.float32)[:, None]
        if self.start is None:
            return end_R1.expand(-1, num_positions)
        share_P = torch.linspace(0.0, 1.0, num_positions, dtype=torch.float32)
        return self.start + share_P * (end_R1 - self.start)


def check_scale(scale: float, *, name: str = "guidance_scale") -> None:
    """Raise ``ConfigError``, which calls it ``name``, for a guidance scale that cannot guide."""
    if not isfinite(scale) or scale < 0:
        raise ConfigError(f"{name} is {scale}; write 1 (no guidance) or more, usually 3.")
