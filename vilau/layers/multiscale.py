"""The residual quantiser over scales of VAR (Tian et al. 2024, algorithms 1 and 2), which VARGPT draws with.

B images, C code width, S scales of p x p cells, P cells of all scales, h the side of the finest, V codes. Scales are
counted from 0, the coarsest.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import accumulate, pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vilau.errors import ConfigError, DataError
from vilau.layers.codebook import GradientCodebook
from vilau.layers.nearest import full_float32, nearest
from vilau.layers.parts import Parts
from vilau.layers.quantized import Quantized, mean_square
from vilau.layers.ranks import GlobalRows
from vilau.layers.refinements import shared_refinements


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

    initialised: Tensor
    updates_per_depth = False

    def __init__(
        self,
        *,
        scales: Sequence[int],
        codebook_size: int,
        width: int,
        num_refinements: int = 4,
        refinement_share: float = 0.5,
        decay: float = 0.99,
        restart_unused_codes: bool = False,
        initialisation: Literal["normal", "data"] = "normal",
    ) -> None:
        """Take the sides of the grids, coarse first, the last being that of the features.

        ``num_refinements`` convolutions are shared among the scales, see ``shared_refinements``. How codes learn is
        said as to ``ResidualQuantizer``: by gradient, from N(0, 1), without restarts, as published; or each scale's
        share of them starts from its cells of the first training batch, and unused ones restart. Raises
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
            num_codes=codebook_size,
            width=width,
            decay=decay,
            restart_unused_codes=restart_unused_codes,
        )
        self.refinements = nn.ModuleList(
            Refinement(width, refinement_share) for _ in range(num_refinements)
        )
        self.chosen = shared_refinements(len(scales), num_refinements)
        for number, refinement in enumerate(self.refinements):
            if (
                number not in self.chosen
            ):  # of few scales: data parallelism refuses weights that no loss reaches
                refinement.requires_grad_(requires_grad=False)
        if initialisation == "data":
            self.register_buffer("initialised", torch.tensor(False))
        self.parts = Parts()

    @property
    def overwrites_parameters(self) -> bool:
        """Whether training writes into trained weights, which is lost where they are sharded."""
        return self.codebook.restart_unused_codes or hasattr(self, "initialised")

    @property
    def num_cells(self) -> int:
        """P, the cells of all scales."""
        return sum(side * side for side in self.scales)

    # ---------------------------------------------------------------- features to codes

    def forward(self, features: Tensor) -> Quantized:
        """Quantise ``(B, C, h, h)``; in training codes start and restart as told, and all losses have gradients.

        f_k is the sum of the scales up to k; the losses are the means over k of mse(f, sg f_k), the commitment, and
        mse(sg f, f_k), which reaches codes and refinements (VAR's code; reference A1.4).
        """
        with torch.autocast(features.device.type, enabled=False), full_float32():
            x = features.float()
            target = x.detach()
            if self.training:
                self._initialise(target)
            energy = target.square().sum(dim=(1, 2, 3)).clamp(min=1e-12)
            rest, total = target, torch.zeros_like(target)
            cells, codes, commitments, fits, left = [], [], [], [], []
            for number in range(len(self.scales)):
                cells.append(self._cells(rest, number))
                codes.append(self._nearest(cells[-1]))
                said = self._said(codes[-1], number)
                total, rest = total + said, rest - said.detach()
                commitments.append(mean_square(x - total.detach()))
                fits.append(mean_square(total - target))
                left.append(rest.square().sum(dim=(1, 2, 3)) / energy)
            if self.training and self.codebook.restart_unused_codes:
                self._restart(torch.cat(cells, dim=1).flatten(0, 1), torch.cat(codes, 1).flatten())
        # x - x.detach() is exactly zero: the value is the sum to the last bit, the gradient the identity.
        return Quantized(
            features=total.detach() + (x - target),
            codes=torch.cat(codes, dim=1)[..., None],
            commitment_loss=torch.stack(commitments).mean(),
            residual_energy=torch.stack(left, dim=-1),
            codebook_loss=torch.stack(fits).mean(),
        )

    @torch.no_grad()
    def encode(self, features: Tensor) -> Tensor:
        """Return the codes ``(B, P)`` alone, the coarsest scale first, each in raster order; nothing is learnt."""
        with torch.autocast(features.device.type, enabled=False), full_float32():
            rest, codes = features.float(), []
            for number in range(len(self.scales)):
                codes.append(self._nearest(self._cells(rest, number)))
                rest = rest - self._said(codes[-1], number)
        return torch.cat(codes, dim=1)

    def part(self, *, more_follow: bool) -> AbstractContextManager[None]:
        """Make a training pass one of the accumulated parts of a step: codes restart with the last, once."""
        return self.parts.following(more_follow)

    def _nearest(self, cells_BNC: Tensor) -> Tensor:
        return self.codebook.nearest(cells_BNC.flatten(0, 1)).view(cells_BNC.shape[:2])

    @torch.no_grad()
    def _initialise(self, features: Tensor) -> None:
        """Start the codes from the first batch where they are to, once: each scale's share from what is left for it."""
        if not hasattr(self, "initialised") or bool(self.initialised):
            return
        images = GlobalRows.of(len(features), features.device)
        if images.total == 0:
            return
        K, S, rest = len(self.codebook.weight), len(self.scales), features
        for number, side in enumerate(self.scales):
            cells = self._cells(rest, number).flatten(0, 1)
            share = [-(-K * part // S) for part in (number, number + 1)]
            if codes := range(*share):
                self.codebook.fill(codes, cells, images.times(side * side))
            chosen = nearest(cells, self.codebook.weight[: share[1]])
            rest = rest - self._said(chosen.view(len(features), -1), number)
        self.initialised.fill_(True)

    @torch.no_grad()
    def _restart(self, cells_NC: Tensor, codes_N: Tensor) -> None:
        """Count which codes are used, and put cells in the place of unused ones, once an optimiser step."""
        where = GlobalRows.of(len(cells_NC), cells_NC.device)
        if self.parts.more_follow or len(self.parts):
            self.parts.add(cells_NC, [codes_N])
            if self.parts.more_follow:
                return
            cells_NC, (codes_N,), where = self.parts.take()
        self.codebook.update(cells_NC, codes_N, where)

    # ---------------------------------------------------------------- codes to features

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
