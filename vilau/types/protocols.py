"""What callbacks may ask of a module, and a module of its data."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from vilau.types.codes import CodedSet


@runtime_checkable
class EmbedsTexts(Protocol):
    """A module whose text features live in the space of its image features."""

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Return normalised features ``(len(texts), C)``."""
        ...


@runtime_checkable
class EmbedsImages(Protocol):
    """A module whose image features live in the space of its text features."""

    def image_features(self, images: Tensor) -> Tensor:
        """Take uint8 ``(B, 3, H, W)``, return normalised features ``(B, C)``."""
        ...


class EmbedsPairs(Protocol):
    """A network that says how well a picture and a text agree: the cosine of their features."""

    kind: str
    """``clip`` or ``siglip``."""
    name: str
    """Which one, in a passport."""
    preparation: str
    """Resize, crop and truncation on the way into it, in a passport."""

    def image_features(self, images: Tensor) -> Tensor:
        """Take uint8 ``(B, 3, H, W)``, return normalised features ``(B, C)``."""
        ...

    def text_features(self, texts: list[str]) -> Tensor:
        """Return normalised features ``(len(texts), C)``."""
        ...


@runtime_checkable
class Reconstructs(Protocol):
    """A module with a visual tokenizer that can decode from its first depths, or scales, alone."""

    def reconstruct_by_part(self, images: Tensor) -> Tensor:
        """Take uint8 ``(B, 3, H, W)``, return uint8 ``(parts, B, 3, H, W)``: depth 1, depths 1-2, ... all."""
        ...

    @property
    def part_name(self) -> str:
        """``depth`` or ``scale``."""
        ...

    @property
    def codebook_size(self) -> int:
        """K, the number of codes per depth."""
        ...


@runtime_checkable
class Rebuilds(Protocol):
    """A module whose visual tokenizer turns images into codes and back."""

    def rebuild(self, images: Tensor) -> Tensor:
        """Take and return uint8 ``(B, 3, H, W)``: what the tokenizer keeps of real images."""
        ...


@runtime_checkable
class Averages(Protocol):
    """A module that keeps averages of its weights."""

    @property
    def keeps_average(self) -> bool:
        """Whether it was told to."""
        ...

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Put the averages in the weights' place as long as the context lasts."""
        ...

    def measure(self, batch: Any) -> tuple[Any, dict[str, Tensor]]:
        """Return what ``validation_step`` does, and the losses that it logs, without logging."""
        ...


@runtime_checkable
class Draws(Protocol):
    """A module that draws images from prompts."""

    def draw(self, prompts: Sequence[str], *, seed: int) -> Tensor:
        """Return uint8 ``(B, 3, H, W)``; prompt i uses seed ``(seed, i)`` whatever the batch."""
        ...


@runtime_checkable
class Exports(Protocol):
    """A module whose product can be saved as a folder that later stages and users load."""

    def export(self, folder: str) -> None:
        """Write ``config.json`` and ``model.safetensors`` into ``folder`` (all ranks call it, rank 0 writes)."""
        ...


@runtime_checkable
class ReadsCodes(Protocol):
    """A data module that may read stored codes in the place of images."""

    def coded_sets(self) -> Sequence[CodedSet]:
        """The sets, opened by ``setup``, whose records hold codes; most often none."""
        ...
