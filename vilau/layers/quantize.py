"""Residual vector quantisation (Lee et al. 2022; VILA-U section 3.1).

B images, P positions, Z code width, D residual depth, K codebook size.
"""

from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn

from vilau.layers.codebook import EmaCodebook


@dataclass
class Quantized:
    """What a quantiser returns."""

    features: Tensor
    """``(B, P, Z)``: the sum of the code vectors; its gradient flows to the input unchanged."""
    codes: Tensor
    """int64 ``(B, P, D)``."""
    commitment_loss: Tensor
    """Scalar: mean over depths of the mean squared distance from the input to the partial sum."""
    residual_energy: Tensor
    """``(B, D)``: squared norm left after each depth, as a share of the input's."""


class ResidualQuantizer(nn.Module):
    """Quantise a vector as a sum of D codes from one shared codebook, each coding what is left.

    r_0 = x;  k_d = argmin_j |r_{d-1} - e_j|^2;  r_d = r_{d-1} - e_{k_d}   (VILA-U eq. 1).
    In training mode the codebook is updated once per depth, in order, as in the published code.
    """

    def __init__(
        self,
        *,
        depth: int,
        codebook_size: int,
        width: int,
        decay: float = 0.99,
        restart_unused_codes: bool = True,
    ) -> None:
        super().__init__()
        self.depth = depth
        self.codebook = EmaCodebook(
            num_codes=codebook_size,
            width=width,
            decay=decay,
            restart_unused_codes=restart_unused_codes,
        )

    def forward(self, features_BPZ: Tensor) -> Quantized:
        """Quantise ``(B, P, Z)``; everything runs in float32, even under autocast.

        ``features`` come back in the input's dtype.
        """
        B, P, Z = features_BPZ.shape
        with torch.autocast(features_BPZ.device.type, enabled=False):
            x = features_BPZ.float().contiguous()
            target = x.detach()
            residual = target.reshape(B * P, Z)
            total = torch.zeros_like(residual)
            energy = target.square().sum(dim=(1, 2)).clamp(min=1e-12)
            codes, losses, left = [], [], []
            for _ in range(self.depth):
                code_N = self.codebook.nearest(residual)
                vectors = self.codebook.weight[code_N]
                if self.training:
                    self.codebook.update(residual, code_N)
                residual = residual - vectors
                total = total + vectors
                codes.append(code_N)
                losses.append((x - total.view(B, P, Z)).square().mean())
                left.append(residual.view(B, P * Z).square().sum(dim=1) / energy)
            # x - x.detach() is exactly zero, so the value is the sum of the code vectors to the
            # last bit and the gradient is the identity.
            straight_through = total.view(B, P, Z) + (x - target)
        return Quantized(
            features=straight_through.to(features_BPZ.dtype),
            codes=torch.stack(codes, dim=-1).view(B, P, self.depth),
            commitment_loss=torch.stack(losses).mean(),
            residual_energy=torch.stack(left, dim=-1),
        )

    def embed(self, codes_BPD: Tensor, upto: int | None = None) -> Tensor:
        """Sum the code vectors of the first ``upto`` depths (all): ``(B, P, D)`` to ``(B, P, Z)``."""
        return self.embed_cumulative(codes_BPD[..., :upto])[..., -1, :]

    def embed_cumulative(self, codes_BPD: Tensor) -> Tensor:
        """Return the partial sums after each depth: ``(B, P, D)`` to ``(B, P, D, Z)``, float32.

        Added one after another as ``forward`` does (torch's sum and cumsum round otherwise).
        """
        vectors = self.codebook.weight[codes_BPD]
        return torch.stack(list(accumulate(vectors.unbind(dim=-2), torch.add)), dim=-2)
