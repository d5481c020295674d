"""The convolutional encoder and pixel decoder of VQGAN (Esser et al. 2021); VILA-U keeps the decoder.

B images, c channels, h w grid.
"""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _norm(channels: int, groups: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """GroupNorm-SiLU-conv3x3 twice, plus the input (through a 1x1 conv when widths differ)."""

    def __init__(self, in_channels: int, out_channels: int, *, groups: int, dropout: float) -> None:
        super().__init__()
        self.norm_1 = _norm(in_channels, groups)
        self.conv_1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm_2 = _norm(out_channels, groups)
        self.dropout = nn.Dropout(dropout)
        self.conv_2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in, h, w)`` to ``(B, out, h, w)``."""
        y = self.conv_1(F.silu(self.norm_1(x)))
        y = self.conv_2(self.dropout(F.silu(self.norm_2(y))))
        return self.shortcut(x) + y


class SpatialAttention(nn.Module):
    """Single-head attention over all grid positions, with a residual connection."""

    def __init__(self, channels: int, *, groups: int) -> None:
        super().__init__()
        self.norm = _norm(channels, groups)
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, c, h, w)`` to ``(B, c, h, w)``."""
        normed = self.norm(x)
        q, k, v = (part(normed).flatten(2) for part in (self.query, self.key, self.value))
        weights = torch.softmax(torch.bmm(q.transpose(1, 2) * x.shape[1] ** -0.5, k), dim=-1)
        return x + self.out(torch.bmm(v, weights.transpose(1, 2)).view_as(x))


class _Blocks(nn.Module):
    """The blocks of one resolution, each followed by attention where the level attends."""

    def __init__(
        self,
        widths: tuple[int, int],
        *,
        num_blocks: int,
        attend: bool,
        groups: int,
        dropout: float,
    ) -> None:
        super().__init__()
        before, width = widths
        self.blocks = nn.ModuleList(
            ResidualBlock(before if i == 0 else width, width, groups=groups, dropout=dropout)
            for i in range(num_blocks)
        )
        self.attentions = nn.ModuleList(
            SpatialAttention(width, groups=groups) for _ in range(num_blocks if attend else 0)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, before, h, w)`` to ``(B, width, h, w)``."""
        for i, block in enumerate(self.blocks):
            x = block(x)
            if self.attentions:
                x = self.attentions[i](x)
        return x


class Level(_Blocks):
    """The blocks of one resolution of a decoder, and the upsampling to the next finer one."""

    def __init__(self, widths: tuple[int, int], *, upsample: bool, **blocks: Any) -> None:
        super().__init__(widths, **blocks)
        self.upsample = nn.Conv2d(widths[1], widths[1], 3, padding=1) if upsample else None

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, before, h, w)`` to ``(B, width, 2h, 2w)``, or ``(B, width, h, w)`` at the end."""
        x = super().forward(x)
        if self.upsample is None:
            return x
        return self.upsample(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class EncoderLevel(_Blocks):
    """The blocks of one resolution of an encoder, and the halving to the next coarser one."""

    def __init__(self, widths: tuple[int, int], *, downsample: bool, **blocks: Any) -> None:
        super().__init__(widths, **blocks)
        self.downsample = nn.Conv2d(widths[1], widths[1], 3, stride=2) if downsample else None

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, before, 2h, 2w)`` to ``(B, width, h, w)``, or ``(B, width, 2h, 2w)`` at the end."""
        x = super().forward(x)
        # A row and a column of zeros at the end alone: the cells lie where the published ones do.
        return x if self.downsample is None else self.downsample(F.pad(x, (0, 1, 0, 1)))


class ConvEncoder(nn.Module):
    """Encode an image into a grid of ``out_channels``, halving the grid between levels.

    ``multipliers`` name the width of each level from the finest to the coarsest; ``attention_grids`` the levels with
    attention by the side of their grid, where the coarsest has ``grid`` cells. ``input_patch`` > 1 (not in the
    published encoder, for small CPUs) takes an input_patch x input_patch patch as one cell of the finest level.
    """

    def __init__(
        self,
        *,
        out_channels: int,
        channels: int = 128,
        multipliers: tuple[int, ...] = (1, 1, 2, 2, 4),
        num_res_blocks: int = 2,
        attention_grids: tuple[int, ...] = (),
        grid: int = 32,
        dropout: float = 0.0,
        norm_groups: int = 32,
        input_patch: int = 1,
    ) -> None:
        super().__init__()
        widths = [channels * m for m in multipliers]
        last = len(widths) - 1
        self.input_patch = input_patch
        self.conv_in = nn.Conv2d(3 * input_patch**2, channels, 3, padding=1)
        self.levels = nn.ModuleList(  # finest first
            EncoderLevel(
                (before, width),
                num_blocks=num_res_blocks,
                attend=grid * 2 ** (last - step) in attention_grids,
                downsample=step < last,
                groups=norm_groups,
                dropout=dropout,
            )
            for step, (before, width) in enumerate(pairwise([channels, *widths]))
        )
        self.mid_block_1 = ResidualBlock(
            widths[-1], widths[-1], groups=norm_groups, dropout=dropout
        )
        self.mid_attention = SpatialAttention(widths[-1], groups=norm_groups)
        self.mid_block_2 = ResidualBlock(
            widths[-1], widths[-1], groups=norm_groups, dropout=dropout
        )
        self.norm_out = _norm(widths[-1], norm_groups)
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(B, 3, H, W)`` in [-1, 1] to ``(B, out_channels, h, w)``."""
        if self.input_patch > 1:
            images = F.pixel_unshuffle(images, self.input_patch)
        x = self.conv_in(images)
        for level in self.levels:
            x = level(x)
        x = self.mid_block_2(self.mid_attention(self.mid_block_1(x)))
        return self.conv_out(F.silu(self.norm_out(x)))


