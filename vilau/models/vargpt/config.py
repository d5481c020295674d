"""Sizes of VARGPT's parts, free of torch. Defaults are the published ones (reference A1, A2): VAR's at 256 pixels."""

from dataclasses import dataclass
from typing import Any, Literal

from vilau.errors import ConfigError
from vilau.layers.refinements import shared_refinements
from vilau.models.conv_sizes import ConvTokenizerConfig, check_counts, check_parts

SCALES = {
    256: (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
    512: (1, 2, 3, 4, 6, 9, 13, 18, 24, 32),
    1024: (1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64),
}
"""Published sides of the grids by the pixels of an image; one file of weights serves all."""


@dataclass(kw_only=True)
class TokenizerConfig(ConvTokenizerConfig):
    """Convolutional encoder and decoder, whose coarsest level has attention, and codes on grids of growing size."""

    image_size: int = 256
    scales: tuple[int, ...] = SCALES[256]
    """Sides of the grids, coarse first; the last is that of the encoder's output."""
    channels: int = 160
    embed_dim: int = 32
    codebook_size: int = 4096
    num_refinements: int = 4
    refinement_share: float = 0.5

    def __post_init__(self) -> None:
        self.scales = tuple(self.scales)
        check_counts(num_refinements=self.num_refinements)
        check_parts(refinement_share=self.refinement_share)
        super().__post_init__()
        if not self.scales or self.scales[-1] != self.grid:
            raise ConfigError(
                f"tokenizer.scales is {list(self.scales)}, but the encoder makes {self.grid} x {self.grid} cells of "
                f"{self.image_size} pixels; write {self.grid} as the last."
            )

    @property
    def num_used_refinements(self) -> int:
        """Refinements that some scale takes: of few scales fewer than there are."""
        return len(set(shared_refinements(len(self.scales), self.num_refinements)))


@dataclass
class DecoderConfig:
    """VAR's transformer over scales; the sizes are those of the published one with 30 blocks (Tian et al. 2024)."""

    num_layers: int = 30
    width: int = 1920
    num_heads: int = 30
    mlp_ratio: int = 4
    """The hidden layer of a block's MLP is so many times as wide as the block."""
    num_conditions: int = 1
    """Rows of the table of conditions besides the null row, which comes last: VAR has one for each of 1000 classes.
    Of VARGPT's, which has 32 004 in the release, one is used: every image is learnt and drawn with the first."""
    drop_path: float = 0.125
    """How often the last block leaves out what it adds for an image while it learns; the first never does, and
    those between grow evenly."""
    normalised_attention: bool = True
    """Queries and keys have length 1 and each head learns how sharply it looks (all published ones do)."""
    gate_init: float = 1e-5
    """How small the blocks' gates start, as a share of their other weights; VAR has 1e-3 for its smallest model and
    5e-6 for its largest."""

    def __post_init__(self) -> None:
        for key in ("num_layers", "width", "num_heads", "mlp_ratio", "num_conditions"):
            count = getattr(self, key)
            if not isinstance(count, int) or count < 1:
                raise ConfigError(f"decoder.{key} is {count}; write a whole number, 1 or more.")
        if self.width % self.num_heads:
            raise ConfigError(
                f"decoder.num_heads is {self.num_heads}, which does not divide decoder.width {self.width}; "
                f"write a divisor of {self.width}."
            )
        if not 0 <= self.drop_path < 1:
            raise ConfigError(
                f"decoder.drop_path is {self.drop_path}; write a number from 0 to below 1."
            )
        if not 0 <= self.gate_init <= 1:
            raise ConfigError(f"decoder.gate_init is {self.gate_init}; write a number from 0 to 1.")


PUBLISHED_CLIPS: dict[str, dict[str, Any]] = {
    "openai/clip-vit-large-patch14-336": {
        "kind": "clip", "image_size": 336, "patch_size": 14, "hidden_size": 1024, "num_layers": 24, "num_heads": 16,
        "mlp_size": 4096, "activation": "quick_gelu",
    },
}  # fmt: skip
"""Sizes of image encoders by their hub names."""

KIND = "vargpt"
"""What ``config.json`` calls a model."""
UNCONDITIONALS = ("prompt", "noise")


@dataclass
class ReaderConfig:
    """The image encoder that pictures are read with; the sizes are those of the published one, LLaVA-1.5's CLIP."""

    pretrained: str | None = "openai/clip-vit-large-patch14-336"
    """A CLIP or SigLIP: a folder, a hub name, or ``world-siglip``, whose sizes then count. None: random weights."""
    layer: int = -2
    """Which of its hidden states is read: -1 the last, as published the one before."""
    kind: Literal["clip", "siglip"] = "clip"
    image_size: int = 336
    patch_size: int = 14
    hidden_size: int = 1024
    num_layers: int = 24
    num_heads: int = 16
    mlp_size: int = 4096
    activation: str = "quick_gelu"

    def __post_init__(self) -> None:
        if self.kind not in ("clip", "siglip"):
            raise ConfigError(f"reader.kind is {self.kind!r}; write clip or siglip.")
        for key in (
            "image_size", "patch_size", "hidden_size", "num_layers", "num_heads", "mlp_size",
        ):  # fmt: skip
            count = getattr(self, key)
            if not isinstance(count, int) or count < 1:
                raise ConfigError(f"reader.{key} is {count}; write a whole number, 1 or more.")
        if self.hidden_size % self.num_heads:
            raise ConfigError(
                f"reader.num_heads is {self.num_heads}, which does not divide reader.hidden_size {self.hidden_size}; "
                f"write a divisor of {self.hidden_size}."
            )
        if self.image_size % self.patch_size:
            raise ConfigError(
                f"reader.image_size is {self.image_size}, which patches of {self.patch_size} pixels do not divide; "
                f"write a multiple of {self.patch_size}."
            )

    @property
    def num_positions(self) -> int:
        """The patches of an image."""
        return (self.image_size // self.patch_size) ** 2
