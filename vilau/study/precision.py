"""bfloat16 where the device has units for it, float32 where it has none."""

from __future__ import annotations

import time

import torch

MIXED = "bf16-mixed"
FULL = "32-true"
SAID = "precision: "
"""How the line begins that tells of a change."""
_SIDE = 256
_TIMED_S = 0.2
_ENOUGH = 0.75
"""How fast products in bfloat16 must be, float32's being 1. Processors lie far from it: 0.01 (AVX2, where bfloat16 is
taught by hand), 0.5 (AVX-512 of an Intel Xeon), 4 (that of an AMD EPYC); so a noisy minute changes nothing."""


def bfloat16_speed(device: str) -> float:
    """How fast a product of matrices in bfloat16 is on ``cpu`` or ``cuda``, float32's being 1.

    A graphics card is not timed: infinity where it has units for bfloat16, else 0.
    """
    if device == "cuda":
        return float("inf") if torch.cuda.is_bf16_supported(including_emulation=False) else 0.0
    least = _fastest()
    return least[torch.float32] / least[torch.bfloat16]


def suited_precision(precision: str | int | None, accelerator: str) -> tuple[str | int | None, str]:
    """Return what to compute in where ``precision`` is asked for, and a line about the change, or an empty one.

    ``bf16-mixed`` keeps weights and optimizer in float32 anyway, so only its products change. Nothing else is replaced.
    """
    device = _device(accelerator)
    if precision != MIXED or device is None:
        return precision, ""
    speed = bfloat16_speed(device)
    if speed >= _ENOUGH:
        return precision, ""
    what = f"at {speed:.2g} of float32's speed" if speed else "by no unit of its own"
    return FULL, (
        f"{SAID}this {device} multiplies matrices in bfloat16 {what}; computed in {FULL} instead of {MIXED}"
    )


def _device(accelerator: str) -> str | None:
    cuda = torch.cuda.is_available()
    if accelerator == "auto":
        return "cuda" if cuda else None if torch.backends.mps.is_available() else "cpu"
    if accelerator in ("gpu", "cuda"):
        return "cuda" if cuda else None
    return "cpu" if accelerator == "cpu" else None


def _fastest() -> dict[torch.dtype, float]:
    """The seconds that the fastest of many products took: what else the machine does only ever adds.

    The formats take turns, so that both meet the quiet moments.
    """
    matrices = [torch.ones(_SIDE, _SIDE, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)]
    least = {matrix.dtype: float("inf") for matrix in matrices}
    until = time.perf_counter() + _TIMED_S
    while time.perf_counter() < until:
        for matrix in matrices:
            begun = time.perf_counter()
            matrix @ matrix
            least[matrix.dtype] = min(least[matrix.dtype], time.perf_counter() - begun)
    return least
