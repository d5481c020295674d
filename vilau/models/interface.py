"""What every family of unified models offers to training, evaluation and users."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from vilau.errors import DataError
from vilau.layers.quantized import Quantized
from vilau.types import Document, MultimodalBatch

Progress = Callable[[int, int], None]
"""Takes (done, in all)."""


@dataclass(frozen=True)
class CodeSpec:
    """The shape of a tokenizer's codes: ``(B, P, depth)`` with P the cells of all levels."""

    levels: tuple[tuple[int, int], ...]
    """Grid (h, w) of each level, coarse first. VILA-U and Liquid have one, VARGPT one for each scale."""
    depth: int
    codebook_size: int
    embed_dim: int
    image_size: int

    @property
    def num_positions(self) -> int:
        """P, the positions a language model draws per image."""
        return sum(h * w for h, w in self.levels)

    @property
    def num_parts(self) -> int:
        """What ``decode``'s ``upto`` counts: levels where there are several, else residual depths."""
        return self.depth if len(self.levels) == 1 else len(self.levels)

    @property
    def part_name(self) -> str:
        """What one of ``num_parts`` is called."""
        return "depth" if len(self.levels) == 1 else "scale"


class TokenizerForward(NamedTuple):
    """One training pass through an image tokenizer."""

    features: Tensor
    """Before quantisation: ``(B, P, Z)``, or ``(B, Z, h, h)`` where a quantiser over scales follows."""
    quantized: Quantized
    images: Tensor
    """Reconstructions ``(B, 3, H, W)``."""


class VisualTokenizer(nn.Module, ABC):
    """Images to codes and back."""

    @property
    @abstractmethod
    def spec(self) -> CodeSpec:
        """The shape of the codes."""

    @abstractmethod
    def identity(self) -> str:
        """Return 12 hex digits over all that decides which codes an image gets and which vectors they stand for.

        Computed from tensors and settings: the same for a tokenizer alone and inside a model, on every device, and
        after it was saved again.
        """

    @abstractmethod
    def save(self, folder: str | Path) -> None:
        """Write what ``vilau.load_tokenizer`` opens; of several processes all call it."""

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Map float images in [-1, 1], ``(B, 3, H, W)``, to int64 codes ``(B, P, D)``, raster order."""

    @abstractmethod
    def embed(self, codes: Tensor) -> Tensor:
        """Map codes ``(B, P, D)`` to the features ``(B, P, Z)`` they stand for."""

    @abstractmethod
    def decode(self, codes: Tensor, upto: int | None = None) -> Tensor:
        """Map codes to images ``(B, 3, H, W)`` near [-1, 1], from the first ``upto`` parts (``num_parts``) or all."""

    @abstractmethod
    def forward(self, images: Tensor) -> TokenizerForward:
        """Encode, quantise and reconstruct images in [-1, 1]."""

    @torch.no_grad()
    def reconstruct_by_part(self, images: Tensor) -> Tensor:
        """Reconstruct images in [-1, 1] from the first part, the first two, ... all: ``(parts, B, 3, H, W)``."""
        codes, parts = self.encode(images), range(1, self.spec.num_parts + 1)
        return torch.stack([self.decode(codes, upto=part) for part in parts])

    def check_images(self, images: Tensor) -> None:
        """Raise ``DataError`` for images of another size than the tokenizer's."""
        size = self.spec.image_size
        if images.shape[1:] != (3, size, size):
            raise DataError(
                f"images are {tuple(images.shape)}; give (images, 3, {size}, {size}), which this tokenizer reads."
            )

    def check_codes(self, codes: Tensor) -> None:
        """Raise ``DataError`` for codes of another shape than ``encode`` returns."""
        P, D = self.spec.num_positions, self.spec.depth
        if codes.dim() != 3 or codes.shape[1:] != (P, D):
            raise DataError(
                f"codes have the shape {tuple(codes.shape)}; give (images, {P}, {D}) as encode returns them."
            )


