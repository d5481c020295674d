"""The residual quantiser over scales of VAR (Tian et al. 2024, algorithms 1 and 2), which VARGPT draws with.

B images, C code width, S scales of p x p cells, P cells of all scales, h the side of the finest, V codes. Scales are
counted from 0, the coarsest.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vilau.errors import ConfigError, DataError
from vilau.layers.codebook import GradientCodebook
from vilau.layers.nearest import full_float32


class ScaleQuantized(NamedTuple):
    """Features as codes of all scales."""

    features: Tensor
    """``(B, C, h, h)``: the sum of what all scales stand for."""
    codes: Tensor
    """int64 ``(B, P)``, the coarsest scale first, each in raster order."""


class Refinement(nn.Conv2d):
    """The phi of the paper: mends what enlarging a coarse grid blurs, ``(1 - share) h + share conv3x3(h)``."""

    def __init__(self, width: int, share: float) -> None:
        super().__init__(width, width, 3, padding=1)
        self.share = share

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Map float32 ``(B, C, h, h)`` to the same, in float32 whatever the weights are kept in."""
        assert self.bias is not None
        mended = F.conv2d(input, self.weight.float(), self.bias.float(), padding=1)
        return torch.lerp(input, mended, self.share)


class MultiScaleQuantizer(nn.Module):
    """Codes features as a sum over grids of growing size, all with one codebook.

    Each scale codes what the coarser ones leave over: the rest is shrunk to its grid (by area), every cell takes
    its nearest code, and the codes are enlarged (bicubic) and refined. Everything is computed in float32.
    """

    def __init__(
        self,
        *,
        scales: Sequence[int],
        codebook_size: int,
        width: int,
        num_refinements: int = 4,
        refinement_share: float = 0.5,
    ) -> None:
        """Take the sides of the grids, coarse first, the last being that of the features.

        ``num_refinements`` convolutions are shared among the scales, see ``shared_refinements``. Raises
        ``ConfigError`` for sides that do not grow, or fewer than one refinement.
        """
        super().__init__()
        if len(scales) < 2 or scales[0] < 1 or any(b <= a for a, b in pairwise(scales)):
            raise ConfigError(
                f"tokenizer.scales is {list(scales)}; write the sides of two grids or more, growing, such as [1, 2, 4]."
            )
        if num_refinements < 1:
            raise ConfigError(f"tokenizer.num_refinements is {num_refinements}; write 1 or more.")
        self.scales = tuple(scales)
        self.codebook = GradientCodebook(
            num_codes=codebook_size, width=width, restart_unused_codes=False
        )
        self.refinements = nn.ModuleList(
            Refinement(width, refinement_share) for _ in range(num_refinements)
        )
        self.chosen = shared_refinements(len(scales), num_refinements)

    @property
    def num_cells(self) -> int:
        """P, the cells of all scales."""
        return sum(side * side for side in self.scales)

    def forward(self, features: Tensor) -> ScaleQuantized:
        """Code features ``(B, C, h, h)``, without a gradient."""
        with torch.no_grad(), torch.autocast(features.device.type, enabled=False), full_float32():
            rest = features.float()
            total, codes = torch.zeros_like(rest), []
            for number, side in enumerate(self.scales):
                cells = self._shrunk(rest, side).permute(0, 2, 3, 1)
                codes.append(self.codebook.nearest(cells.flatten(0, 2)).view(len(rest), -1))
                said = self._said(codes[-1], number)
                total, rest = total + said, rest - said
        return ScaleQuantized(total, torch.cat(codes, dim=1))

    def features(self, codes: Tensor, upto: int | None = None) -> Tensor:
        """Return what codes ``(B, P)`` stand for, ``(B, C, h, h)``: the first ``upto`` scales, or all.

        Raises ``DataError`` for another number of codes, ``ConfigError`` for scales that there are not.
        """
        upto = len(self.scales) if upto is None else upto
        if not 1 <= upto <= len(self.scales):
            raise ConfigError(
                f"upto is {upto}; write a number of scales from 1 to {len(self.scales)}."
            )
        parts = self._parts(codes)[:upto]
        with torch.autocast(codes.device.type, enabled=False), full_float32():
            said = [self._said(part, number) for number, part in enumerate(parts)]
        return torch.stack(said).sum(dim=0)

    def shown(self, codes: Tensor) -> Tensor:
        """Return what a model is shown of codes ``(B, P)`` while it learns to draw: float32 ``(B, P - p * p, C)``.

        Every cell but those of the first scale, of p x p cells, has what the coarser scales stand for at its place
        (VAR, section 3.2). Cells of a scale say nothing of its own codes. Raises ``DataError`` for another number
        of codes.
        """
        parts, numbers = self._parts(codes), range(len(self.scales))
        with torch.autocast(codes.device.type, enabled=False), full_float32():
            sums = accumulate(self._said(parts[number], number) for number in numbers[:-1])
            maps = [self._cells(total, n) for total, n in zip(sums, numbers[1:], strict=True)]
        return torch.cat(maps, dim=1)

    def grown(self, total: Tensor | None, codes: Tensor, scale: int) -> Tensor:
        """Return the running sum ``(B, C, h, h)`` with the codes ``(B, p * p)`` of one more scale, in float32.

        ``total`` is that of all coarser scales, None before the first. Raises ``DataError`` for codes or a sum of
        another shape, ``ConfigError`` for a scale that there is not.
        """
        self._check_scale(scale)
        cells = self.scales[scale] ** 2
        if codes.dim() != 2 or codes.shape[1] != cells:
            raise DataError(
                f"codes of scale {scale} have the shape {tuple(codes.shape)}; give (images, {cells})."
            )
        with torch.autocast(codes.device.type, enabled=False), full_float32():
            said = self._said(codes, scale)
        if total is None:
            return said
        self._check_total(total)
        return total + said

    def shown_to(self, total: Tensor, scale: int) -> Tensor:
        """Return what the cells of a scale are shown of a running sum ``(B, C, h, h)``: ``(B, p * p, C)``.

        Scale by scale this is what ``shown`` returns for all. Raises ``DataError`` for a sum of another shape,
        ``ConfigError`` for a scale that there is not, or the first, which is shown nothing.
        """
        self._check_scale(scale, least=1)
        self._check_total(total)
        return self._cells(total, scale)

    def _parts(self, codes: Tensor) -> tuple[Tensor, ...]:
        """Take codes ``(B, P)`` apart: those of each scale."""
        if codes.dim() != 2 or codes.shape[1] != self.num_cells:
            raise DataError(
                f"codes have the shape {tuple(codes.shape)}; give (images, {self.num_cells}), those of all scales."
            )
        return codes.split([side * side for side in self.scales], dim=1)

    def _check_scale(self, scale: int, *, least: int = 0) -> None:
        if not least <= scale < len(self.scales):
            raise ConfigError(
                f"scale is {scale}; write a number from {least} to {len(self.scales) - 1}, the finest."
            )

    def _check_total(self, total: Tensor) -> None:
        expected = (self.codebook.weight.shape[1], self.scales[-1], self.scales[-1])
        if total.dim() != 4 or total.shape[1:] != expected:
            raise DataError(
                f"the sum of the scales has the shape {tuple(total.shape)}; give (images, "
                f"{', '.join(map(str, expected))}), as grown returns it."
            )

    def _said(self, codes: Tensor, number: int) -> Tensor:
        """What the codes ``(B, p * p)`` of one scale add: ``(B, C, h, h)``."""
        side, full = self.scales[number], self.scales[-1]
        vectors = self.codebook.weight[codes].transpose(1, 2).unflatten(2, (side, side))
        if side != full:
            vectors = F.interpolate(vectors, size=(full, full), mode="bicubic")
        return self.refinements[self.chosen[number]](vectors)

    def _shrunk(self, features: Tensor, side: int) -> Tensor:
        if side == self.scales[-1]:
            return features
        return F.interpolate(features, size=(side, side), mode="area")

    def _cells(self, total: Tensor, number: int) -> Tensor:
        """A sum of scales ``(B, C, h, h)`` on the grid of one: ``(B, p * p, C)``."""
        return self._shrunk(total, self.scales[number]).flatten(2).transpose(1, 2)


def shared_refinements(num_scales: int, num_refinements: int) -> list[int]:
    """Return which refinement each scale uses: the one whose place among all is nearest to the scale's.

    The places of four lie a little nearer to the ends than those of other numbers, as published.
    """
    edge = 1 / (3 if num_refinements == 4 else 2) / num_refinements
    # In this order of operations: the published scales tie, and rounding decides.
    step = ((1 - edge) - edge) / max(1, num_refinements - 1)
    places = [n * step + edge for n in range(num_refinements)]
    chosen = []
    for number in range(num_scales):
        distances = [abs(place - number / max(1, num_scales - 1)) for place in places]
        chosen.append(distances.index(min(distances)))
    return chosen
