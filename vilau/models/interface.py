"""What every family of unified models offers to training, evaluation and users."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vilau.types import MultimodalBatch


@dataclass(frozen=True)
class CodeSpec:
    """The shape of a tokenizer's codes: ``(B, P, depth)`` with P the cells of all levels."""

    levels: tuple[tuple[int, int], ...]
    """Grid (h, w) of each level, coarse first. VILA-U and Liquid have one, VARGPT ten."""
    depth: int
    codebook_size: int
    embed_dim: int
    image_size: int

    @property
    def num_positions(self) -> int:
        """P, the positions a language model draws per image."""
        return sum(h * w for h, w in self.levels)


class VisualTokenizer(nn.Module, ABC):
    """Images to codes and back."""

    @property
    @abstractmethod
    def spec(self) -> CodeSpec:
        """The shape of the codes."""

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Map float images in [-1, 1], ``(B, 3, H, W)``, to int64 codes ``(B, P, D)``, raster order."""

    @abstractmethod
    def embed(self, codes: Tensor) -> Tensor:
        """Map codes ``(B, P, D)`` to the features ``(B, P, Z)`` they stand for."""

    @abstractmethod
    def decode(self, codes: Tensor, upto: int | None = None) -> Tensor:
        """Map codes to images ``(B, 3, H, W)`` near [-1, 1], from the first ``upto`` depths or all."""


@dataclass
class LossTerms:
    """Named loss sums and the number of predictions in each.

    Sums and counts, not means: whoever adds them over micro-batches and ranks before dividing gives every
    prediction the same weight. Training divides within each micro-batch and rank, as the published code does.
    """

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, total: Tensor, count: int) -> None:
        """Record a term; a term without predictions counts 0 and bears no loss."""
        self.sums[name] = total
        self.counts[name] = torch.tensor(float(count), device=total.device)

    def means(self) -> dict[str, Tensor]:
        """Return nats per prediction for every term that has predictions."""
        return {n: s / self.counts[n] for n, s in self.sums.items() if self.counts[n] > 0}

    def total(self, weights: dict[str, float] | None = None) -> Tensor:
        """Return the weighted sum of the means (weight 1 where not named)."""
        weights = weights or {}
        terms = [weights.get(name, 1.0) * mean for name, mean in self.means().items()]
        # A term without predictions adds a zero that still has a gradient path: under data
        # parallelism every rank must touch every weight.
        terms += [0.0 * total for name, total in self.sums.items() if self.counts[name] == 0]
        return torch.stack(terms).sum()


class UnifiedModel(nn.Module, ABC):
    """A model that reads and draws with one next-token machine."""

    tokenizer: VisualTokenizer

    @abstractmethod
    def losses(self, batch: MultimodalBatch) -> LossTerms:
        """Return ``text`` and ``visual`` cross-entropy sums over the batch's targets."""

    @abstractmethod
    def generate_images(
        self,
        prompts: Sequence[str],
        *,
        guidance_scale: float = 3.0,
        temperature: float = 1.0,
        top_k: int = 900,
        top_p: float = 0.96,
        seeds: Sequence[int],
        negative_prompt: str | None = None,
    ) -> Tensor:
        """Draw one image per prompt: float ``(B, 3, H, W)`` in [-1, 1]; row i depends on seeds[i] alone."""

    @abstractmethod
    def generate_text(
        self,
        prompts: Sequence[str],
        images: Tensor | None = None,
        *,
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seeds: Sequence[int] | None = None,
    ) -> list[str]:
        """Answer prompts, each about its row of float ``images`` (or none); temperature 0 is greedy."""
