"""What quantisers return, one over residual depths or one over scales.

B images, P positions, Z code width, D residual depth, S scales.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Quantized:
    """Features as codes, and what training asks of both."""

    features: Tensor
    """``(B, P, Z)``, of a quantiser over scales ``(B, Z, h, h)``: the sum of the code vectors; its gradient flows to
    the input unchanged."""
    codes: Tensor
    """int64 ``(B, P, D)``."""
    commitment_loss: Tensor
    """Scalar: mean over depths (scales) of the mean squared distance from the input to the partial sum."""
    residual_energy: Tensor
    """``(B, D)``, of a quantiser over scales ``(B, S)``: squared norm left after each, as a share of the input's."""
    codebook_loss: Tensor | None = None
    """Scalar, whose gradient moves the codes; None where averages move them. Over residual depths: mean of the mean
    squared distance from the codes to the residuals they stand for. Over scales: from the partial sums to the input."""
    entropy_loss: Tensor | None = None
    """Scalar: mean over depths of ``code_entropy``, in nats; None where it is off."""


def mean_square(difference: Tensor) -> Tensor:
    """Mean square, 0 of nothing."""
    squares = difference.square()
    return squares.mean() if squares.numel() else squares.sum()
