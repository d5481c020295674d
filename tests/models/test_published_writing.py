"""``vilau.export`` on the disk: what it replaces, and what a write that breaks off leaves."""

import json
import os
from pathlib import Path

import pytest
import torch

import vilau
from tests.models import published, tiny
from tests.models.published import same_state
from vilau.errors import CheckpointError, ConfigError
from vilau.models.vila_u.published import write as export_module


def files(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def model():
    return tiny.vila_u()


def test_weights_are_as_readable_as_the_configs_beside_them(model, tmp_path):
    vilau.export(model, tmp_path / "out")
    model.save(tmp_path / "ours")
    modes = {path.stat().st_mode for path in tmp_path.rglob("*") if path.is_file()}
    assert len(modes) == 1


def test_an_export_replaces_one_and_nothing_else(model, tmp_path):
    vilau.export(model, tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    other = tiny.vila_u(seed=9)
    vilau.export(other, tmp_path / "out")
    assert same_state(other, vilau.load(tmp_path / "out"))
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "llm").mkdir()
    with pytest.raises(
        CheckpointError, match="home holds other files than .*give a new or empty folder"
    ):
        vilau.export(model, tmp_path / "home")
    assert sorted(os.listdir(tmp_path)) == ["home", "out"]


def test_a_write_that_breaks_off_leaves_the_old_checkpoint(model, tmp_path, monkeypatch):
    vilau.export(model, tmp_path / "out")

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_module, "_write_words", full_disk)
    for name in ("out", "new"):
        with pytest.raises(CheckpointError, match=f"cannot be written to .*{name} .*No space left"):
            vilau.export(tiny.vila_u(seed=9), tmp_path / name)
    assert same_state(model, vilau.load(tmp_path / "out"))
    assert os.listdir(tmp_path) == ["out"]


def test_a_move_that_breaks_off_leaves_nothing_to_load(model, tmp_path, monkeypatch):
    vilau.export(model, tmp_path / "out")
    replace = Path.replace

    def fails(path, target):
        if path.name == "vision_tower":
            raise OSError(28, "No space left on device")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(CheckpointError, match="No space left on device"):
        vilau.export(model, tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"out holds no config.json"):
        vilau.load(tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]


def test_what_cannot_be_exported(model, tmp_path):
    with pytest.raises(ConfigError, match="layout is 'vila'; write vila-u"):
        vilau.export(model, tmp_path, layout="vila")
    with pytest.raises(ConfigError, match="a VilaU or a VisionTower, not a Linear; use its save"):
        vilau.export(torch.nn.Linear(1, 1), tmp_path)
    vilau.export(model.tokenizer, tmp_path / "tower")
    with pytest.raises(CheckpointError, match="tower holds other files"):
        vilau.export(model, tmp_path / "tower")
    with torch.device("meta"):
        shapes = tiny.vila_u()
    with pytest.raises(CheckpointError, match="shapes but no weights"):
        vilau.export(shapes, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written to .*file"):
        vilau.export(model, tmp_path / "file" / "out")


def test_large_models_are_written_in_shards(tmp_path):
    state = {f"t{i}": torch.full((10,), float(i)) for i in range(7)}
    published.write_tensors(state, tmp_path, shard_bytes=100)
    names = [f"model-0000{i}-of-00004.safetensors" for i in range(1, 5)]
    assert sorted(files(tmp_path)) == [*names, "model.safetensors.index.json"]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": 280}
    assert index["weight_map"]["t6"] == names[3]
    again = published.read_tensors(tmp_path)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)
