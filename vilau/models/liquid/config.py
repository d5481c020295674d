"""Sizes of Liquid's image tokenizer, and how a model is kept; free of torch.

Defaults are those of Chameleon's VQGAN at 512 pixels (reference B1).
"""

from dataclasses import dataclass

from vilau.models.conv_sizes import ConvTokenizerConfig, check_counts

BEGIN_OF_IMAGE, END_OF_IMAGE, UNCONDITIONAL = "<boi>", "<eoi>", "<unconditional>"
START_OF_TURN, END_OF_TURN = "<start_of_turn>", "<end_of_turn>"
PUBLISHED_MARKS = (BEGIN_OF_IMAGE, END_OF_IMAGE, START_OF_TURN, END_OF_TURN)
"""Tokens that the release's strings need, of which Gemma has the turns' own."""

KIND = "liquid"
"""What ``config.json`` calls a model."""


@dataclass(kw_only=True)
class TokenizerConfig(ConvTokenizerConfig):
    """A VQGAN: convolutional encoder and decoder, and one code a cell."""

    image_size: int = 512
    channels: int = 128
    attention_grids: tuple[int, ...] = ()
    """Grids of the levels with attention; in the middle there always is one."""
    z_channels: int = 256
    embed_dim: int = 256
    codebook_size: int = 8192

    def __post_init__(self) -> None:
        self.attention_grids = tuple(self.attention_grids)
        check_counts(z_channels=self.z_channels)
        super().__post_init__()
