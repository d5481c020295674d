"""``vilau.load`` and ``load_tower``: what they open, and one sentence for everything else."""

import json

import pytest
import torch
from safetensors.torch import load_file

import vilau
from tests.models import tiny
from tests.models.published import edit, edit_weights, no_network, same_state
from vilau.errors import CheckpointError, ConfigError

LOADERS = (vilau.load, vilau.load_tower)


# ---------------------------------------------------------------- what opens


def test_our_folders_and_published_ones_give_the_same_model(model, exported, tmp_path):
    model.save(tmp_path / "run" / "model")
    model.tokenizer.save(tmp_path / "tower")
    for path in (tmp_path / "run", tmp_path / "run" / "model", exported, str(exported)):
        opened = vilau.load(path)
        assert same_state(model, opened)
        assert not opened.training
    towers = (tmp_path / "run", tmp_path / "tower", exported, exported / "vision_tower")
    for path in towers:
        tower = vilau.load_tower(path)
        assert same_state(model.tokenizer, tower)
        assert tower.config.quantizer == model.tokenizer.config.quantizer
        assert not tower.training


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_number_format_is_kept_until_another_is_asked_for(model, dtype, tmp_path):
    model.save(tmp_path / "float32")
    half = vilau.load(tmp_path / "float32", dtype=dtype)
    half.save(tmp_path / "ours")
    vilau.export(half, tmp_path / "published")
    for layout in ("ours", "published"):
        again = vilau.load(tmp_path / layout)
        assert {p.dtype for p in again.parameters()} == {dtype}
        assert same_state(half, again)
        whole = vilau.load(tmp_path / layout, dtype=torch.float32)
        assert {p.dtype for p in whole.parameters()} == {torch.float32}
    rotary = [m.language.model.rotary_emb.inv_freq for m in (half, model)]
    assert torch.equal(*rotary)
    # A codebook that the weights' format cannot hold is written in its own.
    books = load_file(tmp_path / "published" / "vision_tower" / "model.safetensors")
    assert books["rqvaesiglip.quantizer.codebooks.0.weight"].dtype == torch.float32
    assert books["rqvaesiglip.post_quant_conv.weight"].dtype == dtype


def test_what_is_loaded_does_not_hang_on_the_file(folder):
    loaded = vilau.load(folder)
    before = loaded.projector[0].weight.clone()
    file = folder / "mm_projector" / "model.safetensors"
    file.write_bytes(bytes(file.stat().st_size))
    assert torch.equal(loaded.projector[0].weight, before)
    assert before.abs().sum() > 0


def test_tied_embeddings_stay_tied(tmp_path):
    model = tiny.vila_u(tie_embeddings=True)
    vilau.export(model, tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "llm" / "model.safetensors")
    again = vilau.load(tmp_path)
    assert again.language.lm_head.weight is again.language.model.embed_tokens.weight
    first, second = "model.embed_tokens.weight", "lm_head.weight"
    edit_weights(tmp_path / "llm", lambda state: state.update({second: state[first].clone()}))
    assert same_state(model, vilau.load(tmp_path))
    edit_weights(tmp_path / "llm", lambda state: state[second].add_(1))
    with pytest.raises(CheckpointError, match=f"holds a {second} unlike {first}, but its config"):
        vilau.load(tmp_path)


# ---------------------------------------------------------------- what does not


def sentence(loader, path, **settings) -> str:
    """The one sentence that refuses ``path``."""
    with pytest.raises(CheckpointError) as caught:
        loader(path, **settings)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "llama"}, "describes a llama, "),
        ({"model_type": "clip"}, "describes a clip, but a "),
        ({"kind": "siglip"}, "describes a siglip, but a "),
        ({}, "describes a model of unknown kind, but a "),
        ([], "holds a list instead of a mapping"),
    ],
)
def test_a_config_of_another_model(loader, config, message, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert message in sentence(loader, tmp_path)


def test_a_tower_is_no_unified_model(exported, tmp_path):
    tiny.tower().save(tmp_path)
    for path in (tmp_path, exported / "vision_tower"):
        assert "but a unified model is needed here; use load_tower, or give" in sentence(
            vilau.load, path
        )


@pytest.mark.parametrize("loader", LOADERS)
def test_no_folder(loader, exported, tmp_path, monkeypatch):
    attempts = no_network(monkeypatch)
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "readme.md").write_text("words")
    pickle, weights = tmp_path / "tower.pth", exported / "llm" / "model.safetensors"
    torch.save({}, pickle)
    for path, message in (
        (tmp_path / "empty", "empty is empty; give a published VILA-U checkpoint"),
        (tmp_path / "other", "other holds no config.json; give a published"),
        (tmp_path / "nowhere", "nowhere is neither a folder nor in the local hub cache"),
        ("someone/vila-u-7b-256", "someone/vila-u-7b-256 is neither a folder nor in the local hub"),
        ("https://example.org/vila-u", "https://example.org/vila-u is an address, and nothing is"),
        (weights, "model.safetensors is a file; give the folder that holds it"),
        (pickle, "tower.pth is a pickle"),
    ):
        assert message in sentence(loader, path)
    assert attempts == []


def test_a_checkpoint_without_its_own_config_is_half_written(folder):
    (folder / "config.json").unlink()
    assert "holds no config.json" in sentence(vilau.load, folder)


@pytest.mark.parametrize("loader", LOADERS)
def test_a_dtype_that_is_none(loader, exported):
    with pytest.raises(
        ConfigError, match=r"dtype is torch.int8; write torch.float32, torch.bfloat16"
    ):
        loader(exported, dtype=torch.int8)


def test_a_config_with_a_prompt_of_other_fields(folder):
    edit(folder / "config.json", lambda c: c.update(vilau={"prompt": {"sytem": ""}}))
    assert "config.json does not describe a VILA-U (TypeError" in sentence(vilau.load, folder)
