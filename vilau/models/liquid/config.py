"""Sizes of Liquid's image tokenizer. Defaults are those of Chameleon's VQGAN at 512 pixels (reference B1)."""

from dataclasses import dataclass

from vilau.models.conv_sizes import check_counts, check_levels, check_parts


@dataclass
class TokenizerConfig:
    """A VQGAN: convolutional encoder and decoder, and one code a cell."""

    image_size: int = 512
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    """Width of each level from the finest to the coarsest, each half as large."""
    num_res_blocks: int = 2
    """Blocks of a level of the encoder; the decoder has one more."""
    attention_grids: tuple[int, ...] = ()
    """Grids of the levels with attention; in the middle there always is one."""
    z_channels: int = 256
    embed_dim: int = 256
    codebook_size: int = 8192
    norm_groups: int = 32
    dropout: float = 0.0

    def __post_init__(self) -> None:
        self.multipliers, self.attention_grids = (
            tuple(self.multipliers),
            tuple(self.attention_grids),
        )
        check_counts(
            num_res_blocks=self.num_res_blocks, z_channels=self.z_channels, embed_dim=self.embed_dim,
            codebook_size=self.codebook_size,
        )  # fmt: skip
        check_parts(dropout=self.dropout)
        check_levels(self.image_size, self.channels, self.multipliers, self.norm_groups)

    @property
    def grid(self) -> int:
        """Cells per side."""
        return self.image_size // 2 ** (len(self.multipliers) - 1)
