"""Codebooks learn from the accumulated parts of an optimiser step as from one batch."""

import pytest
import torch
from torch import Tensor

from tests.layers.test_quantize import D, K, Z, quantizer
from vilau.errors import ConfigError
from vilau.layers.quantize import ResidualQuantizer

CASES = {
    "once per step": {"update": "per_step"},
    "no restarts": {"update": "per_step", "restart_unused_codes": False},
    "a codebook per depth": {"shared_codebook": False},
    "by gradient": {"learning": "gradient"},
    "as published": {"update": "per_step", "search": "published"},
}


def vectors(count: int, seed: int) -> Tensor:
    return torch.randn(count, 1, Z, generator=torch.Generator().manual_seed(seed)) + 1


def learn(layer: ResidualQuantizer, x: Tensor, sizes: list[int], seed: int) -> Tensor:
    """One optimiser step in parts of these sizes; returns the codes."""
    torch.manual_seed(seed)
    codes = []
    for number, part in enumerate(x.split(sizes)):
        before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
        last = number == len(sizes) - 1
        with layer.part(more_follow=not last):
            codes.append(layer(part).codes)
        after = layer.state_dict()
        assert all(torch.equal(after[name], before[name]) for name in before) != last
    return torch.cat(codes)


@pytest.mark.parametrize("sizes", [[20, 20], [31, 2, 7], [1, 2]])  # the last: fewer than codes
@pytest.mark.parametrize("case", CASES)
def test_parts_learn_and_restart_as_one_batch_to_the_bit(case, sizes):
    whole, parts = (quantizer(decay=0.9, **CASES[case]).train() for _ in range(2))
    for layer in (whole, parts):
        # Most codes stay: many restarts make twins, between which rounding decides.
        for d in range(D):
            layer.book(d).cluster_size_ema.copy_(torch.linspace(0.9, 4, K))
    dtype = torch.bfloat16 if case == "as published" else torch.float32
    restarted = 0
    for step in range(3):
        x = vectors(sum(sizes), seed=step).to(dtype)
        codes = learn(whole, x, [len(x)], seed=step)
        state = torch.get_rng_state()
        assert torch.equal(learn(parts, x, sizes, seed=step), codes)
        assert torch.equal(torch.get_rng_state(), state)
        expected = whole.state_dict()
        for name, tensor in parts.state_dict().items():
            assert torch.equal(tensor, expected[name]), name
        restarted += int((parts.book(0).cluster_size_ema == 1).sum())
    assert restarted > 0 or case == "no restarts"


def test_parts_are_not_kept_between_steps_nor_in_evaluation():
    layer, x = quantizer(update="per_step").train(), vectors(9, seed=0)
    with layer.part(more_follow=True):
        layer(x)
        layer.eval()(x)
        layer.train().encode(x)
    assert len(layer.parts) == 1
    layer(x)  # outside of any context a pass is the last
    assert len(layer.parts) == 0
    state = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    with layer.part(more_follow=True):
        layer(x)
    layer.parts.forget()
    assert all(torch.equal(layer.state_dict()[name], state[name]) for name in state)
    with pytest.raises(RuntimeError, match="broken"), layer.part(more_follow=True):
        raise RuntimeError("broken")
    layer(x)
    assert len(layer.parts) == 0


def test_codes_start_from_the_first_part_and_learn_from_all():
    first, second = vectors(40, seed=0), vectors(40, seed=1) + 50
    layer = quantizer(initialisation="data", update="per_step", depth=1, decay=0.5).train()
    with layer.part(more_follow=True):
        layer(first)
    started = layer.codebook.weight.clone()
    assert (torch.cdist(started, first[:, 0]).amin(dim=1) < 0.01).all()
    alone = quantizer(initialisation="data", update="per_step", depth=1, decay=0.5).train()
    alone.load_state_dict(layer.state_dict())
    torch.manual_seed(3)
    alone(torch.cat([first, second]))
    torch.manual_seed(3)
    layer(second)
    assert torch.equal(layer.codebook.weight, alone.codebook.weight)
    assert (layer.codebook.weight[:, 0] > 10).any()


def test_a_depth_that_searches_what_the_one_before_left_cannot_wait():
    layer = quantizer().train()
    with pytest.raises(ConfigError, match="update is per_depth.*write quantizer.update: per_step"):
        layer.part(more_follow=True)
    with layer.part(more_follow=False):
        layer(vectors(K, seed=0))
    with layer.eval().part(more_follow=True):  # a frozen codebook learns nothing
        layer(vectors(K, seed=0))
    assert len(layer.parts) == 0
