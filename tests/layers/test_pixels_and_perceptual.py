import lpips
import pytest
import torch

from vilau.errors import CheckpointError
from vilau.layers.perceptual import PerceptualLoss, vgg_path
from vilau.layers.pixels import to_float, to_uint8


def test_every_grey_level_survives_the_round_trip():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(to_uint8(to_float(levels)), levels)
    assert to_float(levels).min() == -1
    assert to_float(levels).max() == 1


def test_to_uint8_rounds_and_clamps():
    pixels = torch.tensor([-3.0, -1.0, 0.0, 0.0039, 1.0, 7.0])
    assert to_uint8(pixels).tolist() == [0, 0, 128, 128, 255, 255]


def test_missing_vgg_weights_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert vgg_path() == tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth"
    with pytest.raises(CheckpointError, match=r"perceptual_weight is above 0.*vgg16.*write .*: 0"):
        PerceptualLoss()


def test_network_is_frozen_and_never_drops_out():
    with torch.device("meta"):
        loss = PerceptualLoss()
    loss.train()
    assert not any(p.requires_grad for p in loss.parameters())
    assert not any(part.training for part in loss.network.modules())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_is_the_mean_distance_in_the_dtype_of_its_weights(dtype):
    with torch.device("meta"):
        loss = PerceptualLoss()
    loss.network = lpips.LPIPS(net="squeeze", pnet_rand=True, verbose=False).eval().to(dtype)
    images, targets = torch.rand(2, 2, 3, 32, 32) * 2 - 1
    each = [loss(images[i : i + 1], targets[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(loss(images, targets), (each[0] + each[1]) / 2, rtol=0.02, atol=1e-3)
    assert loss(images, images) == 0
