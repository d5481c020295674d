"""A device that is too small for the work: one sentence with the options that help."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from tests.apps.conftest import Command
from vilau.apps.memory import memory_told
from vilau.errors import ConfigError
from vilau.models.vila_u.tower import VisionTower

CUDA = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.1 GiB."
CPU = "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"


def test_a_verb_names_its_options(
    vilau: Command, tower_folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError(CUDA)

    monkeypatch.setattr(VisionTower, "encode", full)
    code, _, error = vilau("encode", tower_folder, photos, "--out", "codes.npz")
    assert code == 2
    assert error.splitlines()[-1] == (
        "error: this takes more memory than there is (CUDA out of memory); write a smaller --batch-size or "
        "--dtype bfloat16 or --device cpu."
    )


@pytest.mark.parametrize(
    ("error", "options", "advice"),
    [
        (CUDA, {"device": None, "dtype": "float16", "batch_size": 1}, "write --device cpu"),
        (CPU, {"device": None, "dtype": None}, "write --dtype bfloat16"),
        (CPU, {"dtype": "bfloat16"}, "take a machine with more"),
    ],
)
def test_only_what_helps_is_advised(error: str, options: dict[str, object], advice: str) -> None:
    args = argparse.Namespace(**options)
    with pytest.raises(ConfigError, match=rf"\); {advice}\.$"), memory_told(args):
        raise RuntimeError(error)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_told(argparse.Namespace()):
        raise RuntimeError("shapes do not fit")
