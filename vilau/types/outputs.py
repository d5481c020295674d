"""What steps give to the callbacks that measure."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class TowerOutput:
    """What a tower made of an ``ImageTextBatch``; images uint8."""

    reconstructions: Tensor
    """uint8 ``(B, 3, H, W)`` from all depths."""
    codes: Tensor
    """int64 ``(B, P, D)``."""
    residual_energy: Tensor
    """float ``(B, D)``, or ``(B, S)`` over scales: mean squared norm of what is left after each depth or scale, divided
    by the features' own."""
    scales: tuple[int, ...] = ()
    """The cells of each scale, coarse first, whose sum is P; empty where there is one grid."""
    truncated: Tensor | None = None
    """uint8 ``(D, B, 3, H, W)``: decoded from depth 1, depths 1-2, ... all, where each of them is to be measured."""


@dataclass
class EmbeddingOutput:
    """Normalised image features of a batch."""

    features: Tensor
    """``(B, C)``."""
    others: dict[str, Tensor] = field(default_factory=dict)
    """Further features ``(B, C)`` by name, e.g. ``unquantized``, ``depth1``: measured beside the first."""


WITHOUT_IMAGES = "asked without the images"
"""What the passports of a blind baseline's scores say."""


@dataclass
class AnswerOutput:
    """Answers to a ``QuestionBatch``, one string each."""

    answers: list[str]
    images_shown: bool = True
    """Whether the model saw what it was asked about; if not, these are a blind baseline's answers."""


@dataclass
class DrawingOutput:
    """Images drawn for a ``PromptBatch``: uint8 ``(B, 3, H, W)``."""

    images: Tensor


@dataclass
class GuidedDrawings:
    """Images drawn for a ``PromptBatch`` at S guidance scales, from the same noise at each."""

    scales: list[float]
    images: Tensor
    """uint8 ``(S, B, 3, H, W)``."""
    reconstructions: Tensor | None = None
    """uint8 ``(B, 3, H, W)``: what the model's tokenizer makes of the prompts' own images, where there are any."""


@dataclass
class ClipOutput:
    """Clips drawn for a ``ClipPromptBatch``: uint8 ``(B, F, 3, H, W)``."""

    clips: Tensor
