"""Liquid's image tokenizer: Chameleon's VQGAN, which is never trained here (Wu et al. 2024, section 3.1).

B images, P cells, Z code width, h the side of the grid.
"""

import torch
from torch import Tensor

from vilau.errors import ConfigError
from vilau.layers.codebook import GradientCodebook
from vilau.layers.nearest import full_float32
from vilau.models.conv_tokenizer import ConvTokenizer
from vilau.models.interface import CodeSpec
from vilau.models.liquid.config import TokenizerConfig

KIND = "liquid.tokenizer"


class VQGAN(ConvTokenizer):
    """Images to one code a cell and back."""

    kind = KIND
    config_class = TokenizerConfig
    encoding = ("encoder", "quant_conv", "codebook")

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__(
            config, z_channels=config.z_channels, attention_grids=config.attention_grids, kernel=1
        )
        self.codebook = GradientCodebook(
            num_codes=config.codebook_size, width=config.embed_dim, restart_unused_codes=False
        )

    @property
    def spec(self) -> CodeSpec:
        """One level of grid x grid cells, one code each."""
        return CodeSpec(
            levels=((self.config.grid, self.config.grid),),
            depth=1,
            codebook_size=self.config.codebook_size,
            embed_dim=self.config.embed_dim,
            image_size=self.config.image_size,
        )

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Map images in [-1, 1], ``(B, 3, H, W)``, to codes ``(B, P, 1)``: each cell's nearest, in float32.

        Raises ``DataError`` for images of another size.
        """
        features = self.coded(images).permute(0, 2, 3, 1).float()
        with torch.autocast(features.device.type, enabled=False), full_float32():
            codes = self.codebook.nearest(features.flatten(0, 2))
        return codes.view(len(images), -1, 1)

    def embed(self, codes: Tensor) -> Tensor:
        """Map codes ``(B, P, 1)`` to their vectors ``(B, P, Z)``."""
        return self.codebook.weight[codes[..., 0]].to(self.post_quant_conv.weight.dtype)

    def decode(self, codes: Tensor, upto: int | None = None) -> Tensor:
        """Map codes ``(B, P, 1)`` to images ``(B, 3, H, W)`` near [-1, 1].

        Raises ``DataError`` for codes of another shape, ``ConfigError`` for depths that there are not.
        """
        self.check_codes(codes)
        if upto not in (None, 1):
            raise ConfigError(f"upto is {upto}; write 1, the only depth.")
        grid = self.config.grid
        vectors = self.embed(codes).transpose(1, 2).unflatten(2, (grid, grid))
        return self.decoder(self.post_quant_conv(vectors))
