import pytest
import torch

from vilau.errors import ConfigError
from vilau.models.vila_u.config import HeadConfig
from vilau.models.vila_u.head import DepthTransformer

N, D, Z, E, K = 5, 4, 6, 10, 9


def head(dropout=0.0) -> DepthTransformer:
    torch.manual_seed(0)
    config = HeadConfig(width=16, num_layers=2, num_heads=2, dropout=dropout)
    return DepthTransformer(config, depth=D, code_width=Z, hidden_width=E, codebook_size=K)


def test_sampling_with_a_cache_sees_the_teacher_forced_logits():
    layer, hidden = head(), torch.randn(N, E)
    table = torch.randn(K, Z)
    seen = []

    def choose(logits, depth):
        seen.append(logits)
        return (logits.argmax(dim=-1) + depth) % K

    codes, sums = layer.sample(hidden, choose=choose, vectors=lambda c: table[c])
    assert codes.shape == (N, D)
    torch.testing.assert_close(sums, table[codes].sum(dim=1))
    forced = layer(hidden, table[codes].cumsum(dim=1))
    torch.testing.assert_close(torch.stack(seen, dim=1), forced)


def test_a_depth_sees_the_codes_before_it_alone():
    layer, hidden = head(), torch.randn(N, E)
    sums = torch.randn(N, D, Z)
    base = layer(hidden, sums)
    for d in range(D):
        changed = sums.clone()
        changed[:, d] += 1.0
        moved = (layer(hidden, changed) - base).abs().amax(dim=(0, 2)) > 1e-6
        assert moved.tolist() == [later > d for later in range(D)]


def test_positions_do_not_see_one_another():
    layer, hidden, sums = head(), torch.randn(N, E), torch.randn(N, D, Z)
    torch.testing.assert_close(layer(hidden[1:2], sums[1:2]), layer(hidden, sums)[1:2])


def test_published_size():
    with torch.device("meta"):
        published = DepthTransformer(
            HeadConfig(), depth=4, code_width=1024, hidden_width=4096, codebook_size=16384
        )
    assert sum(p.numel() for p in published.parameters()) == 527_145_984


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match=r"head.num_heads is 3.*head.width 16; write a divisor"):
        HeadConfig(width=16, num_heads=3)
