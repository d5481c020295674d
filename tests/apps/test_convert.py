"""``vilau convert``, and how every verb finds its model."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import vilau as kit
from tests.apps.conftest import Command
from vilau.apps.common import model_folder as find_model
from vilau.errors import CheckpointError

PROMPT = "a red circle"


def test_there_and_back_is_the_same_model(
    vilau: Command, model_folder: Path, tmp_path: Path
) -> None:
    code, printed, _ = vilau("convert", model_folder.parent, "published", "--layout", "vila-u")
    assert code == 0
    folders = {path.name for path in (tmp_path / "published").iterdir() if path.is_dir()}
    assert folders >= {"llm", "vision_tower", "mm_projector"}
    assert "published/mm_projector/model.safetensors" in printed
    assert vilau("convert", "published", "back", "--layout", "vilau")[0] == 0

    original, back = kit.load(model_folder).state_dict(), kit.load("back").state_dict()
    assert all(torch.equal(back[name], tensor) for name, tensor in original.items())
    for folder, name in ((model_folder, "a"), ("published", "b"), ("back", "c")):
        assert vilau("generate", folder, PROMPT, "--out", name)[0] == 0
    picture = f"000-{PROMPT.replace(' ', '-')}.png"
    assert (tmp_path / "a" / picture).read_bytes() == (tmp_path / "b" / picture).read_bytes()
    assert (tmp_path / "a" / picture).read_bytes() == (tmp_path / "c" / picture).read_bytes()


def test_the_number_format_can_be_changed(vilau: Command, model_folder: Path) -> None:
    assert (
        vilau("convert", model_folder, "half", "--layout", "vilau", "--dtype", "bfloat16")[0] == 0
    )
    stored = load_file("half/model.safetensors")
    assert stored["projector.0.weight"].dtype == torch.bfloat16
    assert vilau("chat", "half", "--prompt", "what is it ?", "--max-new-tokens", 2)[0] == 0


def test_a_tower_alone_goes_there_and_back(vilau: Command, tower_folder: Path) -> None:
    code, printed, _ = vilau("convert", tower_folder, "published", "--layout", "vila-u")
    assert (code, "published/preprocessor_config.json" in printed) == (0, True)
    assert vilau("convert", "published", "back", "--layout", "vilau")[0] == 0
    original, back = kit.load_tower(tower_folder), kit.load_tower("back")
    assert original.config.quantizer == back.config.quantizer
    state = back.state_dict()
    assert all(torch.equal(state[name], t) for name, t in original.state_dict().items())
    assert torch.equal(original.text_features(["a"]), back.text_features(["a"]))
    assert vilau("convert", "back", "published", "--layout", "vila-u", "--force")[0] == 0


def test_a_target_that_cannot_be_written_is_told_without_caches(
    vilau: Command, tower_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    command = ("convert", tower_folder, "new/out", "--layout", "vilau")
    monkeypatch.setattr(Path, "rename", closed)
    code, _, error = vilau(*command)
    assert code == 2
    assert error == (
        "error: new/out cannot be written (Permission denied); choose a folder you may write to.\n"
    )
    Path("file").write_text("")
    code, _, error = vilau("convert", tower_folder, "file/out", "--layout", "vilau")
    assert (code, "since file is no folder; write another DST." in error) == (2, True)


def test_targets_are_not_replaced_unasked(vilau: Command, model_folder: Path) -> None:
    convert = ("convert", model_folder, "out", "--layout", "vilau")
    Path("out").mkdir()
    assert vilau(*convert)[0] == 0  # an empty folder is no target to lose
    code, _, error = vilau(*convert)
    assert (code, "out exists already; write another DST, or --force" in error) == (2, True)
    Path("out/old.txt").write_text("of the model before")
    assert vilau(*convert, "--force")[0] == 0
    assert not Path("out/old.txt").exists()
    assert not list(Path.cwd().glob(".*"))

    Path("holiday").mkdir()
    Path("holiday/letter.txt").write_text("dear")
    code, _, error = vilau("convert", model_folder, "holiday", "--layout", "vilau", "--force")
    assert (code, "holiday holds no model, so it is not replaced" in error) == (2, True)
    code, _, error = vilau("convert", "out", "out", "--layout", "vila-u", "--force")
    assert (code, "out holds the model to convert" in error) == (2, True)
    code, _, error = vilau("convert", model_folder, "holiday/letter.txt", "--layout", "vilau")
    assert (code, "holiday/letter.txt is a file; write the name of a folder" in error) == (2, True)
    assert Path("holiday/letter.txt").read_text() == "dear"


@pytest.mark.parametrize("verb", ["chat", "generate", "encode", "classify", "reconstruct"])
def test_folders_without_the_right_model_are_told_in_a_sentence(
    vilau: Command, verb: str, tmp_path: Path, tower_folder: Path, photos: Path
) -> None:
    rest = {
        "chat": ["--prompt", "x"], "generate": ["x"], "encode": [photos, "--out", "c.npz"],
        "classify": [photos, "--classes", "a,b"], "reconstruct": [photos],
    }[verb]  # fmt: skip
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/config.json").write_text("{")
    (tmp_path / "words.txt").write_text("")
    for folder, says in [
        ("gone", "gone does not exist; give the folder"),
        ("words.txt", "words.txt is a file; give the folder"),
        ("empty", "empty holds no model (no config.json)"),
        ("other", "gpt2"),
        ("broken", "not readable JSON"),
    ]:
        code, _, error = vilau(verb, folder, *rest)
        assert (code, error.count("\n")) == (2, 1), error
        assert says in error
    if verb in ("chat", "generate"):
        code, _, error = vilau(verb, tower_folder, *rest)
        assert (code, "describes a vila_u.tower" in error) == (2, True)


def test_models_are_found_in_run_folders(model_folder: Path) -> None:
    assert find_model(str(model_folder)) == model_folder
    assert find_model(str(model_folder.parent)) == model_folder
    says = r"is the folder of a study, not of a run; give one of: .*finetune\."
    for above in (model_folder.parents[1], model_folder.parents[2]):
        with pytest.raises(CheckpointError, match=says):
            find_model(str(above))
