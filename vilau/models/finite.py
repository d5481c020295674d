"""Logits that are no numbers: told once, wherever something is drawn, written or ranked by them."""

from torch import Tensor

from vilau.errors import CheckpointError


class FiniteLogits:
    """Passes logits on and remembers whether all were numbers, without waiting for the device."""

    def __init__(self) -> None:
        self.broken: Tensor | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        """Take a look at ``logits`` and return them."""
        broken = ~logits.isfinite().all()
        self.broken = broken if self.broken is None else self.broken | broken
        return logits

    def check(self) -> None:
        """Raise ``CheckpointError`` if some were not."""
        if self.broken is not None and bool(self.broken):
            raise CheckpointError(
                "the model's logits are NaN or infinite, so nothing can be drawn, written or ranked by them; its "
                "weights are broken or its dtype too narrow: load it in float32 or bfloat16, or take another "
                "checkpoint."
            )
