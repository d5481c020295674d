"""Liquid's image tokenizer: Chameleon's VQGAN, which is never trained here (Wu et al. 2024, section 3.1).

B images, P cells, Z code width, h the side of the grid.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vilau.errors import ConfigError
from vilau.layers.codebook import GradientCodebook
from vilau.layers.convolution import ConvDecoder, ConvEncoder
from vilau.layers.nearest import full_float32
from vilau.layers.tensors_hash import tensors_hash
from vilau.models.interface import CodeSpec, VisualTokenizer
from vilau.models.liquid.config import TokenizerConfig
from vilau.models.storage import fitting_config, load_weights, read_config, save_folder
from vilau.models.weight_files import Unfilled

KIND = "liquid.tokenizer"


class VQGAN(VisualTokenizer):
    """Images to one code a cell and back."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        parts: dict[str, Any] = {
            "channels": config.channels,
            "multipliers": config.multipliers,
            "num_res_blocks": config.num_res_blocks,
            "attention_grids": config.attention_grids,
            "grid": config.grid,
            "dropout": config.dropout,
            "norm_groups": config.norm_groups,
        }
        self.encoder = ConvEncoder(out_channels=config.z_channels, **parts)
        self.quant_conv = nn.Conv2d(config.z_channels, config.embed_dim, 1)
        self.codebook = GradientCodebook(
            num_codes=config.codebook_size, width=config.embed_dim, restart_unused_codes=False
        )
        self.post_quant_conv = nn.Conv2d(config.embed_dim, config.z_channels, 1)
        self.decoder = ConvDecoder(in_channels=config.z_channels, **parts)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = torch.float32,
        allow_pickle: bool = False,
    ) -> "VQGAN":
        """Load what ``save`` wrote (``dtype`` None: as stored); raises ``CheckpointError`` for anything else."""
        with fitting_config(folder):
            config = TokenizerConfig(**read_config(folder, KIND)["tokenizer"])
            with Unfilled():
                built = cls(config)
        load_weights(built, folder, device=device, dtype=dtype, allow_pickle=allow_pickle)
        return built.to(device=device)

    def save(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors``."""
        save_folder(folder, kind=KIND, config={"tokenizer": asdict(self.config)}, module=self)

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

    def identity(self) -> str:
        """See ``VisualTokenizer.identity``: of the encoder and the codebook; the decoder may learn on."""
        tensors = {
            f"{name}.{key}": value
            for name in ("encoder", "quant_conv", "codebook")
            for key, value in getattr(self, name).named_parameters()
        }
        settings = {"family": KIND, "norm_groups": self.config.norm_groups}
        return tensors_hash({**asdict(self.spec), **settings}, tensors)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Map images in [-1, 1], ``(B, 3, H, W)``, to codes ``(B, P, 1)``: each cell's nearest, in float32.

        Raises ``DataError`` for images of another size.
        """
        self.check_images(images)
        with full_float32():
            features = self.quant_conv(self.encoder(images)).permute(0, 2, 3, 1).float()
            with torch.autocast(features.device.type, enabled=False):
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
