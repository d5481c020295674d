"""Published checkpoints: where their sizes come from, and parts that do not fit."""

import shutil

import huggingface_hub.constants
import pytest
import torch

import vilau
from tests.models import published
from tests.models.published import CHECKPOINT, TOWERS, copy, edit, same_state, with_tower
from vilau.errors import CheckpointError

pytestmark = published.needs_recordings


@pytest.fixture(scope="module")
def towers():
    return torch.load(TOWERS, weights_only=True)


@pytest.fixture(scope="module")
def model():
    return vilau.load(CHECKPOINT)


# ---------------------------------------------------------------- where sizes come from


def strip_sizes(folder):
    """Take every size out of config.json that a tensor shows."""

    def strip(config):
        part = config["rqvaesiglip"]
        for key in ("embed_dim", "n_embed", "latent_shape", "code_shape", "ddconfig"):
            part.pop(key)
        head = config["rqtransformer"]
        for key in ("block_size", "embed_dim", "input_embed_dim_1", "vocab_size"):
            head.pop(key)
        head["head"].pop("n_layer")

    edit(folder / "vision_tower" / "config.json", strip)


def test_sizes_that_the_config_lacks_are_read_off_the_tensors(model, towers, tmp_path):
    strip_sizes(copy(tmp_path / "tiny"))
    again = vilau.load(tmp_path / "tiny")
    assert again.tokenizer.config.decoder == model.tokenizer.config.decoder
    assert again.tokenizer.config.quantizer == model.tokenizer.config.quantizer
    assert again.head_config == model.head_config
    assert same_state(model, again)
    strip_sizes(with_tower(tmp_path / "interp", towers["interp"]))
    resized = vilau.load_tower(tmp_path / "interp").config.decoder
    assert resized.latent_grid == 4
    assert resized.attention_grids == (4,)


@pytest.mark.parametrize(
    ("scaling", "first"),
    [
        (None, 1.0),
        ({"type": "linear", "factor": 4.0}, 0.25),
        ({"type": "dynamic", "factor": 2.0}, 1.0),
    ],
)
def test_the_scaling_of_positions_is_honoured(tmp_path, scaling, first):
    edit(copy(tmp_path / "in") / "llm" / "config.json", lambda c: c.update(rope_scaling=scaling))
    language = vilau.load(tmp_path / "in").language
    assert float(language.model.rotary_emb.inv_freq[0]) == first
    assert language.config.rope_parameters["rope_type"] == (scaling or {"type": "default"})["type"]
    vilau.export(vilau.load(tmp_path / "in"), tmp_path / "out")
    again = vilau.load(tmp_path / "out").language
    assert again.config.rope_parameters == language.config.rope_parameters


def test_a_size_that_nothing_shows(tmp_path):
    strip_sizes(copy(tmp_path))
    name = "rqvaesiglip.quantizer.codebooks.0.weight"
    published.edit_weights(tmp_path / "vision_tower", lambda state: state.pop(name))
    with pytest.raises(CheckpointError, match=f"{name} is missing, and config.json does not say"):
        vilau.load(tmp_path)


def test_without_a_siglip_config_its_sizes_are_those_of_the_tensors(model, tmp_path, monkeypatch):
    attempts = published.no_network(monkeypatch)
    shutil.rmtree(copy(tmp_path) / "siglip")
    with pytest.warns(
        UserWarning, match="SigLIP siglip of .* its attention heads are taken to be 16"
    ):
        vilau.load(tmp_path)
    name = "google/siglip-large-patch16-256"
    edit(
        tmp_path / "vision_tower" / "config.json",
        lambda c: c["rqvaesiglip"].update(pretrained_model=name),
    )
    again = vilau.load(tmp_path)
    unlike = {"num_heads": 16, "text_heads": 16, "tokenizer": name}  # no tensor shows heads
    assert again.tokenizer.config.siglip == {**model.tokenizer.config.siglip, **unlike}
    assert same_state(model, again)
    with pytest.raises(
        CheckpointError, match=f"tokenizer {name} is neither a local folder nor in the"
    ):
        again.tokenizer.text_features(["a cat"])
    assert attempts == []


