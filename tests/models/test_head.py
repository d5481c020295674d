import pytest
import torch

from vilau.errors import ConfigError
from vilau.models.vila_u.config import HeadConfig
from vilau.models.vila_u.head import DepthTransformer

N, D, Z, E, K = 5, 4, 6, 10, 9


TABLES = torch.randn(D, K, Z, generator=torch.Generator().manual_seed(1))
"""A codebook for each depth."""


def partial_sums(codes: torch.Tensor) -> torch.Tensor:
    return torch.stack([TABLES[d, codes[..., d]] for d in range(D)], dim=-2).cumsum(dim=-2)


def head(dropout=0.0) -> DepthTransformer:
    torch.manual_seed(0)
    config = HeadConfig(width=16, num_layers=2, num_heads=2, dropout=dropout)
    return DepthTransformer(
        config,
        depth=D,
        code_width=Z,
        hidden_width=E,
        codebook_size=K,
        partial_sums=partial_sums,
    )


def test_sampling_with_a_cache_sees_the_teacher_forced_logits():
    layer, hidden = head(), torch.randn(N, E)
    seen = []

    def choose(logits, depth):
        seen.append(logits)
        return (logits.argmax(dim=-1) + depth) % K

    codes, sums = layer.sample(hidden, choose=choose, vectors=lambda c, d: TABLES[d, c])
    assert codes.shape == (N, D)
    torch.testing.assert_close(sums, partial_sums(codes)[:, -1])
    forced = layer(hidden[None], codes[None])
    assert forced.shape == (1, N, D, K)
    torch.testing.assert_close(torch.stack(seen, dim=1), forced[0])


def test_a_depth_sees_the_codes_before_it_alone():
    layer, hidden = head(), torch.randn(1, N, E)
    codes = torch.randint(K, (1, N, D))
    base = layer(hidden, codes)
    for d in range(D):
        changed = codes.clone()
        changed[..., d] = (codes[..., d] + 1) % K
        moved = (layer(hidden, changed) - base).abs().amax(dim=(0, 1, 3)) > 1e-6
        assert moved.tolist() == [later > d for later in range(D)]


def test_positions_do_not_see_one_another():
    layer, hidden, codes = head(), torch.randn(2, N, E), torch.randint(K, (2, N, D))
    alone = layer(hidden[1:, 1:2], codes[1:, 1:2])
    torch.testing.assert_close(alone, layer(hidden, codes)[1:, 1:2])


def test_published_size():
    with torch.device("meta"):
        published = DepthTransformer(
            HeadConfig(),
            depth=4,
            code_width=1024,
            hidden_width=4096,
            codebook_size=16384,
            partial_sums=torch.cumsum,
        )
    assert sum(p.numel() for p in published.parameters()) == 527_145_984


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match=r"head.num_heads is 3.*head.width 16; write a divisor"):
        HeadConfig(width=16, num_heads=3)
