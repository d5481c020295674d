"""The adversarial losses against formulas written out again."""

import pytest
import torch
from torch import nn

from vilau.layers.adversarial import (
    LeCam,
    PatchDiscriminator,
    adaptive_weight,
    generator_loss,
    gradient_penalty,
    hinge_loss,
)


def pictures(count: int = 3, side: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_the_discriminator_is_rq_vaes():
    torch.manual_seed(0)
    layers = PatchDiscriminator(num_layers=2, channels=64).layers
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    assert [c.weight.shape[:2] for c in convolutions] == [(64, 3), (128, 64), (256, 128), (1, 256)]
    assert [c.stride[0] for c in convolutions] == [2, 2, 1, 1]
    assert [c.bias is None for c in convolutions] == [False, True, True, False]
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in layers) == 2
    assert abs(float(convolutions[2].weight.std()) - 0.02) < 0.001
    deep = PatchDiscriminator(num_layers=5, channels=4).layers
    assert max(c.out_channels for c in deep if isinstance(c, nn.Conv2d)) == 32


@pytest.mark.parametrize(("side", "layers"), [(16, 2), (64, 2), (256, 3)])
def test_number_of_patches(side, layers):
    net = PatchDiscriminator(num_layers=layers, channels=2)
    patches = PatchDiscriminator.num_patches(side, num_layers=layers)
    assert net(pictures(2, side)).shape == (2, 1, patches, patches)


def test_a_pass_that_measures_leaves_nothing_behind():
    net = PatchDiscriminator(channels=4)
    assert not list(net.buffers())
    assert torch.equal(net(pictures()), net.eval()(pictures()))


def test_hinge_and_generator_losses():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 1.0])
    assert float(hinge_loss(real, fake)) == pytest.approx(
        0.5 * ((0 + 0.5 + 2) / 3 + (0 + 1 + 2) / 3)
    )
    assert float(generator_loss(fake)) == pytest.approx(2 / 3)


def test_gradient_penalty_is_half_the_squared_slope():
    torch.manual_seed(0)
    net, real = PatchDiscriminator(channels=4), pictures()
    penalty = gradient_penalty(net, real)
    for image in range(3):  # a slope by finite differences, in float64
        double, moved = net.double(), real.double().clone()
        step = torch.zeros_like(moved)
        step[image, 1, 5, 7] = 1e-4
        total = [double(moved + sign * step).mean(dim=(1, 2, 3)).sum() for sign in (1, -1)]
        pixels = moved.clone().requires_grad_()
        (slope,) = torch.autograd.grad(double(pixels).mean(dim=(1, 2, 3)).sum(), pixels)
        assert float(slope[image, 1, 5, 7]) == pytest.approx(
            float(total[0] - total[1]) / 2e-4, rel=1e-3, abs=1e-9
        )
    assert float(penalty) == pytest.approx(float(slope.square().sum() / 3 / 2), rel=1e-4)
    penalty = gradient_penalty(net.float(), real)
    penalty.backward()
    assert all(p.grad is not None for p in net.parameters() if p.ndim == 4)


def test_lecam_pulls_towards_running_means():
    module = LeCam(decay=0.9)
    first = module(torch.tensor([1.0, 3.0]), torch.tensor([-1.0, 0.0]))
    assert float(first) == pytest.approx((1.5**2 + 3.5**2) / 2 + (3.0**2 + 2.0**2) / 2)
    second = module(torch.tensor([4.0]), torch.tensor([2.0]))
    real, fake = 0.9 * 2 + 0.1 * 4, 0.9 * -0.5 + 0.1 * 2
    assert float(second) == pytest.approx((4 - fake) ** 2 + (2 - real) ** 2)


def test_adaptive_weight_is_the_ratio_of_gradients_at_the_last_layer():
    torch.manual_seed(0)
    body, last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 3, padding=1)
    net, images = PatchDiscriminator(channels=4), pictures()
    fake = last(body(images))
    losses = ((fake - images).square().mean(), generator_loss(net(fake)))
    found = adaptive_weight(*losses, last.weight)
    assert not found.requires_grad
    norms = []
    for loss in losses:
        last.weight.grad = None
        loss.backward(retain_graph=True)
        norms.append(float(last.weight.grad.norm()))
    assert float(found) == pytest.approx(norms[0] / (norms[1] + 1e-4), rel=1e-5)
    assert float(adaptive_weight(*losses, last.weight, limit=0.25)) == 0.25
    nowhere = 0.0 * losses[1]
    limited = adaptive_weight(1e6 * losses[0], nowhere, last.weight)
    assert float(limited) == 1e4


def test_frozen_inside_trained_outside():
    net, images = PatchDiscriminator(channels=4), pictures().requires_grad_()
    with net.frozen():
        generator_loss(net(images)).backward()
    assert images.grad is not None
    assert all(p.grad is None for p in net.parameters())
    assert all(p.requires_grad for p in net.parameters())