class ConvDecoder(nn.Module):
    """Decode a grid of ``in_channels`` into an image, doubling the grid between levels.

    ``multipliers`` name the width of each level from the finest to the coarsest, as published.
    ``output_patch`` > 1 (not in the published decoder, for small CPUs) stops that factor short of the
    full resolution and lets the last convolution write an output_patch x output_patch patch per cell.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        channels: int = 128,
        multipliers: tuple[int, ...] = (1, 1, 2, 2, 4),
        num_res_blocks: int = 2,
        attention_grids: tuple[int, ...] = (16,),
        grid: int = 16,
        dropout: float = 0.0,
        norm_groups: int = 32,
        output_patch: int = 1,
    ) -> None:
        super().__init__()
        widths = [channels * m for m in multipliers]
        self.conv_in = nn.Conv2d(in_channels, widths[-1], 3, padding=1)
        self.mid_block_1 = ResidualBlock(
            widths[-1], widths[-1], groups=norm_groups, dropout=dropout
        )
        self.mid_attention = SpatialAttention(widths[-1], groups=norm_groups)
        self.mid_block_2 = ResidualBlock(
            widths[-1], widths[-1], groups=norm_groups, dropout=dropout
        )
        self.levels = nn.ModuleList()  # coarsest first
        before = widths[-1]
        for step, width in enumerate(reversed(widths)):
            self.levels.append(
                Level(
                    (before, width),
                    num_blocks=num_res_blocks + 1,
                    attend=grid * 2**step in attention_grids,
                    upsample=step < len(widths) - 1,
                    groups=norm_groups,
                    dropout=dropout,
                )
            )
            before = width
        self.norm_out = _norm(before, norm_groups)
        self.conv_out = nn.Conv2d(before, 3 * output_patch**2, 3, padding=1)
        self.output_patch = output_patch

    @property
    def last_layer(self) -> nn.Conv2d:
        """What writes the pixels."""
        return self.conv_out

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, h, w)`` to ``(B, 3, H, W)``, unbounded (pixels are near [-1, 1])."""
        x = self.mid_block_2(self.mid_attention(self.mid_block_1(self.conv_in(x))))
        for level in self.levels:
            x = level(x)
        x = self.conv_out(F.silu(self.norm_out(x)))
        return F.pixel_shuffle(x, self.output_patch) if self.output_patch > 1 else x
