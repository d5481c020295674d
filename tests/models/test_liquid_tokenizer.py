"""Liquid's VQGAN: against transformers' Chameleon, whose tokenizer it is (reference B1)."""

import re

import pytest
import torch
from safetensors.torch import save_file
from transformers import ChameleonVQVAEConfig
from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAE

import vilau
from tests.models.taming_names import count, published_names
from vilau.errors import CheckpointError, ConfigError, DataError
from vilau.models.liquid.config import TokenizerConfig
from vilau.models.liquid.tokenizer import VQGAN

SMALL = {
    "image_size": 32, "channels": 32, "multipliers": (1, 2), "num_res_blocks": 1, "z_channels": 16, "embed_dim": 8,
    "codebook_size": 64,
}  # fmt: skip


def small(**changes):
    torch.manual_seed(0)
    built = VQGAN(TokenizerConfig(**{**SMALL, **changes})).eval()
    with torch.no_grad():
        built.quantizer.codebook.weight.mul_(0.3)  # as wide as what the encoder makes
    return built


def chameleon():
    """Chameleon's own encoder and codes, random, and pictures for it."""
    torch.manual_seed(0)
    settings = {
        "embed_dim": 8, "num_embeddings": 64, "latent_channels": 16, "resolution": 32, "base_channels": 32,
        "channel_multiplier": [1, 2], "num_res_blocks": 1,
    }  # fmt: skip
    model = ChameleonVQVAE(ChameleonVQVAEConfig(**settings)).eval()
    images = torch.rand(3, 3, 32, 32) * 2 - 1
    with torch.no_grad():  # codes that the encoder's features are near to
        vectors = model.quant_conv(model.encoder(images)).permute(0, 2, 3, 1).flatten(0, 2)
        model.quantize.embedding.weight.copy_(vectors[torch.randperm(len(vectors))[:64]])
    return model, images


def as_file(model):
    """What a file of the published tokenizer holds: Chameleon's names, a decoder, and what trained it."""
    decoder = {n: t for n, t in published_names(small()).items() if n.startswith("decoder.")}
    post = {f"post_quant_conv.{n}": t for n, t in small().post_quant_conv.state_dict().items()}
    return {**model.state_dict(), **decoder, **post, "loss.logvar": torch.zeros(())}


def test_codes_are_chameleons(tmp_path):
    model, images = chameleon()
    torch.save({"state_dict": as_file(model), "epoch": 3}, tmp_path / "vqgan.ckpt")
    ours = vilau.load_tokenizer(tmp_path / "vqgan.ckpt", image_size=32, allow_pickle=True)
    assert isinstance(ours, VQGAN)
    assert not ours.training
    with torch.no_grad():
        expected = model.encode(images).image_tokens.view(3, -1)
        codes = ours.encode(images)
    assert codes.shape == (3, 256, 1)
    assert codes.dtype == torch.int64
    assert torch.equal(codes[..., 0], expected)
    assert len(codes.unique()) > 10
    vectors = model.quantize.embedding.weight[expected]
    assert torch.equal(ours.embed(codes), vectors)
    assert ours.spec.levels == ((16, 16),)
    assert (ours.spec.depth, ours.spec.num_positions, ours.spec.num_parts) == (1, 256, 1)


def test_a_file_tells_its_sizes_and_keeps_every_weight(tmp_path):
    own = small(multipliers=(1, 2, 4), num_res_blocks=2, attention_grids=(8,))
    file = tmp_path / "tokenizer.safetensors"
    state = {
        **published_names(own),
        "quantize.embedding.weight": own.quantizer.codebook.weight.detach(),
    }
    save_file({name: tensor.clone() for name, tensor in state.items()}, file)
    found = vilau.load_tokenizer(file, image_size=32)
    assert found.config == own.config
    for name, tensor in own.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    assert torch.equal(found.encode(images), own.encode(images))


def test_what_was_saved_is_loaded_again(tmp_path):
    own, images = small(), torch.rand(2, 3, 32, 32) * 2 - 1
    own.save(tmp_path / "model")
    found = vilau.load_tokenizer(tmp_path)
    codes = found.encode(images)
    assert torch.equal(codes, own.encode(images))
    assert torch.equal(found.decode(codes), own.decode(codes))
    assert found.decode(codes, upto=1).shape == images.shape
    assert found.identity() == own.identity()
    with torch.no_grad():
        found.decoder.conv_out.weight.mul_(2)
        assert found.identity() == own.identity()  # the decoder may learn on
        found.encoder.conv_in.weight.mul_(2)
    assert found.identity() != own.identity()
    assert small(norm_groups=16).identity() != own.identity()  # other features, other codes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_nearest_code_is_looked_for_in_float32(dtype):
    own, images = small(), torch.rand(2, 3, 32, 32) * 2 - 1
    own.encoder.to(dtype), own.quant_conv.to(dtype)
    with torch.no_grad():
        features = own.quant_conv(own.encoder(images.to(dtype))).float()
        vectors = features.permute(0, 2, 3, 1).flatten(0, 2)
        expected = torch.cdist(vectors.double(), own.quantizer.codebook.weight.double()).argmin(
            dim=1
        )
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            codes = own.encode(images.to(dtype))
    assert torch.equal(codes.flatten(), expected)


