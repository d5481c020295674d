"""Pre-norm transformer blocks of our own (the depth transformer's)."""

from torch import Tensor, nn

from vilau.layers.attention import CausalSelfAttention, KeyValueCache


class Block(nn.Module):
    """x += attention(LN x); x += MLP(LN x), exact GELU, as in RQ-Transformer's depth blocks."""

    def __init__(self, *, width: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width)
        self.attention = CausalSelfAttention(width=width, num_heads=num_heads)
        self.norm_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTE: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """Map ``(B, T, E)`` to ``(B, T, E)``."""
        x_BTE = x_BTE + self.dropout(self.attention(self.norm_1(x_BTE), cache))
        return x_BTE + self.dropout(self.mlp(self.norm_2(x_BTE)))
