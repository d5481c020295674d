"""Each truncation is what the first depths give, and callbacks measure each against the originals."""

import pytest
import torch

from tests.models import tiny
from tests.training import toys
from vilau.callbacks.reconstruction_fid import ReconstructionFID
from vilau.callbacks.zero_shot import ZeroShot
from vilau.layers.pixels import to_float, to_uint8
from vilau.metrics.similarity import psnr
from vilau.training.ablations.residual_depth import ResidualDepthAblation
from vilau.training.tower import TowerTraining


def test_truncations_decode_and_classify_the_first_depths_alone(tmp_path):
    module = toys.tower(tmp_path, kind=ResidualDepthAblation).eval()
    tower, pairs = module.tower, tiny.pairs()
    with torch.no_grad():
        output, losses = module.measure(pairs)
        labelled = module.embed_labelled(toys.labelled())
        codes = tower.encode(to_float(toys.labelled().images))
        first = tower.pooled(tower.quantizer.embed(codes, upto=1))
    assert output.truncated.shape == (tower.spec.depth, *pairs.images.shape)
    assert torch.equal(output.truncated[0], to_uint8(tower.decode(output.codes, upto=1)))
    assert torch.equal(output.truncated[-1], output.reconstructions)
    assert not torch.equal(output.truncated[0], output.truncated[-1])
    assert losses.keys() >= {"l2", "contrastive"}
    assert set(labelled.others) == {"depth1", "depth2", "depth3"}
    assert torch.equal(labelled.others["depth1"], first)
    assert torch.allclose(labelled.others["depth3"], labelled.features, atol=1e-5)


def test_callbacks_report_every_depth(tmp_path):
    module = toys.tower(tmp_path, kind=ResidualDepthAblation)
    callbacks = [ReconstructionFID(), ZeroShot()]
    data = toys.ToyData([], [tiny.pairs(seed=s) for s in (1, 2)] + [toys.labelled()])
    (values,) = toys.trainer(0, callbacks=callbacks).validate(module, data, verbose=False)
    passports = callbacks[0].passports
    for name in ("rfid", "psnr", "ssim"):
        assert values[f"val/{name}_d3"] == values[f"val/{name}"]
        assert values[f"val/{name}_d1"] != values[f"val/{name}"]
    # A truncation is one whatever the tower's depth, so that towers of any depth share a column.
    assert "from the first 3 depths" in passports["val/rfid_d3"].details
    assert "from all depths" in passports["val/rfid"].details
    assert "from the first 1 depths" in passports["val/rfid_d1"].details
    assert passports["val/rfid_d1"].num_samples == passports["val/rfid"].num_samples > 0
    assert "val/zero_shot_top1_depth3" in values
    module.eval()
    images = torch.cat([tiny.pairs(seed=s).images for s in (1, 2)])
    with torch.no_grad():
        first = torch.cat([module.measure(tiny.pairs(seed=s))[0].truncated[0] for s in (1, 2)])
    assert values["val/psnr_d1"] == pytest.approx(float(psnr(images, first).mean()), rel=1e-5)
    # A distance of its own, though the originals' features are shared.
    alone = ReconstructionFID()
    alone.setup(None, None, "validate")
    alone.whole.update(images, first, [])
    again = alone.whole.compute()
    assert values["val/rfid_d1"] == pytest.approx(float(again["rfid"]), rel=1e-4)


def test_it_trains_as_tower_training_does(tmp_path):
    runs = [
        toys.fit(toys.tower(tmp_path, kind=kind), toys.pair_data(), 3)
        for kind in (TowerTraining, ResidualDepthAblation)
    ]
    assert runs[0].losses == runs[1].losses
