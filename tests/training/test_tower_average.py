"""Averages of a tower's weights: how they follow, what is measured and exported with them."""

import pytest
import torch
from lightning.pytorch import Callback

from tests.models import tiny
from tests.training import toys
from vilau.callbacks.averaged_weights import AveragedWeights
from vilau.callbacks.codebook_usage import CodebookUsage
from vilau.callbacks.zero_shot import ZeroShot
from vilau.errors import ConfigError
from vilau.layers.pixels import to_float
from vilau.models.loading import load_tower
from vilau.types import Averages


class History(Callback):
    """The trained weights after each step."""

    def __init__(self):
        self.weights = []

    def on_train_batch_end(self, trainer, module, *_):
        found = module.tower.named_parameters()
        self.weights.append({n: p.detach().clone() for n, p in found if p.requires_grad})


def test_averages_follow_the_weights_from_their_start(tmp_path):
    module = toys.tower(tmp_path, average={"decay": 0.75, "start_step": 1})
    assert isinstance(module, Averages)
    plain, history = toys.tower(tmp_path), History()
    data = toys.ToyData([tiny.pairs(seed=s) for s in range(3)], [tiny.pairs(seed=9)])
    recorder = toys.fit(module, data, 3)
    assert recorder.losses == toys.fit(plain, data, 3).losses  # averaging changes nothing
    again = toys.tower(tmp_path, average={"decay": 0.75, "start_step": 1})
    toys.trainer(3, callbacks=[history]).fit(again, data)
    first, second, third = history.weights
    for name in first:
        expected = 0.75 * (0.75 * first[name] + 0.25 * second[name]) + 0.25 * third[name]
        found = again.average.get_buffer(name.replace(".", "/"))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_averages_take_the_weights_place_and_give_it_back(tmp_path):
    module = toys.tower(tmp_path, average={"decay": 0.5, "export": True})
    toys.fit(module, toys.pair_data(), 2)
    own = {name: value.clone() for name, value in module.state_dict().items()}
    kept = own["average.decoder/conv_out/weight"]
    assert not torch.equal(kept, own["tower.decoder.conv_out.weight"])
    with torch.inference_mode(), module.averaged_weights():
        assert torch.equal(module.tower.decoder.conv_out.weight, kept)
    state = module.state_dict()
    assert all(torch.equal(state[name], own[name]) for name in own)
    module.export(str(tmp_path / "averaged"))
    exported = load_tower(tmp_path / "averaged").state_dict()
    assert torch.equal(exported["decoder.conv_out.weight"], kept)
    book = "quantizer.codebook.weight"
    assert torch.equal(exported[book], module.tower.state_dict()[book])
    toys.fit(module, toys.pair_data(), 1)  # autograd still works on what was swapped


def test_validation_measures_both(tmp_path):
    module = toys.tower(tmp_path, average={"decay": 0.9})
    beside = AveragedWeights([ZeroShot(), CodebookUsage()])
    trainer = toys.trainer(
        3, callbacks=[ZeroShot(), CodebookUsage(), beside], precision="bf16-mixed"
    )
    trainer.fit(module, toys.pair_data())
    found = trainer.callback_metrics
    pairs = [name for name in found if name.startswith("val/") and "ema" not in name]
    assert len(pairs) > 8
    for name in pairs:
        assert name.replace("val/", "val/ema/") in found, name
    assert found["val/ema/l2_loss"] != found["val/l2_loss"]
    assert beside.passports["val/ema/zero_shot_top1"].details.endswith(", averaged weights")
    batch = toys.pair_data().val[0]
    module.eval()
    with (
        torch.no_grad(), module.averaged_weights(),
        torch.autocast("cpu", dtype=torch.bfloat16),
    ):  # fmt: skip
        images = module.tower(to_float(batch.images)).images
    error = images.float() - to_float(batch.images)
    assert float(found["val/ema/l2_loss"]) == pytest.approx(float(error.square().mean()), rel=1e-3)


def test_measuring_averages_needs_some(tmp_path):
    with pytest.raises(ConfigError, match="the model keeps no average; write model.average"):
        toys.trainer(1, callbacks=[AveragedWeights()]).fit(toys.tower(tmp_path), toys.pair_data())
