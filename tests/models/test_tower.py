import pytest
import torch
import torch.nn.functional as F

from tests.models import tiny
from vilau.errors import ConfigError, DataError
from vilau.layers.pixels import to_float
from vilau.models.vila_u.config import DecoderConfig, QuantizerConfig, TowerConfig
from vilau.models.vila_u.tower import VisionTower


@pytest.fixture(scope="module")
def tower():
    return tiny.tower()


@pytest.fixture(scope="module")
def pixels():
    return to_float(tiny.images(3))


def test_codes_have_the_announced_shape_and_range(tower, pixels):
    spec, codes = tower.spec, tower.encode(pixels)
    assert codes.shape == (3, spec.num_positions, spec.depth) == (3, 16, 3)
    assert codes.dtype == torch.int64
    assert 0 <= codes.min() <= codes.max() < spec.codebook_size == 24
    assert tower.embed(codes).shape == (3, 16, spec.embed_dim)
    assert tower.decode(codes).shape == (3, 3, spec.image_size, spec.image_size)
    assert len(codes.unique()) > 8


def test_features_are_those_before_the_last_block_without_a_norm(tower, pixels):
    seen = tower.siglip.vision_model(pixel_values=pixels, output_hidden_states=True)
    torch.testing.assert_close(tower.features(pixels), seen.hidden_states[-2])


def test_pooling_of_unquantised_features_is_siglips_own(tower, pixels):
    whole = tower.siglip.vision_model(pixel_values=pixels).pooler_output
    pooled = tower.pooled(tower.features(pixels))
    torch.testing.assert_close(pooled, F.normalize(whole, dim=-1))
    torch.testing.assert_close(pooled.norm(dim=-1), torch.ones(3))


def test_image_features_are_pooled_from_the_quantised_features(tower, pixels):
    from_codes = tower.pooled(tower.embed(tower.encode(pixels)))
    assert torch.equal(tower.image_features(pixels), from_codes)
    assert not torch.allclose(from_codes, tower.pooled(tower.features(pixels)), atol=1e-3)


def test_text_features_are_normalised_and_do_not_depend_on_the_batch(tower):
    both = tower.text_features(["a red circle", "a blue square left of a green star"])
    torch.testing.assert_close(both[:1], tower.text_features(["A red circle."]))
    torch.testing.assert_close(both.norm(dim=-1), torch.ones(2))


def test_decoding_codes_equals_the_reconstruction(tower, pixels):
    seen = tower(pixels)
    assert torch.equal(tower.decode(seen.quantized.codes), seen.images)


def test_positions_are_in_raster_order(tower, pixels):
    """Painting over the top right cell changes the features there most."""
    painted = pixels.clone()
    painted[:, :, :4, 12:] = 1.0
    moved = (tower.features(painted) - tower.features(pixels)).square().sum(dim=-1).mean(dim=0)
    assert int(moved.argmax()) == 3
    features = torch.zeros(1, 16, 32)
    features[0, 3] = 5.0
    response = (tower.pixels(features) - tower.pixels(torch.zeros(1, 16, 32))).abs().sum(dim=1)[0]
    corner = response[:8, 8:].mean()
    assert corner > response[8:, :8].mean()


def test_reconstructions_by_depth_use_the_first_codes(tower, pixels):
    images = tower.reconstruct_by_part(pixels)
    codes = tower.encode(pixels)
    assert images.shape == (3, 3, 3, 16, 16)
    for d in range(3):
        assert torch.equal(images[d], tower.decode(codes, upto=d + 1))
    assert not torch.equal(images[0], images[2])


def test_a_grid_is_resized_to_the_decoders():
    """As in the 384-pixel model: 14-pixel patches leave a border out, and the grid fits no doubling."""
    torch.manual_seed(0)
    sizes = tiny.sizes(image_size=32, patch_size=14)
    decoder = tiny.decoder(latent_grid=4, multipliers=(1, 1, 1, 1))
    tower = VisionTower(TowerConfig(vars(sizes), tiny.quantizer(), decoder)).eval()
    seen = tower(torch.rand(2, 3, 32, 32))
    assert seen.quantized.codes.shape == (2, 4, 3)
    assert seen.images.shape == (2, 3, 32, 32)
    grid = seen.quantized.features.transpose(1, 2).reshape(2, 32, 2, 2)
    larger = F.interpolate(grid, size=(4, 4), mode="bilinear", align_corners=False)
    torch.testing.assert_close(seen.images, tower.decoder(tower.post_quant_conv(larger)))


