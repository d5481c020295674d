import dataclasses
import json

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, SiglipModel

from tests.models import tiny
from vilau.errors import CheckpointError, ConfigError
from vilau.models.encoders.load import load_encoders
from vilau.models.siglip import (
    TextInputs,
    build_siglip,
    canonicalise,
    check_image_size,
    transformers_config,
)
from vilau.models.sizes import SiglipSizes
from vilau.models.tokenizers import load_tokenizer
from vilau.training.clip import ClipPretraining


def outputs(model):
    pixels = torch.rand(2, 3, tiny.SIDE, tiny.SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(pixel_values=pixels, input_ids=torch.arange(24).view(2, 12)).logits_per_image


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """A folder that transformers itself wrote."""
    folder = tmp_path_factory.mktemp("siglip")
    torch.manual_seed(0)
    model = SiglipModel(transformers_config(tiny.sizes()))
    model.save_pretrained(folder)
    return folder, model.eval()


def test_starts_at_the_papers_scale_and_bias():
    model = build_siglip(tiny.sizes(), logit_bias=-3.0)
    assert model.logit_scale.exp().item() == pytest.approx(10, rel=1e-4)
    assert model.logit_bias.item() == -3.0


def test_a_transformers_folder_loads_with_its_sizes(theirs):
    folder, model = theirs
    loaded, found = load_encoders(str(folder))
    assert dataclasses.replace(found, tokenizer="world-tokenizer") == tiny.sizes()
    assert found.tokenizer == str(folder)
    torch.testing.assert_close(outputs(loaded.eval()), outputs(model))


def test_our_own_folder_loads_bit_for_bit(tmp_path):
    folder = tiny.siglip_folder(tmp_path / "ours")
    loaded, found = load_encoders(folder)
    assert found == tiny.sizes()
    torch.manual_seed(0)
    expected = build_siglip(tiny.sizes()).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())


def test_another_architecture_is_refused_not_filled_with_random_weights(tmp_path):
    config = LlamaConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=8
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="describes a llama, but a siglip is needed"):
        load_encoders(str(tmp_path))


def test_a_transformers_folder_without_some_weights_is_refused(theirs, tmp_path):
    _, model = theirs
    state = {k: v for k, v in model.state_dict().items() if "probe" not in k}
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(CheckpointError, match="lacks 1 tensors of a siglip.*probe"):
        load_encoders(str(tmp_path))


def test_a_truncated_transformers_folder_is_refused(theirs, tmp_path):
    _, model = theirs
    model.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="weights in .* cannot be read.*copy them again"):
        load_encoders(str(tmp_path))


def test_pickled_weights_are_not_opened(theirs, tmp_path):
    folder, model = theirs
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="neither a local folder nor in the hub cache"):
        load_encoders(str(tmp_path))


def test_nowhere_to_be_found(tmp_path):
    with pytest.raises(
        CheckpointError, match="nowhere are neither a local folder.*give the folder"
    ):
        load_encoders(str(tmp_path / "nowhere"))


def test_broken_json(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="config.json is not readable JSON"):
        load_encoders(str(tmp_path))


def test_an_unknown_size_in_the_config(tmp_path):
    folder = tiny.siglip_folder(tmp_path / "ours")
    path = tmp_path / "ours" / "config.json"
    config = json.loads(path.read_text())
    config["sizes"]["widht"] = 3
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="does not fit this version of vilau.*widht"):
        load_encoders(folder)


def test_captions_are_cleaned_as_siglip_cleans_them():
    assert canonicalise("  A red Circle,\n left-of  a SQUARE. ") == "a red circle leftof a square"


def test_captions_end_with_the_end_token_even_when_cut():
    words = load_tokenizer("world-tokenizer")
    ids = TextInputs(tiny.sizes())(["A red circle.", "red " * 30], torch.device("cpu"))
    assert ids.shape == (2, 12)
    expected = words("a red circle", add_special_tokens=False)["input_ids"]
    gap = 12 - len(expected) - 1
    assert ids[0].tolist() == [*expected, words.eos_token_id, *[words.pad_token_id] * gap]
    assert ids[1, -1] == words.eos_token_id
    assert (ids[1, :-1] != words.eos_token_id).all()


def test_a_new_siglip_leaves_no_border_out():
    sizes = tiny.sizes(image_size=250, patch_size=16)
    with pytest.raises(ConfigError, match="image_size is 250, which 16-pixel.*write 240 or 256"):
        ClipPretraining(sizes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 3}, "siglip.num_heads is 3.*hidden_size 32; write a divisor of 32"),
        ({"text_heads": 5}, "siglip.text_heads is 5"),
        ({"num_layers": 1}, "siglip.num_layers is 1.*write 2 or more"),
    ],
)
def test_impossible_sizes(changes, message):
    with pytest.raises(ConfigError, match=message):
        tiny.sizes(**changes)


def test_images_of_another_size_are_refused_in_one_sentence() -> None:
    sizes = SiglipSizes(image_size=64, patch_size=8)
    with pytest.raises(ConfigError, match=r"60 x 60 pixels.*64 x 64; write data.image_size: 64"):
        check_image_size(torch.zeros(2, 3, 60, 60), sizes)
