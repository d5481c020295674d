"""Accumulated parts of an optimiser step: what a tower's codes learn from them, and what is refused."""

import pytest
import torch
from lightning.pytorch import Callback

from tests.models import tiny
from tests.training import toys
from tests.training.start_ranks import joined
from vilau.errors import ConfigError

SETTINGS = {"contrastive_weight": 0.0, "quantizer": tiny.quantizer(update="per_step", decay=0.5)}
ADVERSARY = {"adversarial_weight": 0.75, "discriminator": {"channels": 4, "adaptive": False}}


class Books(Callback):
    """The codebook after every batch."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, module, *_):
        state = module.tower.quantizer.state_dict()
        self.seen.append({name: tensor.clone() for name, tensor in state.items()})


def books(folder, batches, settings, **fit):
    module, callback = toys.tower(folder, **settings), Books()
    torch.manual_seed(5)
    toys.trainer(2, callbacks=[callback], **fit).fit(module, toys.ToyData(batches))
    assert len(module.tower.quantizer.parts) == 0
    return callback.seen, module


@pytest.mark.parametrize("adversary", [{}, ADVERSARY])  # automatic and manual optimisation
def test_a_step_of_two_parts_is_a_step_of_the_whole_batch(tmp_path, adversary):
    batches, settings = [tiny.pairs(8, seed=s) for s in range(4)], {**SETTINGS, **adversary}
    if adversary:
        settings["discriminator"] = {**adversary["discriminator"], "start_step": 9}
    whole, module = books(tmp_path, joined(batches), settings)
    parts, other = books(tmp_path, batches, settings, accumulate_grad_batches=2)
    assert len(parts) == 2 * len(whole) == 4
    assert torch.equal(parts[1]["codebook.weight"], parts[2]["codebook.weight"])
    for expected, found in zip(whole, parts[1::2], strict=True):
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)
    state = other.state_dict()
    for name, tensor in module.state_dict().items():
        if not name.endswith("k_proj.bias"):  # their gradient is rounding, which AdamW blows up
            torch.testing.assert_close(state[name], tensor, rtol=1e-3, atol=2e-4)


def test_the_last_step_of_an_epoch_may_have_fewer_parts(tmp_path):
    batches = [tiny.pairs(8, seed=s) for s in range(3)]
    parts, _ = books(tmp_path, batches, SETTINGS, accumulate_grad_batches=2)
    weights = [state["codebook.weight"] for state in parts]
    assert not torch.equal(weights[1], weights[0])
    assert not torch.equal(weights[2], weights[1])  # one part alone


class Broken(Callback):
    def on_train_batch_end(self, trainer, module, *_):
        raise RuntimeError("broken off")


def test_parts_of_a_step_that_was_broken_off_are_dropped(tmp_path):
    batches = [tiny.pairs(8, seed=s) for s in range(4)]
    expected, _ = books(tmp_path, batches, SETTINGS, accumulate_grad_batches=2)
    module, callback = toys.tower(tmp_path, **SETTINGS), Books()
    fresh = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    broken = toys.trainer(2, callbacks=[Broken()], accumulate_grad_batches=2)
    with pytest.raises(RuntimeError, match="broken off"):
        broken.fit(module, toys.ToyData(batches[::-1]))
    assert len(module.tower.quantizer.parts) == 1
    module.load_state_dict(fresh)
    torch.manual_seed(5)
    toys.trainer(2, callbacks=[callback], accumulate_grad_batches=2).fit(
        module, toys.ToyData(batches)
    )
    for name, tensor in expected[-1].items():
        assert torch.equal(callback.seen[-1][name], tensor), name


def test_codes_that_depend_on_the_depth_before_are_refused_parts(tmp_path):
    settings = {"contrastive_weight": 0.0}
    with pytest.raises(
        ConfigError,
        match="accumulate_grad_batches is 2, but quantizer.update is per_depth.*write quantizer.update: per_step",
    ):
        toys.fit(toys.tower(tmp_path, **settings), toys.pair_data(), 1, accumulate_grad_batches=2)
    frozen = toys.tower(tmp_path, **settings)
    frozen.tower.quantizer.eval()
    toys.fit(frozen, toys.pair_data(), 1, accumulate_grad_batches=2)
    own = {**settings, "quantizer": tiny.quantizer(shared_codebook=False)}
    toys.fit(toys.tower(tmp_path, **own), toys.pair_data(), 1, accumulate_grad_batches=2)


def test_terms_with_averages_over_a_batch_are_told_of(tmp_path):
    book = tiny.quantizer(update="per_step", entropy=True)
    settings = {"contrastive_weight": 0.0, "entropy_weight": 0.1, "quantizer": book, **ADVERSARY}
    with pytest.warns(
        UserWarning,
        match=r"accumulate_grad_batches is 2: the terms of model.entropy_weight and model.adversarial_weight hold",
    ):
        toys.fit(toys.tower(tmp_path, **settings), toys.pair_data(), 1, accumulate_grad_batches=2)
