"""What a stage's network is, and what one sample costs it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """A stage's network, and what one sample costs it."""

    parameters: int
    trained: int
    tokens: float
    """Positions a sample takes in the network's main part."""
    train_flops: float
    forward_flops: float
    kept: float = 0.0
    buffers: int = 0
    product: int | None = None
    """Numbers that are exported; None: all parameters and buffers."""
