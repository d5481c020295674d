"""VARGPT's image tokenizer: VAR's multi-scale VQ-VAE (Tian et al. 2024, section 3; VARGPT, section 3.1).

B images, P cells of all scales, Z code width.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vilau.layers.convolution import ConvDecoder, ConvEncoder
from vilau.layers.multiscale import MultiScaleQuantizer
from vilau.layers.nearest import full_float32
from vilau.layers.tensors_hash import tensors_hash
from vilau.models.interface import CodeSpec, VisualTokenizer
from vilau.models.storage import fitting_config, load_weights, read_config, save_folder
from vilau.models.vargpt.config import TokenizerConfig
from vilau.models.weight_files import Unfilled

KIND = "vargpt.tokenizer"


class MultiScaleVQVAE(VisualTokenizer):
    """Images to codes on grids of growing size and back; any number of the coarser scales is an image already."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.embed_dim
        parts: dict[str, Any] = {
            "channels": config.channels,
            "multipliers": config.multipliers,
            "num_res_blocks": config.num_res_blocks,
            "attention_grids": (config.grid,),
            "grid": config.grid,
            "dropout": config.dropout,
            "norm_groups": config.norm_groups,
        }
        self.encoder = ConvEncoder(out_channels=width, **parts)
        self.quant_conv = nn.Conv2d(width, width, 3, padding=1)
        self.quantizer = MultiScaleQuantizer(
            scales=config.scales,
            codebook_size=config.codebook_size,
            width=width,
            num_refinements=config.num_refinements,
            refinement_share=config.refinement_share,
        )
        self.post_quant_conv = nn.Conv2d(width, width, 3, padding=1)
        self.decoder = ConvDecoder(in_channels=width, **parts)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = torch.float32,
        allow_pickle: bool = False,
    ) -> "MultiScaleVQVAE":
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
        """A level for each scale, one code a cell."""
        return CodeSpec(
            levels=tuple((side, side) for side in self.config.scales),
            depth=1,
            codebook_size=self.config.codebook_size,
            embed_dim=self.config.embed_dim,
            image_size=self.config.image_size,
        )

    def identity(self) -> str:
        """See ``VisualTokenizer.identity``: of the encoder and the quantiser; the decoder may learn on."""
        tensors = {
            f"{name}.{key}": value
            for name in ("encoder", "quant_conv", "quantizer")
            for key, value in getattr(self, name).named_parameters()
        }
        settings = {
            "family": KIND,
            "norm_groups": self.config.norm_groups,
            "refinement_share": self.config.refinement_share,
        }
        return tensors_hash({**asdict(self.spec), **settings}, tensors)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Map images in [-1, 1], ``(B, 3, H, W)``, to codes ``(B, P, 1)``, the coarsest scale first.

        Raises ``DataError`` for images of another size.
        """
        self.check_images(images)
        with full_float32():
            return self.quantizer(self.quant_conv(self.encoder(images))).codes[..., None]

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
