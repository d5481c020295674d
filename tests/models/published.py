"""Published checkpoints to read: recorded ones where they are, and ones made from the tiny model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vilau.models.weight_files import read_tensors, write_tensors  # noqa: F401 - for the tests

SHARED = Path(__file__).parents[3] / "shared"
CHECKPOINT = SHARED / "oracles" / "vila-u-tiny"
EXPECTED = SHARED / "oracles" / "vila-u-tiny-expected.pt"
TOWERS = SHARED / "oracles" / "tower-tiny.pt"
needs_recordings = pytest.mark.skipif(
    not (CHECKPOINT.is_dir() and TOWERS.is_file()), reason=f"no recorded outputs at {CHECKPOINT}"
)


def copy(folder: Path) -> Path:
    """A copy of the recorded checkpoint to damage (the original is read-only)."""
    for file in CHECKPOINT.rglob("*"):
        if file.is_file():
            target = folder / file.relative_to(CHECKPOINT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    return folder


def with_tower(
    folder: Path, record: dict[str, Any], state: dict[str, Tensor] | None = None
) -> Path:
    """The recorded checkpoint with another recorded tower in it."""
    copy(folder)
    tower = folder / "vision_tower"
    (tower / "preprocessor_config.json").unlink()
    (tower / "config.json").write_text(record["config_json"])
    name = json.loads(record["config_json"])["rqvaesiglip"]["pretrained_model"]
    (folder / "siglip").rename(folder / name)
    (folder / name / "config.json").write_text(record["siglip_config_json"])
    tensors = state or record["state_dict"]
    save_file({k: t.clone() for k, t in tensors.items()}, tower / "model.safetensors")
    return folder


def edit(file: Path, change: Any) -> None:
    """Change the fields of a JSON file."""
    fields = json.loads(file.read_text())
    change(fields)
    file.write_text(json.dumps(fields))


def edit_weights(folder: Path, change: Any) -> None:
    """Change the tensors of a folder."""
    file = folder / "model.safetensors"
    state = {name: tensor.clone() for name, tensor in load_file(file).items()}
    change(state)
    save_file(state, file, metadata={"format": "pt"})


def same_state(one: nn.Module, other: nn.Module) -> bool:
    """Whether two modules hold the same tensors under the same names."""
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def no_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Refuse and collect every attempt to reach another machine."""
    attempts: list[Any] = []

    def refuse(*arguments: Any, **_: Any) -> None:
        attempts.append(arguments)
        raise OSError("no network in this test")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    return attempts
