"""``vilau.export``: load -> export -> load loses nothing, and the folder is the published one."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from safetensors.torch import load_file

import vilau
from tests.models import tiny
from tests.models.published import (
    CHECKPOINT,
    EXPECTED,
    TOWERS,
    needs_recordings,
    same_state,
    with_tower,
)
from vilau.errors import CheckpointError
from vilau.models.sequence.config import PromptConfig
from vilau.models.sizes import PUBLISHED_SIGLIPS
from vilau.models.vila_u.config import DecoderConfig, TowerConfig
from vilau.models.vila_u.model import VilaU
from vilau.models.vila_u.published.write_siglip import is_published_siglip, siglip_name
from vilau.models.vila_u.tower import VisionTower

GREEDY = {"temperature": 0.0, "guidance_scale": 2.0}


def files(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def same_work(one, other, side):
    """Pictures, features and greedy answers agree to the last bit."""
    image = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    doings = [
        lambda model: model.tokenizer.decode(model.tokenizer.encode(image)),
        lambda model: model.tokenizer.image_features(image),
        lambda model: model.generate_images("a cat", **GREEDY),
    ]
    with torch.no_grad():
        assert all(torch.equal(doing(one), doing(other)) for doing in doings)
    asked = (image[:1], "what is shown here")
    words = [model.generate_text(*asked, max_new_tokens=8) for model in (one, other)]
    assert words[0] == words[1]


# ---------------------------------------------------------------- the recorded checkpoint


@needs_recordings
def test_the_recorded_checkpoint_goes_out_as_it_came_in(tmp_path):
    model = vilau.load(CHECKPOINT)
    vilau.export(model, tmp_path / "out")
    again = vilau.load(tmp_path / "out")
    assert same_state(model, again)
    same_work(model, again, 32)
    assert files(tmp_path / "out") == files(CHECKPOINT)
    expected = torch.load(EXPECTED, weights_only=True)
    for part, keys in (
        ("llm", expected["keys_llm"]),
        ("vision_tower", expected["keys_vision_tower"]),
        ("mm_projector", expected["keys_mm_projector"]),
    ):
        before, after = (
            load_file(root / part / "model.safetensors") for root in (CHECKPOINT, tmp_path / "out")
        )
        assert {name: list(tensor.shape) for name, tensor in after.items()} == keys
        assert all(
            torch.equal(before[n], after[n]) and before[n].dtype == after[n].dtype for n in keys
        )
    model_files = [root / "llm" / "tokenizer.model" for root in (CHECKPOINT, tmp_path / "out")]
    assert model_files[0].read_bytes() == model_files[1].read_bytes()


def keeps(before, after, where=""):
    """Every published field is there with its value; ours may have more."""
    for key, value in before.items():
        assert key in after, f"{where}/{key}"
        if isinstance(value, dict):
            keeps(value, after[key], f"{where}/{key}")
        elif key != "_name_or_path":
            assert after[key] == value, f"{where}/{key}"


@needs_recordings
def test_every_published_field_is_written(tmp_path):
    vilau.export(vilau.load(CHECKPOINT), tmp_path)
    checked = [file for file in files(CHECKPOINT) if file.endswith(".json")]
    assert len(checked) == 10
    for file in checked:
        keeps(*(json.loads((root / file).read_text()) for root in (CHECKPOINT, tmp_path)), file)
        assert "vilau" not in json.loads((tmp_path / file).read_text())


@needs_recordings
@pytest.mark.parametrize("name", ["bf16", "interp"])
def test_other_recorded_towers_come_back(name, tmp_path):
    record = torch.load(TOWERS, weights_only=True)[name]
    folder = with_tower(tmp_path / "in", record)
    model = vilau.load(folder, dtype=torch.bfloat16 if name == "bf16" else None)
    vilau.export(model, tmp_path / "out")
    assert same_state(model, vilau.load(tmp_path / "out"))
    before, after = (
        load_file(root / "vision_tower" / "model.safetensors")
        for root in (folder, tmp_path / "out")
    )
    assert set(after) < set(before)  # the record holds second copies
    assert all(
        torch.equal(before[n], after[n]) and before[n].dtype == after[n].dtype for n in after
    )
    config = json.loads((tmp_path / "out" / "vision_tower" / "config.json").read_text())
    wanted = json.loads(record["config_json"])["rqvaesiglip"]
    assert config["rqvaesiglip"]["decoder_latent_shape"] == wanted["decoder_latent_shape"]
    assert config["rqvaesiglip"]["ddconfig"] == wanted["ddconfig"]


@needs_recordings
def test_the_tokenizer_file_travels_through_our_own_layout(tmp_path):
    model = vilau.load(CHECKPOINT)
    model.save(tmp_path / "ours")
    again = vilau.load(tmp_path / "ours")
    vilau.export(again, tmp_path / "out")
    file = tmp_path / "out" / "llm" / "tokenizer.model"
    assert file.read_bytes() == (CHECKPOINT / "llm" / "tokenizer.model").read_bytes()
    assert same_state(model, vilau.load(tmp_path / "out"))
    (tmp_path / "ours" / "tokenizer" / "tokenizer.model").unlink()
    with pytest.raises(
        CheckpointError, match="tokenizer.model, which this model's .* is gone; put it back"
    ):
        vilau.export(again, tmp_path / "gone")


# ---------------------------------------------------------------- models of ours


@pytest.mark.parametrize("form", ["plain", "published"])
def test_our_tiny_model_comes_back(form, tmp_path):
    model = tiny.vila_u(seed=2, prompt=PromptConfig(system="", form=form))
    vilau.export(model, tmp_path)
    again = vilau.load(tmp_path)
    assert same_state(model, again)
    assert again.prompt == model.prompt
    assert again.head_config == model.head_config
    assert asdict(again.tokenizer.config.decoder) == asdict(model.tokenizer.config.decoder)
    assert again.words.get_vocab() == model.words.get_vocab()
    same_work(model, again, tiny.SIDE)
    texts = ["a red circle", "two squares"]
    assert torch.equal(model.tokenizer.text_features(texts), again.tokenizer.text_features(texts))
    assert {"llm/tokenizer.json", "siglip/config.json", "siglip/tokenizer.json"} <= files(tmp_path)


def test_what_the_layout_has_no_field_for_is_written_beside(tmp_path):
    sizes = tiny.sizes(attention="lean")
    decoder = tiny.decoder(multipliers=(1, 2), output_patch=2, norm_groups=8)
    torch.manual_seed(0)
    tower = VisionTower(TowerConfig(dict(vars(sizes)), tiny.quantizer(decay=0.9), decoder))
    language = tiny.language(
        attention="lean", rope_scaling_factor=2.0, extra={"num_key_value_heads": 1}
    )
    model = VilaU.start(tower, language, tiny.head(num_heads=4, dropout=0.2), tiny.PROMPT).eval()
    vilau.export(model, tmp_path)
    again = vilau.load(tmp_path)
    assert same_state(model, again)
    same_work(model, again, tiny.SIDE)
    config, decoder = again.tokenizer.config, again.tokenizer.config.decoder
    assert (decoder.output_patch, decoder.norm_groups, config.siglip["attention"]) == (2, 8, "lean")
    assert config.quantizer.decay == 0.9
    assert again.language_config.attention == "lean"
    assert again.language.config.num_key_value_heads == 1
    assert again.language.config.rope_parameters["factor"] == 2.0
    assert again.head_config == model.head_config
    tower_config = json.loads((tmp_path / "vision_tower" / "config.json").read_text())
    assert tower_config["vilau"] == {"norm_groups": 8, "output_patch": 2, "attention": "lean"}


def test_a_decoder_that_the_layout_does_not_know_comes_back(tmp_path):
    decoder = tiny.decoder(
        kind="patch", multipliers=(1,), num_res_blocks=0, output_patch=4, num_layers=2,
        num_heads=2, head_size=24,
    )  # fmt: skip
    torch.manual_seed(0)
    tower = VisionTower(TowerConfig(dict(vars(tiny.sizes())), tiny.quantizer(), decoder))
    model = VilaU.start(tower, tiny.language(), tiny.head(), tiny.PROMPT).eval()
    vilau.export(model, tmp_path)
    again = vilau.load(tmp_path)
    assert again.tokenizer.config.decoder == decoder
    assert same_state(model, again)
    same_work(model, again, tiny.SIDE)


def test_the_decoder_of_the_384_model_comes_back(tmp_path):
    sizes = tiny.sizes(image_size=20)  # 5 x 5 cells
    decoder = tiny.decoder(latent_grid=4, attention_grids=(4, 8))
    torch.manual_seed(0)
    tower = VisionTower(TowerConfig(dict(vars(sizes)), tiny.quantizer(), decoder))
    model = VilaU.start(tower, tiny.language(), tiny.head(), tiny.PROMPT).eval()
    vilau.export(model, tmp_path)
    again = vilau.load(tmp_path)
    assert again.tokenizer.config.decoder == decoder
    codes = torch.randint(0, 24, (2, 25, 3))
    assert torch.equal(model.tokenizer.decode(codes), again.tokenizer.decode(codes))


def test_the_name_of_a_published_siglip_says_everything():
    sizes = PUBLISHED_SIGLIPS["google/siglip-so400m-patch14-384"]
    assert is_published_siglip(sizes)
    assert siglip_name(sizes) == "google/siglip-so400m-patch14-384"
    other = tiny.sizes(tokenizer="google/siglip-base-patch16-224")
    assert siglip_name(other) == "google/siglip-base-patch16-224"
    assert not is_published_siglip(other)
    assert siglip_name(tiny.sizes()) == "siglip"
    assert DecoderConfig().norm_groups == 32


@pytest.mark.parametrize(
    "changes",
    [
        {"shared_codebook": False},
        {"learning": "gradient", "entropy": True, "search": "published"},
        {"initialisation": "data", "update": "per_step"},
    ],
    ids=str,
)
def test_other_quantisers_come_back(changes, tmp_path):
    torch.manual_seed(0)
    quantizer = tiny.quantizer(**changes)
    tower = VisionTower(TowerConfig(dict(vars(tiny.sizes())), quantizer, tiny.decoder()))
    model = VilaU.start(tower, tiny.language(), tiny.head(), tiny.PROMPT).eval()
    vilau.export(model, tmp_path)
    again = vilau.load(tmp_path)
    # A codebook that is read from a file has started.
    assert again.tokenizer.config.quantizer == replace(quantizer, initialisation="normal")
    before, after = (m.tokenizer.quantizer.state_dict() for m in (model, again))
    before.pop("initialised", None)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    same_work(model, again, tiny.SIDE)
