"""Sizes of VARGPT's image tokenizer. Defaults are the published one's (reference A1): VAR's at 256 pixels."""

from dataclasses import dataclass

from vilau.errors import ConfigError
from vilau.models.conv_sizes import check_counts, check_levels, check_parts

SCALES = {
    256: (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
    512: (1, 2, 3, 4, 6, 9, 13, 18, 24, 32),
    1024: (1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64),
}
"""Published sides of the grids by the pixels of an image; one file of weights serves all."""


@dataclass
class TokenizerConfig:
    """Convolutional encoder and decoder, and codes on grids of growing size between them."""

    image_size: int = 256
    scales: tuple[int, ...] = SCALES[256]
    """Sides of the grids, coarse first; the last is that of the encoder's output."""
    channels: int = 160
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    """Width of each level from the finest to the coarsest, each half as large; the coarsest has attention."""
    num_res_blocks: int = 2
    """Blocks of a level of the encoder; the decoder has one more."""
    embed_dim: int = 32
    codebook_size: int = 4096
    num_refinements: int = 4
    refinement_share: float = 0.5
    norm_groups: int = 32
    dropout: float = 0.0

    def __post_init__(self) -> None:
        self.multipliers, self.scales = tuple(self.multipliers), tuple(self.scales)
        check_counts(
            num_res_blocks=self.num_res_blocks, embed_dim=self.embed_dim, codebook_size=self.codebook_size,
            num_refinements=self.num_refinements,
        )  # fmt: skip
        check_parts(dropout=self.dropout, refinement_share=self.refinement_share)
        check_levels(self.image_size, self.channels, self.multipliers, self.norm_groups)
        if not self.scales or self.scales[-1] != self.grid:
            raise ConfigError(
                f"tokenizer.scales is {list(self.scales)}, but the encoder makes {self.grid} x {self.grid} cells of "
                f"{self.image_size} pixels; write {self.grid} as the last."
            )

    @property
    def grid(self) -> int:
        """Cells per side of the finest grid."""
        return self.image_size // 2 ** (len(self.multipliers) - 1)
