"""The sizes of a convolutional tokenizer, and what they must fulfil, whichever family's it is; needs no torch."""

from dataclasses import dataclass
from math import gcd
from typing import Literal

from vilau.errors import ConfigError

HOW_IT_LEARNS = ("dropout", "restart_unused_codes", "decay", "initialisation")
"""Settings that no trained tokenizer's codes depend on."""


@dataclass(kw_only=True)
class ConvTokenizerConfig:
    """Sizes that every such tokenizer has."""

    image_size: int
    channels: int
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    """Width of each level from the finest to the coarsest, each half as large."""
    num_res_blocks: int = 2
    """Blocks of a level of the encoder; the decoder has one more."""
    patch: int = 1
    """Pixels per side of what is one cell of the finest level (published: 1; more for small CPUs)."""
    embed_dim: int
    codebook_size: int
    norm_groups: int = 32
    dropout: float = 0.0
    restart_unused_codes: bool = False
    """A code whose averaged use falls below 1 takes the place of a random vector of the batch (not published)."""
    decay: float = 0.99
    """Of the average by which use is known."""
    initialisation: Literal["normal", "data"] = "normal"
    """``normal`` draws codes from N(0, 1), ``data`` takes vectors of the first training batch (not published)."""

    def __post_init__(self) -> None:
        self.multipliers = tuple(self.multipliers)
        check_counts(
            num_res_blocks=self.num_res_blocks,
            embed_dim=self.embed_dim,
            codebook_size=self.codebook_size,
            patch=self.patch,
        )
        check_parts(dropout=self.dropout, decay=self.decay)
        if self.initialisation not in ("normal", "data"):
            raise ConfigError(
                f"tokenizer.initialisation is {self.initialisation!r}; write normal or data."
            )
        check_levels(
            self.image_size, self.channels, self.multipliers, self.norm_groups, patch=self.patch
        )

    @property
    def grid(self) -> int:
        """Cells per side of the encoder's output."""
        return self.image_size // self.patch // 2 ** (len(self.multipliers) - 1)


def check_levels(
    image_size: int, channels: int, multipliers: tuple[int, ...], norm_groups: int, *, patch: int
) -> None:
    """Raise ``ConfigError`` unless images can be halved so often, and each level's channels normalised in groups."""
    check_counts(channels=channels, norm_groups=norm_groups)
    if not multipliers or min(multipliers) < 1:
        raise ConfigError(
            f"tokenizer.multipliers is {list(multipliers)}; write the width of each level, 1 or more, such as [1, 2]."
        )
    stride = patch * 2 ** (len(multipliers) - 1)
    if image_size < stride or image_size % stride:
        patches = f", in patches of {patch}" if patch > 1 else ""
        raise ConfigError(
            f"tokenizer.image_size is {image_size}, which{patches} cannot be halved {len(multipliers) - 1} times, as "
            f"tokenizer.multipliers has {len(multipliers)} levels; write a multiple of {stride}."
        )
    for width in (channels * multiplier for multiplier in multipliers):
        if width % norm_groups:
            raise ConfigError(
                f"tokenizer.norm_groups is {norm_groups}, which does not divide a level's {width} channels; write "
                f"{gcd(width, norm_groups)}."
            )


def check_counts(**counts: int) -> None:
    """Raise ``ConfigError`` for a setting that is no whole number from 1 on."""
    for name, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise ConfigError(f"tokenizer.{name} is {count}; write a whole number, 1 or more.")


def check_parts(**parts: float) -> None:
    """Raise ``ConfigError`` for a setting that is no number from 0 to 1."""
    for name, part in parts.items():
        if not isinstance(part, int | float) or not 0 <= part <= 1:
            raise ConfigError(f"tokenizer.{name} is {part}; write a number from 0 to 1.")
