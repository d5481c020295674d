"""VILA-U's vision tower: SigLIP, residual quantiser, pixel decoder (section 3.1 of the paper).

B images, P positions, C SigLIP width (= code width Z), D residual depth, h w code grid.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SiglipModel

from vilau.errors import ConfigError
from vilau.layers.attention import attention_name
from vilau.layers.convolution import ConvDecoder
from vilau.layers.nearest import full_float32
from vilau.layers.patch_decoder import PatchDecoder
from vilau.layers.quantize import ResidualQuantizer
from vilau.layers.quantized import Quantized
from vilau.layers.tensors_hash import tensors_hash
from vilau.models.encoders.load import load_encoders
from vilau.models.encoders.weights import build_encoders
from vilau.models.interface import CodeSpec, TokenizerForward, VisualTokenizer
from vilau.models.siglip import TextInputs, check_image_size
from vilau.models.sizes import SiglipSizes
from vilau.models.storage import fitting_config, load_weights, read_config, save_folder
from vilau.models.vila_u.config import DecoderConfig, QuantizerConfig, TowerConfig
from vilau.models.weight_files import Unfilled

KIND = "vila_u.tower"


class VisionTower(VisualTokenizer):
    """Images to text-aligned residual codes and back.

    The features are those after the last SigLIP block but one; there is no projection between encoder and
    quantiser. The last block, post-norm and pooling head read the *quantised* features and give the image
    feature that the contrastive loss compares with the text tower's.
    """

    def __init__(self, config: TowerConfig, siglip: SiglipModel | None = None) -> None:
        super().__init__()
        self.config = config
        self.sizes = SiglipSizes(**config.siglip)
        self.siglip = siglip if siglip is not None else build_encoders(self.sizes)
        width, grid, decoder = self.sizes.hidden_size, self.sizes.grid, config.decoder
        self.quantizer = ResidualQuantizer(width=width, **dataclasses.asdict(config.quantizer))
        self.post_quant_conv = nn.Conv2d(width, decoder.z_channels, 1)
        self.decoder = build_decoder(decoder, grid=decoder.latent_grid or grid)
        self._text_inputs = TextInputs(self.sizes)
        if config.quantizer.search == "published":
            self.set_search("published")

    @classmethod
    def from_siglip(
        cls, source: str, *, quantizer: QuantizerConfig, decoder: DecoderConfig
    ) -> "VisionTower":
        """Start a tower from pretrained weights: ``world-siglip``, or what else ``load_encoders`` opens.

        Raises ``ConfigError`` for a decoder whose pixels are not the image's: it could not be trained.
        """
        siglip, sizes = load_encoders(source)
        check_decoder(decoder, sizes)
        config = TowerConfig(dataclasses.asdict(sizes), quantizer, decoder)
        return cls(config, siglip)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = torch.float32,
        allow_pickle: bool = False,
    ) -> "VisionTower":
        """Load a tower saved by ``save``, in float32 for training (``dtype`` None: as stored).

        Raises ``CheckpointError`` for anything else.
        """
        with fitting_config(folder):
            config = TowerConfig.from_dict(read_config(folder, KIND)["tower"])
        with Unfilled():
            tower = cls(config)
        load_weights(tower, folder, device=device, dtype=dtype, allow_pickle=allow_pickle)
        return tower.to(device=device)

    def save(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors``."""
        save_folder(folder, kind=KIND, config={"tower": self.config.to_dict()}, module=self)

    @property
    def spec(self) -> CodeSpec:
        """One level of grid x grid cells."""
        return CodeSpec(
            levels=((self.sizes.grid, self.sizes.grid),),
            depth=self.config.quantizer.depth,
            codebook_size=self.config.quantizer.codebook_size,
            embed_dim=self.sizes.hidden_size,
            image_size=self.sizes.image_size,
        )

    def identity(self) -> str:
        """Return 12 hex digits over what encodes images, up to the quantiser, and the codebook.

        What reads quantised features (last block, decoder) and the text tower may learn on: codes stay what they
        were. Weights count by their float32 values, so a wider dtype changes nothing and a narrower one does.
        """
        vision, sizes = self.siglip.vision_model, self.sizes
        settings = {
            **dataclasses.asdict(self.spec),
            "encoder": [sizes.vision, sizes.patch_size, sizes.num_heads, sizes.activation],
            "search": self.config.quantizer.search,
        }
        tensors = {
            f"{part}.{name}": tensor
            for part, module in (
                ("embeddings", vision.embeddings),
                ("blocks", vision.encoder.layers[:-1]),
            )
            for name, tensor in module.named_parameters()
        }
        books = {f"codebook.{d}": self.quantizer.book(d).weight for d in range(self.spec.depth)}
        return tensors_hash(settings, {**tensors, **books})

    def set_search(self, search: Literal["float32", "published"]) -> None:
        """Choose the search for codes from now on; see ``QuantizerConfig.search``.

        With ``published`` SigLIP computes attention step by step too, as the release does: in bfloat16 fused
        kernels round otherwise, and a few codes in a hundred follow. Raises ``ConfigError`` for another name.
        """
        quantizer = dataclasses.replace(self.config.quantizer, search=search)
        self.config = dataclasses.replace(self.config, quantizer=quantizer)
        self.quantizer.search = search
        self.siglip.set_attn_implementation(
            "eager" if search == "published" else attention_name(self.sizes.attention)
        )

    # ---------------------------------------------------------------- images to features and codes

    def features(self, images: Tensor) -> Tensor:
        """Return the features that are quantised, ``(B, P, C)``, of images in [-1, 1]."""
        check_image_size(images, self.sizes)
        vision = self.siglip.vision_model
        with (
            full_float32()
        ):  # cards convolve float32 in TensorFloat-32 unasked, and codes would follow
            hidden = vision.embeddings(images)
        for block in vision.encoder.layers[:-1]:
            hidden = block(hidden, attention_mask=None)
        return hidden

    def quantize(self, images: Tensor) -> Quantized:
        """Return the quantised features and codes of images in [-1, 1]."""
        return self.quantizer(self.features(images))

    def forward(self, images: Tensor) -> TokenizerForward:
        """Encode, quantise and reconstruct images in [-1, 1]."""
        features = self.features(images)
        quantized = self.quantizer(features)
        return TokenizerForward(features, quantized, self.pixels(quantized.features))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Map images in [-1, 1] to codes ``(B, P, D)``; the codebook stays as it is, in training mode too."""
        return self.quantizer.encode(self.features(images))

    def embed(self, codes: Tensor) -> Tensor:
        """Map codes ``(B, P, D)`` to the sum of their vectors, ``(B, P, C)``."""
        return self._own(self.quantizer.embed(codes))

    def _own(self, vectors: Tensor) -> Tensor:
        """Code vectors, which are float32, in the dtype of the tower's weights."""
        return vectors.to(self.post_quant_conv.weight.dtype)

    # ---------------------------------------------------------------- features to pixels

    def pixels(self, features: Tensor) -> Tensor:
        """Decode quantised features ``(B, P, C)`` to images ``(B, 3, H, W)`` near [-1, 1]."""
        B, P, C = features.shape
        grid = self.sizes.grid
        z = self._own(features).transpose(1, 2).reshape(B, C, grid, grid)
        target = self.config.decoder.latent_grid
        if target is not None and target != grid:
            size = (target, target)
            z = F.interpolate(z.float(), size=size, mode="bilinear", align_corners=False).to(
                z.dtype
            )
        return self.decoder(self.post_quant_conv(z))

    def decode(self, codes: Tensor, upto: int | None = None) -> Tensor:
        """Decode codes ``(B, P, D)`` from their first ``upto`` depths (all).

        Raises ``DataError`` for codes of another shape, ``ConfigError`` for depths that there are not.
        """
        self.check_codes(codes)
        D = self.spec.depth
        if upto is not None and not 1 <= upto <= D:
            raise ConfigError(f"upto is {upto}; write a number of depths from 1 to {D}.")
        return self.pixels(self.quantizer.embed(codes, upto))

    # ---------------------------------------------------------------- alignment with text

    def pooled(self, features: Tensor) -> Tensor:
        """Normalised image feature ``(B, C)`` of (quantised) features ``(B, P, C)``.

        Last SigLIP block, post-norm, attention pooling: where the published weights put it.
        """
        vision = self.siglip.vision_model
        hidden = vision.encoder.layers[-1](self._own(features), attention_mask=None)
        return F.normalize(vision.head(vision.post_layernorm(hidden)).float(), dim=-1)

    def image_features(self, images: Tensor) -> Tensor:
        """Normalised feature of the discrete image, ``(B, C)``, of images in [-1, 1]."""
        return self.pooled(self.quantize(images).features)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Normalised text features ``(len(texts), C)``."""
        ids = self._text_inputs(texts, self.siglip.logit_scale.device)
        return F.normalize(self.siglip.text_model(input_ids=ids).pooler_output.float(), dim=-1)

    def freeze_text(self) -> None:
        """Keep the text tower as it was pretrained (the paper's recipe)."""
        self.siglip.text_model.requires_grad_(requires_grad=False)

    def freeze_encoder(self) -> None:
        """Keep what encodes images, up to the quantiser; what reads quantised features goes on learning."""
        vision = self.siglip.vision_model
        for part in (vision.embeddings, *vision.encoder.layers[:-1]):
            part.requires_grad_(requires_grad=False)

    def freeze_alignment(self) -> None:
        """Keep every part that only the contrastive loss could train, for training without it.

        Data parallelism refuses trained weights that no loss reaches.
        """
        self.freeze_text()
        vision = self.siglip.vision_model
        for part in (vision.encoder.layers[-1], vision.post_layernorm, vision.head):
            part.requires_grad_(requires_grad=False)
        self.siglip.logit_scale.requires_grad = False
        self.siglip.logit_bias.requires_grad = False


def build_decoder(config: DecoderConfig, *, grid: int) -> ConvDecoder | PatchDecoder:
    """Build the decoder that ``config`` describes, for a grid of ``grid`` x ``grid`` cells."""
    if config.kind == "patch":
        return PatchDecoder(
            in_channels=config.z_channels,
            width=config.channels,
            patch=config.output_patch,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            head_size=config.head_size,
        )
    return ConvDecoder(
        in_channels=config.z_channels,
        channels=config.channels,
        multipliers=config.multipliers,
        num_res_blocks=config.num_res_blocks,
        attention_grids=config.attention_grids,
        grid=grid,
        dropout=config.dropout,
        norm_groups=config.norm_groups,
        output_patch=config.output_patch,
    )


def check_decoder(decoder: DecoderConfig, sizes: SiglipSizes) -> None:
    """Raise ``ConfigError`` for a decoder whose pixels are not the image's."""
    grid, levels = decoder.latent_grid or sizes.grid, len(decoder.multipliers)
    pixels = grid * 2 ** (levels - 1) * decoder.output_patch
    if pixels != sizes.image_size:
        raise ConfigError(
            f"decoder.multipliers has {levels} levels, which turn the {grid}-cell grid into {pixels} "
            f"pixels instead of {sizes.image_size}; write as many levels as doublings are needed "
            "(times decoder.output_patch), plus one."
        )