@dataclass
class LossTerms:
    """Named loss sums and the number of predictions in each.

    Sums and counts, not means: whoever adds them over micro-batches and ranks before dividing gives every
    prediction of a step the same weight; whoever takes each one's ``total`` weighs them as the published code does.
    """

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    dropped: int = 0
    """Documents too long to be read without cutting an image; they bear no loss."""
    cut: int = 0
    """Documents that lost text at their end."""

    def add(self, name: str, total: Tensor, count: int) -> None:
        """Add to a term; a term without predictions counts 0 and bears no loss."""
        self.sums[name] = self.sums[name] + total if name in self.sums else total
        self.counts[name] = self.counts.get(name, 0) + count

    def means(self) -> dict[str, Tensor]:
        """Return nats per prediction for every term that has predictions."""
        return {n: _divided(s, self.counts[n]) for n, s in self.sums.items() if self.counts[n] > 0}

    def total(
        self, weights: dict[str, float] | None = None, counts: Mapping[str, float] | None = None
    ) -> Tensor:
        """Return the weighted sum (weight 1 where not named) of the terms, each divided by its count.

        ``counts`` other than its own are for terms that are part of more: divided by the predictions of a whole
        optimiser step, the totals of its parts sum to the step's.
        """
        weights, counts = weights or {}, self.counts if counts is None else counts
        terms = [
            weights.get(name, 1.0) * _divided(total, counts[name])
            for name, total in self.sums.items()
            if counts[name] > 0
        ]
        # A term without predictions adds a zero that still has a gradient path: under data
        # parallelism every rank must touch every weight.
        terms += [0.0 * total for name, total in self.sums.items() if counts[name] == 0]
        return torch.stack(terms).sum()


def _divided(total: Tensor, count: float) -> Tensor:
    # By a tensor: on a GPU division by a number is multiplication by its rounded inverse.
    return total / torch.tensor(float(count), dtype=torch.float32, device=total.device)


