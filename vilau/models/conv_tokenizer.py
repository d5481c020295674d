"""What the image tokenizers of Liquid and VARGPT share: convolutions around a quantiser, one code a cell.

B images, P cells, Z code width.
"""

from abc import abstractmethod
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from vilau.layers.convolution import ConvDecoder, ConvEncoder
from vilau.layers.nearest import full_float32
from vilau.layers.quantized import Quantized
from vilau.layers.tensors_hash import tensors_hash
from vilau.models.conv_sizes import HOW_IT_LEARNS, ConvTokenizerConfig
from vilau.models.interface import TokenizerForward, VisualTokenizer
from vilau.models.storage import fitting_config, load_weights, read_config, save_folder
from vilau.models.weight_files import Unfilled, check_fit, fill


class ConvTokenizer(VisualTokenizer):
    """Encoder, decoder, and how both are kept in folders; a family adds what quantises between them."""

    kind: ClassVar[str]
    """What ``config.json`` calls it."""
    config_class: ClassVar[type[ConvTokenizerConfig]]
    encoding: ClassVar[tuple[str, ...]]
    """The parts that decide an image's codes, and the vectors these stand for."""

    def __init__(
        self, config: Any, *, z_channels: int, attention_grids: tuple[int, ...], kernel: int
    ) -> None:
        """Take the channels between encoder and quantiser, and the side of the convolutions there."""
        super().__init__()
        self.config = config
        parts: dict[str, Any] = {
            "channels": config.channels,
            "multipliers": config.multipliers,
            "num_res_blocks": config.num_res_blocks,
            "attention_grids": attention_grids,
            "grid": config.grid,
            "dropout": config.dropout,
            "norm_groups": config.norm_groups,
        }
        around: dict[str, Any] = {"kernel_size": kernel, "padding": kernel // 2}
        patch: int = config.patch
        self.encoder = ConvEncoder(out_channels=z_channels, input_patch=patch, **parts)
        self.quant_conv = nn.Conv2d(z_channels, config.embed_dim, **around)
        self.post_quant_conv = nn.Conv2d(config.embed_dim, z_channels, **around)
        self.decoder = ConvDecoder(in_channels=z_channels, output_patch=patch, **parts)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = torch.float32,
        allow_pickle: bool = False,
    ) -> Self:
        """Load what ``save`` wrote (``dtype`` None: as stored); raises ``CheckpointError`` for anything else."""
        with fitting_config(folder):
            config = cls.config_class(**read_config(folder, cls.kind)["tokenizer"])
            built = cls.unfilled(config)
        load_weights(built, folder, device=device, dtype=dtype, allow_pickle=allow_pickle)
        return built.to(device=device)

    @classmethod
    def unfilled(cls, config: Any) -> Self:
        """Build a tokenizer without values, for weights that follow (see ``Unfilled``)."""
        with Unfilled():
            return cls(config)  # type: ignore[call-arg]  # a family's constructor takes its config alone

    def fill_from(
        self,
        state: dict[str, Tensor],
        source: Path,
        *,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> Self:
        """Take the tensors of a published file under our names; raises ``CheckpointError`` where they do not fit."""
        told_by = "the sizes that its first tensors tell, in our names"
        check_fit(self, state, source, told_by=told_by)
        fill(self, state, dtype=dtype, device=device)
        return self.eval().to(device=device)

    def save(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors``."""
        save_folder(folder, kind=self.kind, config={"tokenizer": asdict(self.config)}, module=self)

    @abstractmethod
    def quantize(self, features: Tensor) -> tuple[Quantized, Tensor]:
        """Quantise what ``encode`` makes codes of, ``(B, Z, h, w)``; also returns what is decoded, of that shape."""

    def forward(self, images: Tensor) -> TokenizerForward:
        """Encode, quantise and reconstruct images in [-1, 1]; ``DataError`` for images of another size.

        Convolutions are computed as autocast has it, unlike those of ``encode``.
        """
        self.check_images(images)
        features = self.quant_conv(self.encoder(images))
        quantized, decoded = self.quantize(features)
        images = self.decoder(self.post_quant_conv(decoded.to(features.dtype)))
        return TokenizerForward(features, quantized, images)

    def coded(self, images: Tensor) -> Tensor:
        """Return what ``encode`` makes codes of, ``(B, Z, h, w)``, in the number format of the weights.

        Neither autocast nor a card's TensorFloat-32 has a say, so that an image has the same codes wherever they are
        made: in a step of training, for a file, for what is drawn on from. Raises ``DataError`` for images of another
        size.
        """
        self.check_images(images)
        with torch.autocast(images.device.type, enabled=False), full_float32():
            return self.quant_conv(self.encoder(images.to(self.quant_conv.weight.dtype)))

    def identity(self) -> str:
        """See ``VisualTokenizer.identity``: the decoder may learn on."""
        tensors = {
            f"{name}.{key}": value
            for name in self.encoding
            for key, value in getattr(self, name).named_parameters()
        }
        settings = {n: value for n, value in asdict(self.config).items() if n not in HOW_IT_LEARNS}
        return tensors_hash({"kind": self.kind, **settings}, tensors)
