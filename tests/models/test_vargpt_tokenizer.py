"""VARGPT's tokenizer over scales: VAR's file and its sizes (reference A1)."""

import re

import pytest
import torch
from safetensors.torch import save_file

import vilau
from tests.models import tiny
from tests.models.taming_names import count, published_names
from vilau.errors import CheckpointError, ConfigError, DataError
from vilau.layers.pixels import to_float
from vilau.models.vargpt.config import SCALES, TokenizerConfig
from vilau.models.vargpt.tokenizer import MultiScaleVQVAE

SMALL = {
    "image_size": 32, "scales": (1, 2, 4, 8), "channels": 32, "multipliers": (1, 1, 2), "num_res_blocks": 1,
    "embed_dim": 8, "codebook_size": 64,
}  # fmt: skip


def small(**changes):
    torch.manual_seed(0)
    built = MultiScaleVQVAE(TokenizerConfig(**{**SMALL, **changes})).eval()
    with torch.no_grad():
        built.quantizer.codebook.weight.mul_(0.3)
    return built


def as_file(own):
    """The tensors of VAR's file."""
    state = published_names(own, fused=True)
    state["quantize.embedding.weight"] = own.quantizer.codebook.weight
    for number, conv in enumerate(own.quantizer.refinements):
        for key, tensor in conv.state_dict().items():
            state[f"quantize.quant_resi.qresi_ls.{number}.{key}"] = tensor
    state["quantize.ema_vocab_hit_SV"] = torch.ones(
        len(own.config.scales), own.config.codebook_size
    )
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def test_an_image_is_codes_of_all_scales_and_any_number_of_the_first_is_an_image():
    own, images = small(), torch.rand(3, 3, 32, 32) * 2 - 1
    codes = own.encode(images)
    assert codes.shape == (3, 1 + 4 + 16 + 64, 1)
    assert len(codes.unique()) > 10
    assert own.spec.levels == ((1, 1), (2, 2), (4, 4), (8, 8))
    assert (own.spec.depth, own.spec.num_positions, own.spec.num_parts) == (1, 85, 4)
    assert torch.equal(own.embed(codes), own.quantizer.codebook.weight[codes[..., 0]])
    with torch.no_grad():
        decoded = [own.decode(codes, upto=n) for n in (1, 2, 3, 4)]
        assert torch.equal(own.decode(codes), decoded[-1])
        features = own.quantizer(own.quant_conv(own.encoder(images))).features
        again = own.decoder(own.post_quant_conv(features))
    torch.testing.assert_close(decoded[-1], again, atol=1e-5, rtol=1e-5)
    assert decoded[0].shape == images.shape
    assert not torch.equal(decoded[0], decoded[1])


def test_scale_by_scale_a_model_is_shown_what_it_learnt_from():
    own = small()
    codes = own.encode(torch.rand(3, 3, 32, 32) * 2 - 1)
    shown = own.shown(codes)
    assert (shown.shape, shown.requires_grad) == ((3, 84, 8), False)
    maps, total = shown.split([4, 16, 64], dim=1), None
    for scale, part in enumerate(codes.split([1, 4, 16, 64], dim=1)):
        if total is not None:
            assert torch.equal(own.shown_to(total, scale), maps[scale - 1])
        total = own.grown(total, part, scale)
    assert not total.requires_grad
    torch.testing.assert_close(own.quantizer.features(codes[..., 0]), total)
    with pytest.raises(DataError, match=re.escape("codes have the shape (3, 85); give (images")):
        own.shown(codes[..., 0])
    with pytest.raises(DataError, match=re.escape("codes of scale 1 have the shape (3, 1)")):
        own.grown(None, codes[:, :1], 1)


