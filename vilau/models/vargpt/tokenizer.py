"""VARGPT's image tokenizer: VAR's multi-scale VQ-VAE (Tian et al. 2024, section 3; VARGPT, section 3.1).

B images, P cells of all scales, p the side of one, h that of the finest, Z code width.
"""

import torch
from torch import Tensor

from vilau.layers.multiscale import MultiScaleQuantizer
from vilau.layers.quantized import Quantized
from vilau.models.conv_tokenizer import ConvTokenizer
from vilau.models.interface import CodeSpec
from vilau.models.vargpt.config import TokenizerConfig

KIND = "vargpt.tokenizer"


class MultiScaleVQVAE(ConvTokenizer):
    """Images to codes on grids of growing size and back; any number of the coarser scales is an image already."""

    kind = KIND
    config_class = TokenizerConfig
    encoding = ("encoder", "quant_conv", "quantizer")

    def __init__(self, config: TokenizerConfig) -> None:
        width = config.embed_dim
        super().__init__(config, z_channels=width, attention_grids=(config.grid,), kernel=3)
        self.quantizer = MultiScaleQuantizer(
            scales=config.scales,
            codebook_size=config.codebook_size,
            width=width,
            num_refinements=config.num_refinements,
            refinement_share=config.refinement_share,
            decay=config.decay,
            restart_unused_codes=config.restart_unused_codes,
            initialisation=config.initialisation,
        )

    @property
    def spec(self) -> CodeSpec:
        """A level for each scale, one code a cell."""
        return CodeSpec(
            levels=tuple((side, side) for side in self.config.scales),
            depth=1,
            codebook_size=self.config.codebook_size,
            embed_dim=self.config.embed_dim,
            image_size=self.config.image_size,
        )

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Map images in [-1, 1], ``(B, 3, H, W)``, to codes ``(B, P, 1)``, the coarsest scale first.

        Raises ``DataError`` for images of another size.
        """
        return self.quantizer.encode(self.coded(images))[..., None]

    def quantize(self, features: Tensor) -> tuple[Quantized, Tensor]:
        """See ``ConvTokenizer.quantize``."""
        found = self.quantizer(features)
        return found, found.features

    def embed(self, codes: Tensor) -> Tensor:
        """Map codes ``(B, P, 1)`` to their vectors ``(B, P, Z)``, each scale's its own, not yet enlarged."""
        return self.quantizer.codebook.weight[codes[..., 0]].to(self.post_quant_conv.weight.dtype)

    def decode(self, codes: Tensor, upto: int | None = None) -> Tensor:
        """Map codes ``(B, P, 1)`` to images ``(B, 3, H, W)`` near [-1, 1], from the first ``upto`` scales or all.

        Raises ``DataError`` for codes of another shape, ``ConfigError`` for scales that there are not.
        """
        self.check_codes(codes)
        features = self.quantizer.features(codes[..., 0], upto)
        return self.decoder(self.post_quant_conv(features.to(self.post_quant_conv.weight.dtype)))

    @torch.no_grad()
    def shown(self, codes: Tensor) -> Tensor:
        """Return what a model is shown of codes ``(B, P, 1)``: float32 ``(B, P - p * p, Z)``, none of the first scale.

        See ``MultiScaleQuantizer.shown``. Raises ``DataError`` for codes of another shape.
        """
        self.check_codes(codes)
        return self.quantizer.shown(codes[..., 0])

    @torch.no_grad()
    def grown(self, total: Tensor | None, codes: Tensor, scale: int) -> Tensor:
        """Return the running sum, float32 ``(B, Z, h, h)``, with the codes ``(B, p * p, 1)`` of one more scale.

        See ``MultiScaleQuantizer.grown``; raises what it does.
        """
        return self.quantizer.grown(total, codes.flatten(1), scale)

    def shown_to(self, total: Tensor, scale: int) -> Tensor:
        """Return what the cells of a scale are shown of a running sum ``(B, Z, h, h)``: ``(B, p * p, Z)``.

        See ``MultiScaleQuantizer.shown_to``; raises what it does.
        """
        return self.quantizer.shown_to(total, scale)
