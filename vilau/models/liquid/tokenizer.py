"""Liquid's image tokenizer: Chameleon's VQGAN (Wu et al. 2024, section 3.1).

B images, P cells, Z code width, h the side of the grid.
"""

import torch
from torch import Tensor

from vilau.errors import ConfigError
from vilau.layers.quantize import ResidualQuantizer
from vilau.layers.quantized import Quantized
from vilau.models.conv_tokenizer import ConvTokenizer
from vilau.models.interface import CodeSpec
from vilau.models.liquid.config import TokenizerConfig

KIND = "liquid.tokenizer"


class VQGAN(ConvTokenizer):
    """Images to one code a cell and back."""

    kind = KIND
    config_class = TokenizerConfig
    encoding = ("encoder", "quant_conv", "quantizer")

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__(
            config, z_channels=config.z_channels, attention_grids=config.attention_grids, kernel=1
        )
        self.quantizer = ResidualQuantizer(
            depth=1,
            codebook_size=config.codebook_size,
            width=config.embed_dim,
            decay=config.decay,
            restart_unused_codes=config.restart_unused_codes,
            learning="gradient",
            initialisation=config.initialisation,
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
        return self.quantizer.encode(self.coded(images).flatten(2).transpose(1, 2))

    def quantize(self, features: Tensor) -> tuple[Quantized, Tensor]:
        """See ``ConvTokenizer.quantize``."""
        found = self.quantizer(features.flatten(2).transpose(1, 2))
        return found, found.features.transpose(1, 2).unflatten(2, features.shape[2:])

    def embed(self, codes: Tensor) -> Tensor:
        """Map codes ``(B, P, 1)`` to their vectors ``(B, P, Z)``."""
        return self.quantizer.codebook.weight[codes[..., 0]].to(self.post_quant_conv.weight.dtype)

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
