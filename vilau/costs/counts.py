"""Weights, multiplications and kept activations of the networks, counted on paper and without torch.

One ``Count`` per network: its parameters, the floating-point operations of one forward pass over one
sample (a multiply-add is two), and the numbers that a backward pass needs kept. Norms, activation
functions and softmaxes cost memory traffic, not multiplications: they count 0 operations.

P positions, C SigLIP width (= code width Z), D residual depth, K codebook size, E language-model width,
T sequence length, W head width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vilau.models.sizes import LanguageConfig, SiglipSizes
from vilau.models.vila_u.config import DecoderConfig, HeadConfig, QuantizerConfig


@dataclass(frozen=True)
class Count:
    """What a network holds and what one sample costs it."""

    parameters: int = 0
    flops: int = 0
    """Forward, one sample."""
    kept: int = 0
    """Numbers kept for the backward pass, one sample."""

    def __add__(self, other: "Count") -> "Count":
        return Count(
            self.parameters + other.parameters, self.flops + other.flops, self.kept + other.kept
        )

    def times(self, copies: int) -> "Count":
        """Return the count of ``copies`` equal networks, one after another."""
        return Count(self.parameters * copies, self.flops * copies, self.kept * copies)


NOTHING = Count()
LARGEST_GRAM = 23170
"""Codes of the largest codebook whose depths are searched in one pass (see ``layers.gram``)."""


@dataclass(frozen=True)
class SiglipCount:
    """A SigLIP in the pieces that the tower uses apart."""

    encoder: Count
    """Embeddings and all blocks but the last: what the tower quantises."""
    pooling: Count
    """Last block, post-norm, attention pooling."""
    text: Count
    """The text tower, one caption."""
    scales: Count
    """Logit scale and bias."""


@dataclass(frozen=True)
class TowerCount:
    """A vision tower in its pieces."""

    siglip: SiglipCount
    search: Count
    """Search of all D depths in codebooks that stay as they are."""
    learning_search: Count
    """The same while the codebooks learn (at most: without restarts, one pass may do for large batches)."""
    gram_flops: int
    """Operations that ``search`` costs once for a codebook, however many samples follow."""
    codebooks: Count
    """Their parameters, where the gradient moves them."""
    pixels: Count
    """Post-quantisation convolution and pixel decoder."""
    buffers: int
    """Codes that averages move, those averages, and counts."""
    positions: int

    @property
    def coding_flops(self) -> int:
        """Operations that make the codes of an image."""
        return self.siglip.encoder.flops + self.search.flops

    @property
    def parameters(self) -> int:
        """All parameters of the tower."""
        parts = (
            self.siglip.encoder, self.siglip.pooling, self.siglip.text, self.siglip.scales,
            self.codebooks, self.pixels,
        )  # fmt: skip
        return sum(part.parameters for part in parts)


# ---------------------------------------------------------------------- pieces


def linear(tokens: int, inputs: int, outputs: int, *, bias: bool = True) -> Count:
    """Count a matrix product over ``tokens`` rows; its input is kept."""
    parameters = inputs * outputs + (outputs if bias else 0)
    return Count(parameters, 2 * tokens * inputs * outputs, tokens * inputs)


def norm(tokens: int, width: int, *, bias: bool = True) -> Count:
    """Count a norm over ``width`` with learnt scale (and bias)."""
    return Count(width * (2 if bias else 1), 0, tokens * width)


def convolution(
    grid: int, inputs: int, outputs: int, *, kernel: int = 3, bias: bool = True
) -> Count:
    """Count a convolution that writes ``grid`` x ``grid`` cells."""
    weights = inputs * outputs * kernel**2
    return Count(weights + (outputs if bias else 0), 2 * weights * grid**2, inputs * grid**2)


def products(queries: int, keys: int, width: int) -> Count:
    """Count attention's two products over all heads; fused kernels keep the output alone."""
    return Count(0, 4 * queries * keys * width, queries * width)


def encoder_block(tokens: int, width: int, mlp_size: int, attention: Count | None = None) -> Count:
    """Count a pre-norm block: four projections, attention, two-layer MLP, biases everywhere.

    ``attention`` are its two products where they are not those of every token with every other.
    """
    return (
        norm(tokens, width).times(2)
        + linear(tokens, width, width).times(4)
        + (attention or products(tokens, tokens, width))
        + linear(tokens, width, mlp_size)
        + Count(0, 0, tokens * mlp_size)  # the activation function's input
        + linear(tokens, mlp_size, width)
    )