def test_the_published_sizes():
    with torch.device("meta"):
        built = VQGAN(TokenizerConfig())
    assert count(built) == 68_718_467
    assert (count(built.encoder), count(built.decoder)) == (27_194_880, 39_294_851)
    assert built.spec.num_positions == 1024
    assert len(published_names(built)) == 292  # and the codes


def test_bad_input_is_told():
    own = small()
    images = torch.rand(2, 3, 32, 32)
    with pytest.raises(
        DataError, match=re.escape("images are (2, 3, 16, 32); give (images, 3, 32, 32)")
    ):
        own.encode(images[:, :, :16])
    codes = own.encode(images)
    with pytest.raises(
        DataError, match=re.escape("codes have the shape (2, 255, 1); give (images, 256, 1)")
    ):
        own.decode(codes[:, 1:])
    with pytest.raises(ConfigError, match="upto is 2; write 1, the only depth"):
        own.decode(codes, upto=2)
    for changes, sentence in (
        ({"image_size": 33}, "tokenizer.image_size is 33, which cannot be halved 1 times"),
        ({"multipliers": ()}, r"tokenizer.multipliers is \[\]; write the width of each level"),
        ({"norm_groups": 0}, "tokenizer.norm_groups is 0; write a whole number, 1 or more"),
        ({"codebook_size": -4}, "tokenizer.codebook_size is -4; write a whole number"),
        ({"dropout": 7}, "tokenizer.dropout is 7; write a number from 0 to 1"),
        ({"channels": 24}, "tokenizer.norm_groups is 32, which does not divide a level's 24 channels; write 8"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=sentence):
            small(**changes)


@pytest.mark.parametrize(
    ("name", "tensor", "sentence"),
    [
        ("encoder.conv_in.weight", torch.zeros(()), r"conv_in.weight of the shape \(\), where 4 sizes of 1 or more"),
        ("encoder.conv_in.weight", torch.zeros(0, 3, 3, 3), r"of the shape \(0, 3, 3, 3\), where 4 sizes"),
        ("encoder.conv_in.weight", torch.zeros(24, 3, 3, 3), r"has 24 channels at first and \[32, 64\] in its levels"),
        ("quantize.embedding.weight", torch.zeros(4), r"of the shape \(4,\), where 2 sizes of 1 or more belong"),
        ("quantize.embedding.weight", torch.zeros(0, 8), r"of the shape \(0, 8\), where 2 sizes"),
        ("encoder.conv_out.bias", torch.zeros(16, dtype=torch.int8), "holds encoder.conv_out.bias as int8"),
        ("encoder.mid.attn_1.qkv.weight", torch.zeros(4, 64, 1, 1), "which is no query, key and value"),
        ("encoder.more", torch.zeros(1), "sizes that its first tensors tell, in our names: encoder.more"),
    ],
)  # fmt: skip
def test_files_whose_tensors_make_no_tokenizer(tmp_path, name, tensor, sentence):
    own = small()
    state = {
        **published_names(own),
        "quantize.embedding.weight": own.quantizer.codebook.weight.detach(),
    }
    save_file(
        {n: t.clone() for n, t in (state | {name: tensor}).items()}, tmp_path / "x.safetensors"
    )
    with pytest.raises(CheckpointError, match=sentence):
        vilau.load_tokenizer(tmp_path / "x.safetensors", image_size=32)


def test_files_that_hold_no_tokenizer(tmp_path):
    file = tmp_path / "x.safetensors"
    save_file({"weight": torch.zeros(1)}, file)
    with pytest.raises(
        CheckpointError, match="holds no encoder.conv_(in|out).weight, which every published"
    ):
        vilau.load_tokenizer(file)
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.ckpt")
    with pytest.raises(
        CheckpointError, match="x.ckpt is a pickle, a format that can run any program"
    ):
        vilau.load_tokenizer(tmp_path / "x.ckpt")
    torch.save({1: torch.zeros(1)}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="not a mapping from names to tensors"):
        vilau.load_tokenizer(tmp_path / "x.ckpt", allow_pickle=True)
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(CheckpointError, match="x.txt is no file of weights; give one that ends in"):
        vilau.load_tokenizer(tmp_path / "x.txt")
    small().save(tmp_path / "model")
    with pytest.raises(
        CheckpointError, match="describes a liquid.tokenizer, but a unified model is needed"
    ):
        vilau.load(tmp_path)
    with pytest.raises(
        CheckpointError, match="describes a liquid.tokenizer, but a vision tower is needed"
    ):
        vilau.load_tower(tmp_path)
    with pytest.raises(
        ConfigError, match="image_size is 64, but .* is no file of a published tokenizer"
    ):
        vilau.load_tokenizer(tmp_path, image_size=64)