@pytest.mark.parametrize("place", ["siglip-tiny", "vision_tower/siglip-tiny", "../siglip-tiny"])
def test_the_siglip_config_is_found_inside_and_beside(model, tmp_path, place):
    folder = copy(tmp_path / "checkpoint")
    (folder / "siglip").rename(folder / place)
    name = "someone/siglip-tiny"
    edit(
        folder / "vision_tower" / "config.json",
        lambda c: c["rqvaesiglip"].update(pretrained_model=name),
    )
    sizes = vilau.load(folder).tokenizer.sizes
    assert sizes.num_heads == model.tokenizer.sizes.num_heads == 4
    assert sizes.tokenizer == str((folder / place).resolve())


def test_the_siglip_config_is_found_in_the_hub_cache(model, tmp_path, monkeypatch):
    attempts = published.no_network(monkeypatch)
    folder, cache = copy(tmp_path / "checkpoint"), tmp_path / "cache"
    stored = cache / "models--someone--siglip-tiny"
    (stored / "refs").mkdir(parents=True)
    (stored / "refs" / "main").write_text("0123")
    (stored / "snapshots").mkdir()
    (folder / "siglip").rename(stored / "snapshots" / "0123")
    name = "someone/siglip-tiny"
    edit(
        folder / "vision_tower" / "config.json",
        lambda c: c["rqvaesiglip"].update(pretrained_model=name),
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    sizes = vilau.load(folder).tokenizer.sizes
    assert (sizes.num_heads, sizes.tokenizer) == (4, name)
    assert attempts == []


def test_nothing_is_asked_of_the_network(monkeypatch):
    attempts = published.no_network(monkeypatch)
    vilau.load(CHECKPOINT)
    vilau.load_tower(CHECKPOINT / "vision_tower")
    assert attempts == []


def test_the_tower_of_a_checkpoint(model):
    for path in (CHECKPOINT, CHECKPOINT / "vision_tower"):
        assert same_state(model.tokenizer, vilau.load_tower(path))


def test_shapes_alone_are_built_on_the_meta_device():
    with torch.device("meta"):
        built = vilau.load(CHECKPOINT)
    assert {tensor.device.type for tensor in built.state_dict().values()} == {"meta"}


# ---------------------------------------------------------------- parts that do not fit


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("llm/config.json", {"model_type": "mistral"}, "describes a mistral, but VILA-U's language model"),
        ("llm/config.json", {"vocab_size": 300}, "has ids up to 383, but the language model knows only 300"),
        ("llm/config.json", {"hidden_size": "wide"}, "llm/config.json does not describe a llama"),
        ("llm/config.json", {"num_attention_heads": 5}, "describe a llama .*not a multiple of the number of"),
        ("mm_projector/config.json", {"mm_projector_type": "linear"}, "'linear', but this model's projector is"),
        ("vision_tower/config.json", {"rqvaesiglip": "x"}, "vision_tower/config.json does not describe a VILA-U"),
        ("vision_tower/config.json", {"rqvaesiglip": {"pretrained_model": "siglip", "decoder_latent_shape": [4, 6]}},
         r"decoder_latent_shape is \[4, 6\], but only square grids"),
        ("vision_tower/config.json", {"rqtransformer": {"head": {"block": {"gelu": "v2"}}}},
         "block.gelu is 'v2', but only 'v1' is computed here"),
        ("siglip/config.json", {"vision_config": {"hidden_size": 96}}, "hidden_size 64|has text_config"),
    ],
)  # fmt: skip
def test_a_config_that_does_not_fit(tmp_path, file, change, message):
    copy(tmp_path)
    edit(tmp_path / file, lambda fields: fields.update(change))
    with pytest.raises(CheckpointError, match=message):
        vilau.load(tmp_path)


def test_a_tokenizer_that_does_not_fit(tmp_path):
    copy(tmp_path)
    (tmp_path / "llm" / "tokenizer.model").rename(tmp_path / "aside")
    with pytest.raises(CheckpointError, match=r"llm holds no tokenizer .*copy its files there"):
        vilau.load(tmp_path)
    (tmp_path / "llm" / "tokenizer.model").write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match="the tokenizer in .*llm cannot be read .*restore"):
        vilau.load(tmp_path)
    (tmp_path / "aside").rename(tmp_path / "llm" / "tokenizer.model")
    for name in ("tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"):
        (tmp_path / "llm" / name).unlink()
    says = "lacks <im_start>, <im_end>; .* write mm_use_im_start_end: false into config.json"
    with pytest.raises(CheckpointError, match=says):
        vilau.load(tmp_path)
