"""``vilau.load`` and ``load_tower`` over weights that are broken, do not fit, or are pickles."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

import vilau
from tests.models.published import edit_weights, same_state
from vilau.errors import CheckpointError

LOADERS = (vilau.load, vilau.load_tower)


def sentence(loader, path, **settings) -> str:
    """The one sentence that refuses ``path``."""
    with pytest.raises(CheckpointError) as caught:
        loader(path, **settings)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def drop(name):
    return lambda state: state.pop(name)


TENSORS = (
    ("llm", "model.norm.weight"),
    ("vision_tower", "rqvaesiglip.decoder.conv_out.bias"),
    ("vision_tower", "rqvaesiglip.quantizer.codebooks.0.weight"),
    ("vision_tower", "rqvaesiglip.siglip_model.text_model.head.weight"),
    ("mm_projector", "layers.2.bias"),
)


@pytest.mark.parametrize(("part", "name"), TENSORS)
def test_one_tensor_is_missing(folder, part, name):
    edit_weights(folder / part, drop(name))
    text = sentence(vilau.load, folder)
    assert f"{part} does not fit its config: {name} is missing." in text
    if part == "vision_tower":
        assert f"{name} is missing." in sentence(vilau.load_tower, folder / part)


@pytest.mark.parametrize(("part", "name"), TENSORS)
def test_one_tensor_is_mis_shaped(folder, part, name):
    edit_weights(folder / part, lambda s: s.update({name: torch.zeros(5)}))
    assert f"config: {name} is (5,) instead of (" in sentence(vilau.load, folder)


@pytest.mark.parametrize("part", ["llm", "vision_tower", "mm_projector"])
def test_one_tensor_is_unexpected(folder, part):
    edit_weights(folder / part, lambda s: s.update({"surprise": torch.zeros(3)}))
    assert f"{part} does not fit its config: surprise is not expected." in sentence(
        vilau.load, folder
    )


def test_many_tensors_are_counted(folder):
    dropped = []

    def drop_text(state):
        dropped.extend(name for name in state if ".text_model." in name)
        for name in dropped:
            del state[name]

    edit_weights(folder / "vision_tower", drop_text)
    text = sentence(vilau.load, folder)
    assert text.count(" is missing;") == 8
    assert text.endswith(f"; and {len(dropped) - 8} more.")


@pytest.mark.parametrize("part", ["llm", "vision_tower", "mm_projector"])
@pytest.mark.parametrize("kept", [0, 5, 100, -100])
def test_truncated_weights(folder, part, kept):
    file = folder / part / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    assert f"{file} cannot be read (" in sentence(vilau.load, folder)


@pytest.mark.parametrize("part", ["llm", "vision_tower", "mm_projector"])
def test_a_part_is_missing(folder, part):
    shutil.rmtree(folder / part)
    assert f"{folder / part} holds no config.json, which every part" in sentence(vilau.load, folder)


def test_weights_are_missing(folder):
    (folder / "llm" / "model.safetensors").unlink()
    assert "llm/model.safetensors is missing; make the run again" in sentence(vilau.load, folder)


# ---------------------------------------------------------------- pickles


def pickled(folder, part, file):
    state = load_file(folder / part / "model.safetensors")
    (folder / part / "model.safetensors").unlink()
    torch.save({name: tensor.clone() for name, tensor in state.items()}, folder / part / file)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pth", "weights.pt"])
def test_pickles_are_refused_unless_allowed(model, folder, file):
    for part in ("llm", "vision_tower", "mm_projector"):
        pickled(folder, part, file)
        torch.save({"lr": 1}, folder / part / "training_args.bin")  # a trainer's, no weights
    for loader in LOADERS:
        text = sentence(loader, folder)
        assert f"/{file} is a pickle, a format that can run any program" in text
        assert "allow_pickle=True (--allow-pickle)" in text
    assert same_state(model, vilau.load(folder, allow_pickle=True))
    assert same_state(model.tokenizer, vilau.load_tower(folder, allow_pickle=True))


class Bomb:
    """Runs a function of its choice when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_an_allowed_pickle_runs_nothing(folder, tmp_path):
    (folder / "mm_projector" / "model.safetensors").unlink()
    torch.save(
        {"layers.0.bias": Bomb(str(tmp_path / "ran"))}, folder / "mm_projector" / "model.bin"
    )
    text = sentence(vilau.load, folder, allow_pickle=True)
    assert "model.bin cannot be read as tensors alone" in text
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [{"layers.0.bias": [1.0]}, [1, 2]])
def test_a_pickle_that_holds_no_tensors(folder, content):
    (folder / "mm_projector" / "model.safetensors").unlink()
    torch.save(content, folder / "mm_projector" / "model.bin")
    text = sentence(vilau.load, folder, allow_pickle=True)
    assert "that is not a mapping from names to tensors" in text


def test_pickles_of_our_own_layout(model, tmp_path):
    model.save(tmp_path)
    pickled(tmp_path, "", "model.bin")
    for loader in LOADERS:
        assert "model.bin is a pickle" in sentence(loader, tmp_path)
    assert same_state(model, vilau.load(tmp_path, allow_pickle=True))
    assert same_state(model.tokenizer, vilau.load_tower(tmp_path, allow_pickle=True))


# ---------------------------------------------------------------- shards


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "is not a readable index of shards"),
        ('{"weight_map": ["a"]}', "is not a readable index of shards"),
        ('{"weight_map": {"a": "../x.safetensors"}}', "'../x.safetensors', but shards are"),
        ('{"weight_map": {"a": "model.bin"}}', "'model.bin', but shards are .safetensors files"),
        ('{"weight_map": {"a": "x.safetensors"}}', "x.safetensors, which model.safetensors.index.json names"),
        ('{"weight_map": {"a": "y.safetensors"}}', "names 1 tensors that its files do not hold, the first is a"),
    ],
)  # fmt: skip
def test_a_broken_index(folder, index, message):
    (folder / "llm" / "model.safetensors").rename(folder / "llm" / "y.safetensors")
    (folder / "llm" / "model.safetensors.index.json").write_text(index)
    assert message in sentence(vilau.load, folder)
