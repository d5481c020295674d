"""Sizes of VARGPT's image tokenizer. Defaults are the published one's (reference A1): VAR's at 256 pixels."""

from dataclasses import dataclass

from vilau.errors import ConfigError
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
