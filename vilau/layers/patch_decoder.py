"""A decoder that writes each cell's patch of pixels from what a transformer makes of the grid (as ViT-VQGAN's does,
Yu et al. 2022): for towers that learn to reconstruct within hundreds of steps on a CPU.

B images, c channels, h w grid, N = h * w cells, E width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PatchBlock(nn.Module):
    """x += attention(LN x); x += MLP(LN x); every cell sees every other."""

    def __init__(self, *, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_1 = nn.LayerNorm(width)
        self.joint = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 3 * width), nn.ReLU(), nn.Linear(3 * width, width)
        )

    def forward(self, x_BNE: Tensor) -> Tensor:
        """Map ``(B, N, E)`` to ``(B, N, E)``."""
        parts = self.joint(self.norm_1(x_BNE)).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each (B, heads, N, E / heads)
        # Explicit: on a CPU the fused kernel's bfloat16 backward takes longer than both products.
        scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-1, -2))
        seen = torch.matmul(F.softmax(scores, dim=-1), value)
        x_BNE = x_BNE + self.out(seen.transpose(1, 2).flatten(2))
        return x_BNE + self.mlp(self.norm_2(x_BNE))


class PatchDecoder(nn.Module):
    """Decode a grid of ``in_channels`` into an image of ``patch`` x ``patch`` pixels per cell.

    The two-layer head matters more than the depth of the trunk: an edge within a patch is no linear function of
    what the cell holds, and without a hidden layer it stays blurred for thousands of steps.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        width: int,
        patch: int,
        num_layers: int = 1,
        num_heads: int = 4,
        head_size: int = 768,
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(in_channels, width, 1)
        self.layers = nn.ModuleList(
            PatchBlock(width=width, num_heads=num_heads) for _ in range(num_layers)
        )
        self.norm_out = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, head_size)
        self.linear_out = nn.Linear(head_size, 3 * patch**2)
        self.patch = patch

    @property
    def last_layer(self) -> nn.Linear:
        """What writes the pixels."""
        return self.linear_out

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, h, w)`` to ``(B, 3, h * patch, w * patch)``, unbounded (pixels near [-1, 1])."""
        x = self.conv_in(x)
        size = x.shape[-2:]
        x_BNE = x.flatten(2).transpose(1, 2)
        for layer in self.layers:
            x_BNE = layer(x_BNE)
        patches = self.linear_out(F.relu(self.hidden(self.norm_out(x_BNE))))
        return F.pixel_shuffle(patches.transpose(1, 2).unflatten(2, size), self.patch)
