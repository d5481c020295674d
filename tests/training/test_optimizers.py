import math

import pytest
import torch
from torch import nn

from vilau.errors import ConfigError
from vilau.training.optimizers import OptimizerConfig, build_optimizer, rate_share


def test_rate_rises_falls_and_ends_at_the_final_share():
    config = OptimizerConfig(warmup_share=0.1, final_share=0.2)
    shares = [rate_share(step, 100, config) for step in range(101)]
    assert shares[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert max(shares) == 1.0
    assert all(a >= b for a, b in zip(shares[10:], shares[11:], strict=False))
    assert shares[55] == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert shares[100] == pytest.approx(0.2)


def test_a_constant_rate_stays():
    config = OptimizerConfig(schedule="constant", warmup_share=0.0)
    assert {rate_share(step, 10, config) for step in range(12)} == {1.0}


def test_decay_falls_on_matrices_and_frozen_weights_are_left_out():
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.LayerNorm(3), nn.Linear(3, 4))
    model[2].weight.requires_grad_(requires_grad=False)
    built = build_optimizer(
        model.named_parameters(), OptimizerConfig(weight_decay=0.5), num_steps=10
    )["optimizer"]
    decayed, free = built.param_groups
    assert [p.ndim for p in decayed["params"]] == [4]
    assert decayed["weight_decay"] == 0.5
    assert free["weight_decay"] == 0.0
    assert {p.ndim for p in free["params"]} == {1}
    assert all(p is not model[2].weight for g in built.param_groups for p in g["params"])


def test_scheduler_steps_with_the_optimizer():
    weight = nn.Parameter(torch.ones(2, 2))
    config = OptimizerConfig(learning_rate=1.0, warmup_share=0.5)
    built = build_optimizer([("w", weight)], config, num_steps=4)
    assert built["lr_scheduler"]["interval"] == "step"
    assert built["optimizer"].param_groups[0]["lr"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate is 0.0; write a positive number"),
        ({"warmup_share": 1.0}, "warmup_share is 1.0; write a share from 0 to below 1"),
    ],
)
def test_impossible_settings(changes, message):
    with pytest.raises(ConfigError, match=message):
        OptimizerConfig(**changes)
