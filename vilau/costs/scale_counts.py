"""Weights and operations of convolutional image tokenizers, of VAR's transformer, of VARGPT's image encoder.

See ``counts``. h cells per side of the finest grid, Z code width, K codebook size, L cells of all scales.
"""

from dataclasses import dataclass

from vilau.costs.counts import (
    Count,
    convolution,
    encoder_block,
    linear,
    norm,
    pixel_decoder,
    products,
    residual_block,
    spatial_attention,
)
from vilau.models.conv_sizes import ConvTokenizerConfig
from vilau.models.liquid.config import TokenizerConfig as OneGridConfig
from vilau.models.vargpt.config import DecoderConfig as ScaleDecoderConfig
from vilau.models.vargpt.config import ReaderConfig
from vilau.models.vargpt.config import TokenizerConfig as ScalesConfig
from vilau.models.vila_u.config import DecoderConfig


@dataclass(frozen=True)
class TokenizerCount:
    """A convolutional image tokenizer in its pieces."""

    encoder: Count
    """With the convolution before the quantiser."""
    search: Count
    """Of the codes of all cells: products alone, as codes learn by gradient."""
    codes: Count
    """Codebook, and what refines enlarged codes: once over all scales."""
    unused: int
    """Parameters of refinements that no scale takes."""
    pixels: Count
    """With the convolution behind the quantiser."""
    positions: int
    buffers: int

    @property
    def parameters(self) -> int:
        """All of them."""
        return sum(part.parameters for part in (self.encoder, self.codes, self.pixels))

    @property
    def coding_flops(self) -> int:
        """Operations that make the codes of an image."""
        return self.encoder.flops + self.search.flops + self.codes.flops


def tokenizer(config: OneGridConfig | ScalesConfig) -> TokenizerCount:
    """Count a ``VQGAN`` or a ``MultiScaleVQVAE``."""
    h, K, Z = config.grid, config.codebook_size, config.embed_dim
    attended: tuple[int, ...]
    if isinstance(config, ScalesConfig):
        between, kernel, attended = Z, 3, (h,)
        positions = sum(side * side for side in config.scales)
        refinement, number = convolution(h, Z, Z), config.num_refinements
        codes = Count(K * Z + number * refinement.parameters, len(config.scales) * refinement.flops)
        unused = (number - config.num_used_refinements) * refinement.parameters
    else:
        between, kernel, attended = config.z_channels, 1, config.attention_grids
        positions, codes, unused = h * h, Count(K * Z), 0
    decoder = DecoderConfig(
        channels=config.channels,
        multipliers=config.multipliers,
        num_res_blocks=config.num_res_blocks,
        attention_grids=attended,
        z_channels=between,
        norm_groups=config.norm_groups,
        output_patch=config.patch,
    )
    return TokenizerCount(
        encoder=_encoder(config, between, attended) + convolution(h, between, Z, kernel=kernel),
        search=Count(0, 2 * positions * K * Z, positions * Z),
        codes=codes,
        unused=unused,
        pixels=convolution(h, Z, between, kernel=kernel) + pixel_decoder(decoder, h),
        positions=positions,
        buffers=K + (1 if config.initialisation == "data" else 0),
    )


def _encoder(config: ConvTokenizerConfig, outputs: int, attended: tuple[int, ...]) -> Count:
    widths = [config.channels * multiplier for multiplier in config.multipliers]
    grid, before = config.image_size // config.patch, config.channels
    count = convolution(grid, 3 * config.patch**2, before)
    for step, width in enumerate(widths):
        for _ in range(config.num_res_blocks):
            count += residual_block(grid, before, width)
            count += spatial_attention(grid, width) if grid in attended else Count()
            before = width
        if step < len(widths) - 1:
            grid //= 2
            # Reads a grid twice as fine as the one that it writes.
            count += convolution(grid, width, width) + Count(0, 0, 3 * width * grid**2)
    return (
        count
        + residual_block(grid, before, before).times(2)
        + spatial_attention(grid, before)
        + norm(grid**2, before)
        + Count(0, 0, before * grid**2)
        + convolution(grid, before, outputs)
    )


def scale_cells(config: ScaleDecoderConfig, tokenizer: ScalesConfig) -> Count:
    """Count what makes the cells of one image's scales."""
    cells, width = sum(side * side for side in tokenizer.scales), config.width
    tables = (config.num_conditions + 1 + 1 + len(tokenizer.scales) + cells) * width
    return Count(tables) + linear(cells - 1, tokenizer.embed_dim, width)


def scale_decoder(config: ScaleDecoderConfig, tokenizer: ScalesConfig, *, images: float) -> Count:
    """Count what predicts all codes of so many images; a cell sees its own and coarser scales."""
    sizes = [side * side for side in tokenizer.scales]
    cells, width, before, pairs = sum(sizes), config.width, 0, 0
    for size in sizes:
        before += size
        pairs += size * before
    inner = config.mlp_ratio * width
    attention = (
        linear(cells, width, width).times(4)
        + Count(config.num_heads - width if config.normalised_attention else -width)  # no key bias
        + Count(0, 4 * pairs * width, cells * width)
    )
    block = (
        Count(0, 0, 2 * cells * width)  # norms without weights
        + linear(1, width, 6 * width)
        + attention
        + linear(cells, width, inner)
        + Count(0, 0, cells * inner)
        + linear(cells, inner, width)
    )
    whole = (
        block.times(config.num_layers)
        + Count(0, 0, cells * width)
        + linear(1, width, 2 * width)
        + linear(cells, width, tokenizer.codebook_size)
        + Count(0, 0, 2 * cells * tokenizer.codebook_size)
    )
    return Count(whole.parameters, round(images * whole.flops), round(images * whole.kept))


def vision(config: ReaderConfig) -> Count:
    """Count transformers' ``CLIPVisionModel`` or ``SiglipVisionModel``, all of whose blocks are computed."""
    Q, C = config.num_positions, config.hidden_size
    clip = config.kind == "clip"
    tokens = Q + 1 if clip else Q
    count = linear(Q, 3 * config.patch_size**2, C, bias=not clip) + Count(tokens * C)
    count += encoder_block(tokens, C, config.mlp_size).times(config.num_layers)
    if clip:
        return count + Count(C) + norm(tokens, C) + norm(1, C)
    return (
        count
        + norm(Q, C)
        + Count(C)
        + linear(Q, C, C).times(2)
        + linear(1, C, C).times(2)
        + products(1, Q, C)
        + norm(1, C)
        + linear(1, C, config.mlp_size)
        + linear(1, config.mlp_size, C)
    )