def test_more_scales_are_nearer_to_what_was_encoded():
    """Where the refinement passes everything through and every rest is a code: the rest shrinks to nothing."""
    own = small(codebook_size=256)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        for conv in own.quantizer.refinements:
            conv.weight.zero_()
            conv.bias.zero_()
            conv.share = 0.0
        features = own.quant_conv(own.encoder(images))
        vectors = features.permute(0, 2, 3, 1).flatten(0, 2)
        own.quantizer.codebook.weight[:128] = vectors
        own.quantizer.codebook.weight[128:] = 0.3 * vectors
        codes = own.encode(images)[..., 0]
        errors = [
            float((own.quantizer.features(codes, upto=n) - features).square().mean())
            for n in (1, 2, 3, 4)
        ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.5 * errors[0]


def test_vars_file_is_read(tmp_path):
    """A file like the published one, with fewer channels: everything is told by its shapes."""
    own = small(image_size=256, scales=SCALES[256], multipliers=(1, 1, 1, 1, 2))
    torch.save(as_file(own), tmp_path / "vae.pth")
    found = vilau.load_tokenizer(tmp_path / "vae.pth", allow_pickle=True)
    assert isinstance(found, MultiScaleVQVAE)
    assert found.config == own.config
    assert not found.training
    for name, tensor in own.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name
    larger = vilau.load_tokenizer(tmp_path / "vae.pth", image_size=512, allow_pickle=True)
    assert larger.config.scales == SCALES[512]
    assert larger.spec.num_positions == 2240
    with pytest.raises(
        ConfigError, match="image_size is 300; write 256, 512, 1024, whose scales are"
    ):
        vilau.load_tokenizer(tmp_path / "vae.pth", image_size=300, allow_pickle=True)


def test_files_that_do_not_fit(tmp_path):
    own = small(image_size=256, scales=SCALES[256], multipliers=(1, 1, 1, 1, 2))
    state = as_file(own)
    del state["decoder.up.3.block.0.conv1.weight"]
    save_file(state, tmp_path / "vae.safetensors")
    with pytest.raises(
        CheckpointError, match=r"decoder.levels.1.blocks.0.conv_1.weight is missing"
    ):
        vilau.load_tokenizer(tmp_path / "vae.safetensors")
    save_file(as_file(small()), tmp_path / "vae.safetensors")
    with pytest.raises(
        CheckpointError, match="makes 64 x 64 cells of 256 pixels, where the published"
    ):
        vilau.load_tokenizer(tmp_path / "vae.safetensors")


def test_what_was_saved_is_loaded_again(tmp_path):
    own, images = small(), torch.rand(2, 3, 32, 32) * 2 - 1
    own.save(tmp_path / "model")
    found = vilau.load_tokenizer(tmp_path, dtype=torch.bfloat16)
    assert found.quantizer.codebook.weight.dtype == torch.float32
    found = vilau.load_tokenizer(tmp_path)
    codes = found.encode(images)
    assert torch.equal(codes, own.encode(images))
    assert torch.equal(found.decode(codes), own.decode(codes))
    assert found.identity() == own.identity()
    with torch.no_grad():
        found.decoder.conv_out.weight.mul_(2)
        assert found.identity() == own.identity()
        found.quantizer.refinements[0].weight.mul_(2)
    assert found.identity() != own.identity()
    with pytest.raises(
        CheckpointError, match="describes a vargpt.tokenizer, but a vision tower is"
    ):
        vilau.load_tower(tmp_path)


def test_the_published_sizes():
    with torch.device("meta"):
        built = MultiScaleVQVAE(TokenizerConfig())
    assert count(built) == 108_948_355
    assert (count(built.encoder), count(built.decoder)) == (44_107_872, 64_653_923)
    assert count(built.quantizer) == 168_064
    assert built.spec.num_positions == 680
    assert len(published_names(built, fused=True)) + 1 + 8 + 1 == 324  # codes, refinements, hits


def test_bad_input_is_told():
    own = small()
    images = torch.rand(2, 3, 32, 32)
    with pytest.raises(
        DataError, match=re.escape("images are (2, 3, 16, 32); give (images, 3, 32, 32)")
    ):
        own.encode(images[:, :, :16])
    codes = own.encode(images)
    with pytest.raises(
        DataError, match=re.escape("codes have the shape (2, 84, 1); give (images, 85, 1)")
    ):
        own.decode(codes[:, 1:])
    with pytest.raises(ConfigError, match="upto is 5; write a number of scales from 1 to 4"):
        own.decode(codes, upto=5)
    with pytest.raises(
        ConfigError, match=r"tokenizer.scales is \[1, 2, 4\], but the encoder makes 8 x 8 cells"
    ):
        small(scales=(1, 2, 4))


@pytest.mark.parametrize("build", [tiny.vqgan, tiny.over_scales])
def test_codes_are_the_same_under_autocast(build):
    """In a step of mixed precision an image has the codes that a file of codes holds."""
    model, images = build(), to_float(tiny.images(16))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.encode(images)
        assert model.quant_conv(model.encoder(images)).dtype == torch.bfloat16  # as it would be
    assert torch.equal(found, model.encode(images))
