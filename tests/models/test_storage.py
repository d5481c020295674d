import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.models import tiny
from vilau.errors import CheckpointError
from vilau.models.loading import load, load_tower
from vilau.models.storage import load_weights, save_folder
from vilau.models.vila_u.model import VilaU
from vilau.models.vila_u.tower import VisionTower


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "tower"
    tiny.tower(seed=3).save(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to damage."""
    return shutil.copytree(saved, tmp_path / "tower")


def change_weights(folder, change):
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


def test_save_then_load_is_bit_identical(saved):
    state, again = tiny.tower(seed=3).state_dict(), load_tower(saved).state_dict()
    assert state.keys() == again.keys()
    assert all(torch.equal(state[name], again[name]) for name in state)
    images = torch.rand(2, 3, tiny.SIDE, tiny.SIDE)
    assert torch.equal(tiny.tower(seed=3)(images).images, load_tower(saved)(images).images)


def test_vila_u_saves_and_loads_bit_identically_with_its_words(tmp_path):
    model = tiny.vila_u()
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert not again.training
    assert again.words.get_vocab() == model.words.get_vocab()
    before, after = (m.losses(tiny.multimodal()).sums for m in (model, again))
    assert all(torch.equal(before[name], after[name]) for name in before)
    again.save(tmp_path / "twice")
    first, second = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("model", "twice")
    )
    assert first == second


def test_tied_embeddings_are_stored_once(tmp_path):
    model = tiny.vila_u(tie_embeddings=True)
    model.save(tmp_path)
    assert "language.lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    again = load(tmp_path)
    assert again.language.lm_head.weight is again.language.model.embed_tokens.weight
    assert torch.equal(again.language.lm_head.weight, model.language.lm_head.weight)


def test_missing_folder(tmp_path):
    with pytest.raises(CheckpointError, match="holds no config.json; give the `model` folder"):
        VisionTower.load(tmp_path / "nowhere")


def test_another_kind(folder):
    with pytest.raises(CheckpointError, match="describes a vila_u.tower, but a vila_u is needed"):
        VilaU.load(folder)


def test_weights_are_missing(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model.safetensors is missing; make the run again"):
        VisionTower.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("post_quant_conv.bias"), "post_quant_conv.bias is missing"),
        (lambda s: s.update(extra=torch.zeros(1)), "extra is not expected"),
        (
            lambda s: s.update({"post_quant_conv.bias": torch.zeros(3)}),
            r"post_quant_conv.bias is \(3,\) instead of \(8,\)",
        ),
        (
            lambda s: [s.pop(k) for k in list(s) if k.startswith("decoder.")],
            r"; and \d+ more\.",
        ),
    ],
    ids=["missing", "extra", "mis-shaped", "many"],
)
def test_tensors_that_do_not_fit_are_listed(folder, change, message):
    change_weights(folder, change)
    with pytest.raises(CheckpointError, match=message):
        VisionTower.load(folder)


def test_truncated_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot be read .*make the run again or restore"):
        VisionTower.load(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"kind": "vila', "is not readable JSON"),
        ("[1, 2]", "holds a list instead of a mapping"),
        ("{}", "describes a model of unknown kind, but a vila_u.tower is needed"),
        ('{"kind": "vila_u.tower"}', "does not fit this version of vilau .KeyError: 'tower'"),
    ],
)
def test_broken_configs(folder, text, message):
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        VisionTower.load(folder)


def test_a_config_of_other_fields(folder):
    config = json.loads((folder / "config.json").read_text())
    config["tower"]["quantizer"]["depht"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="does not fit this version.*depht"):
        VisionTower.load(folder)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written to .*free disk space there or"):
        save_folder(tmp_path / "file", kind="x", config={}, module=nn.Linear(1, 1))


def test_a_write_that_breaks_off_leaves_nothing_to_load(folder, monkeypatch):
    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vilau.models.storage.write_safetensors", full_disk)
    with pytest.raises(CheckpointError, match="No space left on device"):
        tiny.tower().save(folder)
    with pytest.raises(CheckpointError, match=r"holds no config.json"):
        VisionTower.load(folder)


def test_shapes_alone_are_saved_and_loaded_on_the_meta_device(tmp_path, saved):
    with torch.device("meta"):
        tower = VisionTower.load(saved)
        tower.save(tmp_path)
        VisionTower.load(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    with pytest.raises(CheckpointError, match="is missing"):
        VisionTower.load(tmp_path)


def test_weights_load_onto_a_plain_module(tmp_path):
    save_folder(tmp_path, kind="x", config={"a": 1}, module=nn.Linear(2, 2))
    module = nn.Linear(2, 2)
    load_weights(module, tmp_path)
    assert torch.equal(module.weight, load_file(tmp_path / "model.safetensors")["weight"])
