"""The published search in bfloat16 against the recorded bfloat16 run of the published code."""

import pytest
import torch

from tests.models import tiny
from tests.models.test_oracle_tower import ORACLE, built_tower
from vilau.errors import ConfigError
from vilau.layers.pixels import to_float
from vilau.models.vila_u.tower import VisionTower

needs_record = pytest.mark.skipif(not ORACLE.is_file(), reason=f"no recorded outputs at {ORACLE}")


@pytest.fixture(scope="module")
def recorded():
    return torch.load(ORACLE, weights_only=True)


@pytest.fixture(scope="module")
def record(recorded):
    return recorded["bf16"]


@pytest.fixture
def tower(record) -> VisionTower:
    built = built_tower(record).to(torch.bfloat16)
    built.set_search("published")
    return built


@needs_record
@torch.no_grad()
def test_codes_of_recorded_features_are_the_recorded_codes(record, tower):
    seen = tower.quantizer(record["hidden_2"])
    codes = record["code"].flatten(1, 2)
    assert torch.equal(seen.codes, codes)
    assert torch.equal(tower.quantizer.encode(record["hidden_2"]), codes)
    assert torch.equal(seen.features, record["z_q"].flatten(1, 2))
    assert torch.equal(seen.commitment_loss, record["commitment_loss"])
    assert torch.equal(tower.embed(codes), record["z_from_codes"].flatten(1, 2))


@needs_record
@torch.no_grad()
def test_a_whole_tower_in_bfloat16_finds_the_recorded_codes(record, tower):
    vision = tower.siglip.vision_model
    hidden = vision.embeddings(record["image"])
    for number in range(3):
        if not torch.equal(hidden, record[f"hidden_{number}"]):
            pytest.skip(f"this processor's bfloat16 products round hidden state {number} otherwise")
        hidden = vision.encoder.layers[number](hidden, attention_mask=None)
    assert torch.equal(tower.encode(record["image"]), record["code"].flatten(1, 2))
    seen = tower.quantize(record["image"])
    assert torch.equal(seen.codes, record["code"].flatten(1, 2))
    assert torch.equal(seen.features, record["z_q"].flatten(1, 2))


@needs_record
@torch.no_grad()
def test_the_float32_search_is_another_tokenisation_of_the_same_features(record, tower):
    tower.set_search("float32")
    seen = tower.quantizer(record["hidden_2"])
    same = (seen.codes == record["code"].flatten(1, 2)).float().mean()
    assert 0.7 < same < 1
    # The sum of the code vectors, rounded once; the published features are x + (sum - x), rounded twice.
    assert torch.equal(seen.features, tower.quantizer.embed(seen.codes).bfloat16())
    published = tower.quantizer.embed(record["code"].flatten(1, 2)).bfloat16()
    assert (published != record["z_q"].flatten(1, 2)).any()


@needs_record
@torch.no_grad()
@pytest.mark.parametrize("name", ["fp32", "interp"])
def test_in_float32_both_searches_find_the_recorded_codes(recorded, name):
    tower = built_tower(recorded[name])
    codes = recorded[name]["code"].flatten(1, 2)
    for search in ("float32", "published", "float32"):
        tower.set_search(search)
        assert torch.equal(tower.encode(recorded[name]["image"]), codes)


@needs_record
def test_the_published_straight_through_gradient(recorded):
    record = recorded["fp32"]
    tower = built_tower(record)
    tower.set_search("published")
    features = record["hidden_2"].clone().requires_grad_()
    seen = tower.quantizer(features)
    loss = (seen.features * record["ste_weight"].flatten(1, 2)).sum()
    (loss + 0.25 * seen.commitment_loss).backward()
    torch.testing.assert_close(
        features.grad, record["ste_grad_input"].flatten(1, 2), rtol=0, atol=5e-7
    )


def test_the_choice_of_search_is_saved(tmp_path):
    tower, pixels = tiny.tower(), to_float(tiny.images(2))
    plain = tower.siglip.config.vision_config._attn_implementation
    tower.set_search("published")
    assert tower.siglip.vision_model.config._attn_implementation == "eager"
    tower.save(tmp_path)
    loaded = VisionTower.load(tmp_path)
    assert loaded.quantizer.search == loaded.config.quantizer.search == "published"
    assert loaded.siglip.vision_model.config._attn_implementation == "eager"
    assert torch.equal(loaded.encode(pixels), tower.encode(pixels))
    tower.set_search("float32")
    assert tower.siglip.vision_model.config._attn_implementation == plain
    with pytest.raises(ConfigError, match="search is 'bf16'; write float32 or published"):
        tower.set_search("bf16")
