"""Classifier-free guidance (Ho & Salimans 2022) in the convention of VILA-U and Liquid."""

from torch import Tensor


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Return unconditional + scale * (conditional - unconditional); scale 1 is the plain model.

    VARGPT's lambda (eq. 3) is scale - 1.
    """
    return unconditional + scale * (conditional - unconditional)