# ---------------------------------------------------------------------- networks


def siglip(sizes: SiglipSizes) -> SiglipCount:
    """Count transformers' ``SiglipModel``."""
    P, C, length = sizes.grid**2, sizes.hidden_size, sizes.text_length
    width = sizes.text_width
    embeddings = linear(P, 3 * sizes.patch_size**2, C) + Count(P * C)
    block = encoder_block(P, C, sizes.mlp_size)
    pooling = (
        Count(C)  # the probe
        + linear(P, C, C).times(2)  # keys and values
        + linear(1, C, C).times(2)  # query and output
        + products(1, P, C)
        + norm(1, C)
        + linear(1, C, sizes.mlp_size)
        + linear(1, sizes.mlp_size, C)
    )
    text = (
        Count(sizes.vocab_size * width + length * width)
        + encoder_block(length, width, sizes.text_mlp_size).times(sizes.text_layers)
        + norm(length, width)
        + linear(1, width, sizes.embed_width)
    )
    return SiglipCount(
        encoder=embeddings + block.times(sizes.num_layers - 1),
        pooling=block + norm(P, C) + pooling,
        text=text,
        scales=Count(2),
    )


def tower(sizes: SiglipSizes, quantizer: QuantizerConfig, decoder: DecoderConfig) -> TowerCount:
    """Count a ``VisionTower``."""
    P, C, K, D = sizes.grid**2, sizes.hidden_size, quantizer.codebook_size, quantizer.depth
    grid = decoder.latent_grid or sizes.grid
    books, by_gradient = 1 if quantizer.shared_codebook else D, quantizer.learning == "gradient"
    in_one_pass = (
        quantizer.shared_codebook and quantizer.search == "float32" and D > 1 and K <= LARGEST_GRAM
    )
    one_pass = Count(0, 2 * P * K * C, P * C)
    every_depth = Count(0, D * one_pass.flops, one_pass.kept)
    return TowerCount(
        siglip=siglip(sizes),
        search=one_pass if in_one_pass else every_depth,
        learning_search=every_depth,
        gram_flops=2 * K * K * C if in_one_pass else 0,
        codebooks=Count(books * K * C if by_gradient else 0),
        pixels=convolution(grid, C, decoder.z_channels, kernel=1) + pixel_decoder(decoder, grid),
        buffers=books * (K if by_gradient else 2 * K * C + K),
        positions=P,
    )


def pixel_decoder(decoder: DecoderConfig, grid: int) -> Count:
    """Count a decoder that starts from ``grid`` x ``grid`` cells."""
    if decoder.kind == "patch":
        return _patch_decoder(decoder, grid)
    widths = [decoder.channels * multiplier for multiplier in decoder.multipliers]
    before = widths[-1]
    count = convolution(grid, decoder.z_channels, before)
    count += residual_block(grid, before, before).times(2) + spatial_attention(grid, before)
    for step, width in enumerate(reversed(widths)):
        attends = grid in decoder.attention_grids
        for _ in range(decoder.num_res_blocks + 1):
            count += residual_block(grid, before, width)
            count += spatial_attention(grid, width) if attends else NOTHING
            before = width
        if step < len(widths) - 1:
            grid *= 2
            count += convolution(grid, width, width)
    return (
        count
        + norm(grid**2, before)
        + Count(0, 0, before * grid**2)
        + convolution(grid, before, 3 * decoder.output_patch**2)
    )


def _patch_decoder(decoder: DecoderConfig, grid: int) -> Count:
    cells, width = grid**2, decoder.channels
    block = (
        norm(cells, width).times(2)
        + linear(cells, width, 3 * width)
        + linear(cells, width, width)
        # Explicit softmax: both tables of every head are kept, beside query, key and value.
        + Count(0, 4 * cells**2 * width, 2 * decoder.num_heads * cells**2 + 3 * cells * width)
        + linear(cells, width, 3 * width)
        + linear(cells, 3 * width, width)
    )
    return (
        convolution(grid, decoder.z_channels, width, kernel=1)
        + block.times(decoder.num_layers)
        + norm(cells, width)
        + linear(cells, width, decoder.head_size)
        + linear(cells, decoder.head_size, 3 * decoder.output_patch**2)
    )


