"""Averages of a model's weights over training, beside the weights themselves."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vilau.errors import ConfigError


@dataclass
class AverageConfig:
    """Exponential moving average of the trained weights."""

    decay: float = 0.9999
    """What remains of the average after a step; it remembers about 1 / (1 - decay) steps."""
    start_step: int = 0
    """Up to this optimiser step the average is the weights themselves."""
    export: bool = False
    """Export the averaged weights instead of the last ones."""

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ConfigError(f"average.decay is {self.decay}; write 0 or more, below 1.")
        if self.start_step < 0:
            raise ConfigError(f"average.start_step is {self.start_step}; write 0 or more.")


class WeightAverage(nn.Module):
    """The averages of the weights of a module that are trained when this is made.

    What is not trained by the optimiser, a codebook of averages among it, is taken as it stands: codes that restart
    jump, and half-way between two places is no code. Averages are buffers, so checkpoints keep them.
    """

    steps: Tensor

    def __init__(self, module: nn.Module, config: AverageConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._names: dict[str, str] = {}
        for name, weight in module.named_parameters():
            if weight.requires_grad:
                self._names[name] = name.replace(".", "/")  # a buffer's name has no dots
                self.register_buffer(self._names[name], weight.detach().clone())

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the weights after a step of the optimiser."""
        self.steps += 1
        follows = int(self.steps) <= self.config.start_step
        share = 1.0 if follows else 1 - self.config.decay
        for average, weight in self._pairs(module):
            average.lerp_(weight, share)

    @contextmanager
    def swapped(self, module: nn.Module) -> Iterator[None]:
        """Put the averages in the weights' place, and the weights back afterwards."""
        self._swap(module)
        try:
            yield
        finally:
            self._swap(module)

    def _swap(self, module: nn.Module) -> None:
        # Outside inference mode, in which no version would be counted: caches go by that.
        with torch.inference_mode(mode=False), torch.no_grad():
            for average, weight in self._pairs(module):
                kept = weight.clone()
                weight.copy_(average)
                average.copy_(kept)

    def _pairs(self, module: nn.Module) -> list[tuple[Tensor, Tensor]]:
        weights = dict(module.named_parameters())
        return [(self.get_buffer(short), weights[name]) for name, short in self._names.items()]
