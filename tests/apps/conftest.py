"""Tiny models in folders, pictures in files, and the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.models import tiny
from vilau import cli


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a model whose pictures depend on the prompt, unlike a freshly made one's."""
    made = tiny.vila_u()
    with torch.no_grad():
        made.head.classifier.weight *= 20
        for part in (made.head.hidden_projection, made.language.model.embed_tokens):
            part.weight *= 3
    folder = tmp_path_factory.mktemp("runs") / "study" / "variant" / "finetune" / "model"
    made.save(folder)
    return folder


@pytest.fixture(scope="session")
def tower_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tiny.tower_folder(tmp_path_factory.mktemp("towers") / "tower"))


@pytest.fixture(scope="session")
def other_tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tiny.tower_folder(tmp_path_factory.mktemp("towers") / "other", seed=1))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures of the models' size, so that preparing them changes nothing."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, pixels in zip("abc", tiny.images(3), strict=True):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{name}.png")
    return folder


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def vilau(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:  # fmt: skip
    """Run a command line in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call