def residual_block(grid: int, inputs: int, outputs: int) -> Count:
    """Count two convolutions around a shortcut, at ``grid`` x ``grid`` cells."""
    count = (
        norm(grid**2, inputs)
        + convolution(grid, inputs, outputs)
        + norm(grid**2, outputs)
        + convolution(grid, outputs, outputs)
        + Count(0, 0, (inputs + outputs) * grid**2)  # the inputs of both SiLUs
    )
    return count if inputs == outputs else count + convolution(grid, inputs, outputs, kernel=1)


def spatial_attention(grid: int, width: int) -> Count:
    """Count a head of attention over all ``grid`` x ``grid`` cells."""
    cells = grid**2
    return (
        norm(cells, width)
        + convolution(grid, width, width, kernel=1).times(4)
        + Count(0, 4 * cells**2 * width, 2 * cells**2)  # explicit softmax: both tables are kept
    )


def perceptual(image_size: int) -> Count:
    """Count LPIPS on VGG16 for one image: 13 convolutions and five 1x1 heads without biases."""
    count, inputs = NOTHING, 3
    for stage, (width, layers) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        grid = image_size // 2**stage
        for _ in range(layers):
            count += convolution(grid, inputs, width)
            inputs = width
        count += convolution(grid, width, 1, kernel=1, bias=False)
    return count


def language_model(config: LanguageConfig, tokens: int) -> tuple[Count, Count]:
    """Count a language model's body over ``tokens`` tokens, and its output layer for one token.

    Attention is causal: half of the products of full attention.
    """
    E, M = config.hidden_size, config.mlp_size
    wide, narrow = config.num_heads * config.head_width, config.key_value_width
    layer = (
        norm(tokens, E, bias=False).times(2)
        + linear(tokens, E, wide, bias=False)
        + linear(tokens, wide, E, bias=False)
        + linear(tokens, E, narrow, bias=False).times(2)
        + Count(0, 2 * tokens**2 * wide, tokens * wide)
        + linear(tokens, E, M, bias=False).times(2)
        + Count(0, 0, 2 * tokens * M)
        + linear(tokens, M, E, bias=False)
    )
    body = (
        Count(config.vocab_size * E) + layer.times(config.num_layers) + norm(tokens, E, bias=False)
    )
    out = linear(1, E, config.vocab_size, bias=False)
    logits = Count(0 if config.tie_embeddings else out.parameters, out.flops, config.vocab_size)
    return body, logits


def projector(tokens: int, code_width: int, width: int) -> Count:
    """Count the two-layer projector from code vectors to the language model."""
    return linear(tokens, code_width, width) + linear(tokens, width, width)


def depth_transformer(
    config: HeadConfig, quantizer: QuantizerConfig, *, code_width: int, width: int, positions: int
) -> Count:
    """Count a ``DepthTransformer`` that predicts the D codes of each of ``positions`` positions."""
    W, D, rows = config.width, quantizer.depth, positions * quantizer.depth
    # Every position attends over its own D rows alone, with an explicit softmax.
    attention = Count(0, 4 * rows * D * W, rows * W + 2 * rows * D * config.num_heads)
    block = encoder_block(rows, W, 4 * W, attention)
    return (
        linear(positions * (D - 1), code_width, W)
        + linear(positions, width, W)
        + Count(D * W)
        + block.times(config.num_layers)
        + norm(rows, W)
        + linear(rows, W, quantizer.codebook_size)
        + Count(0, 0, 2 * rows * quantizer.codebook_size)  # logits and their softmax
    )


def scene_detector(
    attributes: Mapping[str, Sequence[str]],
    backgrounds: Sequence[str],
    image_size: int,
    channels: Sequence[int],
) -> Count:
    """Count a ``SceneDetector``."""
    first, second, third = channels
    half, quarter, eighth = image_size // 2, image_size // 4, image_size // 8

    def layer(grid: int, inputs: int, outputs: int, kernel: int = 3) -> Count:
        return convolution(grid, inputs, outputs, kernel=kernel, bias=False) + norm(
            grid**2, outputs
        )

    outputs = 1 + sum(len(values) for values in attributes.values()) + 3
    return (
        layer(half, 3, first, 5)
        + layer(half, first, first)
        + layer(quarter, first, second)
        + layer(quarter, second, second).times(2)
        + layer(eighth, second, third)
        + layer(eighth, third, third).times(4)
        + convolution(eighth, third, outputs, kernel=1)
        + linear(1, third, len(backgrounds))
    )
