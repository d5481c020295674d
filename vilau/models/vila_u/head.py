"""The depth transformer: D codes of a position, one after another (VILA-U section 3.2, eq. 3-4).

B images, P positions of an image, N = B * P, D residual depth, Z code width, E language-model width,
W head width, K codebook size.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vilau.layers.attention import KeyValueCache
from vilau.layers.transformer import Block
from vilau.models.vila_u.config import HeadConfig


class DepthTransformer(nn.Module):
    """Predict code d of a position from the language model's state and the sum of the codes before it.

    Input at depth 1 is the projected hidden state; at depth d > 1 the projected *sum* of the code vectors of
    depths 1..d-1. It has no code table of its own: ``partial_sums`` reads the tower's, mapping codes
    ``(N, D)`` to the sums of their vectors after each depth, ``(N, D, Z)``.
    """

    def __init__(
        self,
        config: HeadConfig,
        *,
        depth: int,
        code_width: int,
        hidden_width: int,
        codebook_size: int,
        partial_sums: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.depth = depth
        self._partial_sums = partial_sums
        self.code_projection = nn.Linear(code_width, config.width)
        self.hidden_projection = nn.Linear(hidden_width, config.width)
        self.depth_embedding = nn.Parameter(torch.empty(1, depth, config.width).normal_(std=0.02))
        self.blocks = nn.ModuleList(
            Block(width=config.width, num_heads=config.num_heads, dropout=config.dropout)
            for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.classifier = nn.Linear(config.width, codebook_size)

    def forward(self, hidden_BPE: Tensor, codes_BPD: Tensor) -> Tensor:
        """Teacher-forced logits ``(B, P, D, K)`` of codes ``(B, P, D)``.

        ``hidden`` at a position is the language model's last state at the token *before* it. Logits d see
        the codes of depths before d alone; positions do not see one another.
        """
        codes_ND = codes_BPD.flatten(0, 1)
        logits_NDK = self.logits(hidden_BPE.flatten(0, 1), self._partial_sums(codes_ND))
        return logits_NDK.unflatten(0, codes_BPD.shape[:2])

    def logits(self, hidden_NE: Tensor, partial_sums_NDZ: Tensor) -> Tensor:
        """Logits ``(N, D, K)`` given the sums of the code vectors after each depth (the last is not read)."""
        first_N1W = self.hidden_projection(hidden_NE)[:, None]
        later_NDW = self._projected(partial_sums_NDZ[:, :-1])
        x_NDW = torch.cat([first_N1W, later_NDW], dim=1)
        x_NDW = x_NDW + self.depth_embedding
        for block in self.blocks:
            x_NDW = block(x_NDW)
        return self.classifier(self.norm(x_NDW))

    def sample(
        self,
        hidden_NE: Tensor,
        *,
        choose: Callable[[Tensor, int], Tensor],
        vectors: Callable[[Tensor, int], Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Draw the D codes of each position; returns codes ``(N, D)`` and the sum of vectors ``(N, Z)``.

        ``choose(logits (N, K), depth)`` returns the codes ``(N,)`` of a depth, counted from 0;
        ``vectors(codes, depth)`` their vectors ``(N, Z)``.
        """
        caches = [KeyValueCache() for _ in self.blocks]
        x_N1W = self.hidden_projection(hidden_NE)[:, None]
        codes, total_NZ = [], None
        for d in range(self.depth):
            y_N1W = x_N1W + self.depth_embedding[:, d : d + 1]
            for block, cache in zip(self.blocks, caches, strict=True):
                y_N1W = block(y_N1W, cache)
            code_N = choose(self.classifier(self.norm(y_N1W[:, 0])), d)
            codes.append(code_N)
            drawn_NZ = vectors(code_N, d)
            total_NZ = drawn_NZ if total_NZ is None else total_NZ + drawn_NZ
            x_N1W = self._projected(total_NZ)[:, None]
        assert total_NZ is not None
        return torch.stack(codes, dim=1), total_NZ

    def _projected(self, sums: Tensor) -> Tensor:
        # Code vectors are float32 whatever the dtype of the weights.
        return self.code_projection(sums.to(self.code_projection.weight.dtype))
