"""Classifier-free guidance (Ho & Salimans 2022) in the convention of VILA-U and Liquid."""

from math import isfinite

from torch import Tensor

from vilau.errors import ConfigError


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Return unconditional + scale * (conditional - unconditional); scale 1 is the plain model.

    VARGPT's lambda (eq. 3) is scale - 1.
    """
    return unconditional + scale * (conditional - unconditional)


def check_scale(scale: float) -> None:
    """Raise ``ConfigError`` for a guidance scale that cannot guide."""
    if not isfinite(scale) or scale < 0:
        raise ConfigError(f"guidance_scale is {scale}; write 1 (no guidance) or more, usually 3.")
