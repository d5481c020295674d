"""The image tokenizers of Liquid and VARGPT on the command line: converted from their files, then used like a tower."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import vilau as kit
from tests.apps.conftest import Command
from tests.models.taming_names import published_names
from tests.models.test_vargpt_tokenizer import as_file, small
from vilau.models.liquid.config import TokenizerConfig
from vilau.models.liquid.tokenizer import VQGAN
from vilau.models.vargpt.config import SCALES


@pytest.fixture
def over_scales(tmp_path: Path) -> Path:
    """A folder of a small tokenizer of 32 pixels and four scales."""
    small().save(tmp_path / "scales")
    return tmp_path / "scales"


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    folder = tmp_path / "scenes"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    for name, one in zip("ab", pixels, strict=True):
        Image.fromarray(one).save(folder / f"{name}.png")
    return folder


def test_vars_file_becomes_a_folder_of_ours(vilau: Command, scenes: Path, tmp_path: Path) -> None:
    own = small(image_size=256, scales=SCALES[256], multipliers=(1, 1, 1, 1, 2))
    torch.save(as_file(own), tmp_path / "vae.pth")
    code, _, err = vilau("convert", "vae.pth", "out", "--layout", "vilau")
    assert code == 2
    assert "vae.pth is a pickle, a format that can run any program when it is read" in err
    assert not (tmp_path / "out").exists()
    code, _, err = vilau("encode", "vae.pth", scenes, "--out", "x.npz")
    assert code == 2
    assert (
        "vae.pth is a file; write what it holds as a folder first: vilau convert vae.pth DIR" in err
    )
    code, printed, err = vilau("convert", "vae.pth", "out", "--layout", "vilau", "--allow-pickle")
    assert code == 0, err
    assert "model.safetensors" in printed
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert found.keys() == own.state_dict().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in own.state_dict().items())
    command = ("convert", "vae.pth", "large", "--layout", "vilau", "--allow-pickle")
    assert vilau(*command, "--image-size", 512)[0] == 0
    config = json.loads((tmp_path / "large" / "config.json").read_text())
    assert config["tokenizer"]["scales"] == list(SCALES[512])
    code, _, err = vilau("convert", "out", "x", "--layout", "vilau", "--image-size", 512)
    assert code == 2
    assert "image_size is 512, but out is no file of a published tokenizer" in err
    code, _, err = vilau("convert", "out", "x", "--layout", "vila-u")
    assert code == 2
    assert "layout vila-u holds a VilaU or a VisionTower, not a MultiScaleVQVAE" in err


def test_vqgans_file_becomes_a_folder_of_ours(vilau: Command, tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {
        "channels": 32,
        "multipliers": (1, 2),
        "z_channels": 8,
        "embed_dim": 4,
        "codebook_size": 16,
    }
    own = VQGAN(TokenizerConfig(image_size=32, **sizes))
    state = {
        **published_names(own),
        "quantize.embedding.weight": own.quantizer.codebook.weight.detach(),
    }
    save_file(
        {name: tensor.clone() for name, tensor in state.items()}, tmp_path / "vqgan.safetensors"
    )
    command = ("convert", "vqgan.safetensors", "out", "--layout", "vilau", "--image-size", 32)
    code, _, err = vilau(*command)
    assert code == 0, err
    found = kit.load_tokenizer(tmp_path / "out")
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    assert torch.equal(found.encode(images), own.eval().encode(images))


def test_an_image_is_rebuilt_scale_by_scale(
    vilau: Command, over_scales: Path, scenes: Path, tmp_path: Path
) -> None:
    code, printed, err = vilau("reconstruct", over_scales, scenes, "--out", "strips")
    assert code == 0, err
    heading, first, *_ = printed.splitlines()
    assert heading.split("  ")[0] == "PSNR, dB"
    assert [part.strip() for part in heading.split("  ") if "scale" in part] == [
        "scale 1", "scales 1-2", "scales 1-3", "scales 1-4",
    ]  # fmt: skip
    assert len(first.split()) == 5
    assert sorted(path.name for path in (tmp_path / "strips").iterdir()) == ["a.png", "b.png"]


def test_codes_go_into_a_file_and_back(
    vilau: Command, over_scales: Path, scenes: Path, tmp_path: Path
) -> None:
    code, printed, err = vilau("encode", over_scales, scenes, "--out", "codes.safetensors")
    assert code == 0, err
    assert "2 images, 85 positions x 1 depth each" in printed
    for upto in (2, 4):
        out = f"upto{upto}"
        command = ("decode", over_scales, "codes.safetensors", "--upto", upto, "--out", out)
        assert vilau(*command)[0] == 0
        tokenizer = kit.load_tokenizer(over_scales)
        codes = load_file(tmp_path / "codes.safetensors")["codes"].long()
        with torch.inference_mode():
            pixels = tokenizer.decode(codes, upto=upto)[0]
        drawn = np.asarray(Image.open(tmp_path / out / "a.png")).transpose(2, 0, 1)
        expected = ((pixels + 1) * 127.5).round().clamp(0, 255).numpy()
        assert np.abs(drawn - expected).max() <= 1
    code, _, err = vilau("decode", over_scales, "codes.safetensors", "--upto", 5, "--out", "x")
    assert code == 2
    assert "--upto is 5, but codes.safetensors holds 4 scales; write at most that" in err


@pytest.mark.parametrize(
    "command",
    [
        ("classify", "TOKENIZER", "scenes", "--classes", "a,b"),
        ("chat", "TOKENIZER", "--prompt", "x"),
    ],
    ids=lambda command: command[0],
)
def test_verbs_that_need_more_than_a_tokenizer(
    vilau: Command, over_scales: Path, scenes: Path, command: tuple[str, ...]
) -> None:
    code, _, err = vilau(*(over_scales if word == "TOKENIZER" else word for word in command))
    assert code == 2
    assert "describes a vargpt.tokenizer, but a " in err
    assert "is needed here; " in err