def test_frozen_parts_get_no_gradient(pixels):
    tower = tiny.tower()
    tower.freeze_text()
    loss = (tower.image_features(pixels) @ tower.text_features(["a"]).t()).sum()
    (loss * tower.siglip.logit_scale).sum().backward()
    assert all(p.grad is None for p in tower.siglip.text_model.parameters())
    assert tower.siglip.vision_model.head.probe.grad is not None


def test_every_trained_weight_is_reached_without_the_contrastive_loss(pixels):
    tower = tiny.tower()
    tower.freeze_alignment()
    seen = tower(pixels)
    (seen.images.square().mean() + seen.quantized.commitment_loss).backward()
    for name, parameter in tower.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_method_works_in_other_dtypes(dtype, pixels):
    tower = tiny.tower().to(dtype)
    codes = tower.encode(pixels)
    assert torch.equal(tower.embed(codes), tower.quantize(pixels).features)
    assert tower.embed(codes).dtype == dtype
    assert tower.decode(codes).isfinite().all()
    assert tower.image_features(pixels).isfinite().all()
    assert tower.text_features(["a red circle"]).isfinite().all()
    share = (codes == tiny.tower().encode(pixels)).float().mean()
    assert share > 0.6


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        (tiny.decoder(multipliers=(1, 1)), "has 2 levels.*4-cell grid into 8 pixels instead of 16"),
        (tiny.decoder(output_patch=2), "into 32 pixels instead of 16"),
        (tiny.decoder(latent_grid=3), "3-cell grid into 12 pixels instead of 16"),
    ],
)
def test_a_trained_decoder_must_reach_the_image_size(tmp_path, decoder, message):
    source = tiny.siglip_folder(tmp_path)
    with pytest.raises(ConfigError, match=message):
        VisionTower.from_siglip(source, quantizer=tiny.quantizer(), decoder=decoder)
    built = VisionTower.from_siglip(source, quantizer=tiny.quantizer(), decoder=tiny.decoder())
    assert built.config.siglip["tokenizer"] == "world-tokenizer"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "patches"}, "decoder.kind is 'patches'; write conv or patch"),
        (
            {"kind": "patch"},
            r"multipliers is \[1, 1, 2\], but a decoder of kind patch has one level",
        ),
        (
            {"kind": "patch", "multipliers": (1,), "num_heads": 3},
            "num_heads is 3, which does not divide decoder.channels 8; write a divisor of 8",
        ),
    ],
)
def test_decoders_that_make_no_sense(changes, message):
    with pytest.raises(ConfigError, match=message):
        tiny.decoder(**changes)


def test_groups_must_divide_channels():
    with pytest.raises(ConfigError, match=r"norm_groups is 32.*48 channels \(48 x 1\); write 16"):
        DecoderConfig(channels=48)


@pytest.mark.parametrize("key", ["depth", "codebook_size"])
def test_a_quantiser_of_nothing(key):
    with pytest.raises(ConfigError, match=f"quantizer.{key} is 0; write 1 or more"):
        QuantizerConfig(**{key: 0})


def test_config_survives_json(tower):
    assert TowerConfig.from_dict(tower.config.to_dict()) == tower.config


@pytest.mark.parametrize(
    ("shape", "upto", "error", "told"),
    [
        ((2, 16, 3), 0, ConfigError, "upto is 0; write a number of depths from 1 to 3"),
        ((2, 16, 3), 4, ConfigError, "upto is 4; write"),
        ((2, 15, 3), None, DataError, r"have the shape \(2, 15, 3\); give \(images, 16, 3\) as"),
        ((16, 3), None, DataError, r"have the shape \(16, 3\); give"),
    ],
)
def test_codes_that_cannot_be_decoded(shape, upto, error, told):
    with pytest.raises(error, match=told):
        tiny.tower().decode(torch.zeros(shape, dtype=torch.int64), upto=upto)


def test_patches_are_embedded_in_float32(tower, pixels, monkeypatch):
    """A card's convolutions are TensorFloat-32 by default, and codes would hang on it."""
    embeddings, seen = tower.siglip.vision_model.embeddings, []
    conv = torch.backends.cudnn.conv
    forward = embeddings.forward
    monkeypatch.setattr(
        embeddings,
        "forward",
        lambda *a, **kw: seen.append(conv.fp32_precision) or forward(*a, **kw),
    )
    before = conv.fp32_precision
    tower.encode(pixels)
    assert seen == ["ieee"]
    assert conv.fp32_precision == before
