import math

import pytest
import torch
from torch import nn

from tests.models import tiny
from vilau.errors import ConfigError
from vilau.training.optimizers import OptimizerConfig, build_optimizer, rate_share
from vilau.training.tower import TowerTraining


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


@pytest.mark.parametrize("shared", [True, False])
def test_codes_learnt_by_gradient_do_not_decay(tmp_path, shared):
    quantizer = tiny.quantizer(learning="gradient", shared_codebook=shared)
    source = tiny.siglip_folder(tmp_path / "siglip")
    module = TowerTraining(source, quantizer, tiny.decoder(), perceptual_weight=0.0)
    config = OptimizerConfig(weight_decay=0.5, learning_rate=0.1, warmup_share=0.0)
    optimizer = build_optimizer(module.trained_parameters(), config, num_steps=10)["optimizer"]
    decayed, free = ({id(p) for p in group["params"]} for group in optimizer.param_groups)
    codes = list(module.tower.quantizer.parameters())
    assert len(codes) == (1 if shared else 3)
    assert all(id(p) in free and id(p) not in decayed and p.ndim == 2 for p in codes)
    assert id(module.tower.decoder.conv_out.weight) in decayed
    # A step without any gradient moves what decays, and leaves the codes alone.
    kept, other = codes[0].detach().clone(), module.tower.decoder.conv_out.weight
    before = other.detach().clone()
    for parameter in (codes[0], other):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.equal(codes[0], kept)
    assert torch.allclose(other, 0.95 * before)


def test_a_tower_with_averaged_codes_is_grouped_by_dimensions_alone(tmp_path):
    """As it always was: resumed runs find their averages in the same places."""
    source = tiny.siglip_folder(tmp_path / "siglip")
    module = TowerTraining(source, tiny.quantizer(), tiny.decoder(), perceptual_weight=0.0)
    config = OptimizerConfig(weight_decay=0.5)
    optimizer = build_optimizer(module.trained_parameters(), config, num_steps=10)["optimizer"]
    trained = [p for p in module.parameters() if p.requires_grad]
    for group, kind in zip(optimizer.param_groups, (True, False), strict=True):
        expected = [id(p) for p in trained if (p.ndim >= 2) is kind]
        assert [id(p) for p in group["params"]] == expected