class UnifiedModel(nn.Module, ABC):
    """A model that reads and draws with one next-token machine.

    Images in and out are float in [-1, 1]. Sampled results depend on their own seed alone: the same seed
    gives the same picture or answer whatever else is in the batch, but for rounding: on a GPU products of other shapes
    may round otherwise. Settings that make no sense raise
    ``ConfigError``, prompts or images that do not fit together ``DataError``.
    """

    tokenizer: VisualTokenizer
    joint_loss: ClassVar[bool] = False
    """Whether the loss is one mean over all predictions (Liquid's), not one mean over words and one over codes."""

    @property
    def reading_size(self) -> int:
        """Pixels per side at which images that are to be read show the model all that it can see."""
        return self.tokenizer.spec.image_size

    @abstractmethod
    def save(self, folder: str | Path) -> None:
        """Write what ``vilau.load`` opens; of several processes all call it."""

    @abstractmethod
    def blocks_to_shard(self) -> list[nn.Module]:
        """Return the blocks that a sharding strategy gathers one after another."""

    @abstractmethod
    def losses(
        self,
        batch: MultimodalBatch,
        *,
        packing: bool = False,
        length_groups: int = 1,
        share_images: bool = False,
    ) -> LossTerms:
        """Return ``text`` and ``visual`` cross-entropy sums over the batch's targets.

        With ``packing`` documents share rows of the language model, without seeing one another; rows go through it
        in ``length_groups`` groups of similar length; with ``share_images`` documents that begin with the same
        images go on from one reading of them.
        """

    @abstractmethod
    def count_targets(self, documents: Sequence[Document]) -> dict[str, int]:
        """Return the counts that ``losses`` of these documents would have."""

    @abstractmethod
    def generate_images(  # noqa: PLR0913 - one call says how pictures are drawn
        self,
        prompts: str | Sequence[str],
        *,
        guidance_scale: float | Sequence[float] = 3.0,
        guidance_start: float | None = None,
        temperature: float | Sequence[float] = 1.0,
        top_k: int | Sequence[int] = 900,
        top_p: float | Sequence[float] = 0.96,
        seed: int | Sequence[int] = 0,
        num_images: int = 1,
        negative_prompt: str | None = None,
        given_codes: Tensor | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Draw ``num_images`` images of each prompt, those of a prompt together.

        Args:
            prompts: what to draw; one text or several. The empty text draws anything.
            guidance_scale: how far to move from the logits of ``negative_prompt`` to those of the prompt
                and beyond; 1 is no guidance. One number, or one for each image.
            guidance_start: the scale at the first position, from where it goes linearly to
                ``guidance_scale`` at the last; None: the same scale everywhere.
            temperature: 0 is greedy. Here and below one number, or one for each residual depth.
            top_k: keep the k likeliest codes; 0, or more than there are, keeps all.
            top_p: then keep the likeliest codes until their probabilities sum to p.
            seed: image i is drawn from ``image_seed(seed, i)``; or one seed per image.
            num_images: images per prompt.
            negative_prompt: what guidance moves away from; None, or an empty text, is what the model was
                trained to read in the place of a dropped caption (the null prompt, or a learned vector).
            given_codes: int64 ``(n, G, D)``, or ``(1, G, D)`` for all: the first G positions of each image,
                which are kept; the rest is drawn from the numbers it would have been drawn from anyway.
            progress: called with (positions drawn, positions in all).

        Returns:
            Float ``(len(prompts) * num_images, 3, H, W)`` in [-1, 1].
        """

    @abstractmethod
    def generate_videos(  # noqa: PLR0913 - one call says how clips are drawn
        self,
        prompts: str | Sequence[str],
        *,
        guidance_scale: float | Sequence[float] = 3.0,
        guidance_start: float | None = None,
        temperature: float | Sequence[float] = 1.0,
        top_k: int | Sequence[int] = 900,
        top_p: float | Sequence[float] = 0.96,
        seed: int | Sequence[int] = 0,
        num_videos: int = 1,
        num_frames: int = 8,
        negative_prompt: str | None = None,
        first_frames: Tensor | None = None,
        given_codes: Tensor | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Draw ``num_videos`` clips of each prompt; see ``generate_images``.

        ``first_frames``, float ``(n, 3, H, W)``, are kept as the first frame of each clip; ``(n, f, 3, H, W)``
        as its first f frames; n may be 1 for all. ``given_codes`` keep any beginning, P positions a frame,
        and are given instead of frames. A ramp of guidance goes over the whole clip.
        Returns float ``(len(prompts) * num_videos, num_frames, 3, H, W)`` in [-1, 1].
        """

    @abstractmethod
    def generate_text(
        self,
        images: Tensor | None,
        prompt: str | Sequence[str],
        *,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        on_token: Callable[[str], None] | None = None,
    ) -> str:
        """Answer a question, or the last turn of a chat.

        Args:
            images: None (a chat in words), or float ``(N, 3, H, W)``: N images, or the frames of a clip.
            prompt: a question, or the turns [user, assistant, user, ...] ending with the user's.
                ``<image>`` marks in the texts place the images in order; without any mark all images
                stand before the first text. Turns with their answers are examples to learn from.
            max_new_tokens: where the answer ends at the latest.
            temperature: 0 is greedy.
            top_p: keep the likeliest tokens until their probabilities sum to p.
            seed: of a sampled answer.
            on_token: called with each new piece of the answer; the pieces join to what is returned.

        Returns:
            The answer without special tokens and without white space at its ends.
        """

    @abstractmethod
    def answer_log_likelihoods(
        self, images: Tensor | None, prompt: str | Sequence[str], answers: Sequence[str]
    ) -> Tensor:
        """Weigh answers to one question, or to the last turn of a chat.

        Args:
            images: as of ``generate_text``.
            prompt: likewise.
            answers: any number of texts.

        Returns:
            The mean log-probability of the tokens of each answer, its end included: float32 ``(len(answers),)``.

        Raises:
            DataError: an answer is empty, or does not fit the model with its question.
            CheckpointError: the model's logits are no numbers.
        """

    @abstractmethod
    def answer(
        self,
        images: Tensor | None,
        questions: Sequence[str],
        *,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seeds: Sequence[int] | None = None,
    ) -> list[str]:
        """Answer questions in one batch, question i about row i of float ``images`` ``(B, 3, H, W)`` or none.

        ``seeds`` are those of sampled answers, 0, 1, ... if not given; see ``generate_text``.
        """
