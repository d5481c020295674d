"""A model in the published form and layout, for the tests that open it."""

import shutil

import pytest

import vilau
from tests.models import tiny
from vilau.models.sequence.config import PromptConfig


@pytest.fixture(scope="module")
def model():
    return tiny.vila_u(seed=4, prompt=PromptConfig(form="published"))


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "checkpoint"
    vilau.export(model, folder)
    return folder


@pytest.fixture
def folder(exported, tmp_path):
    """A published checkpoint to damage."""
    return shutil.copytree(exported, tmp_path / "checkpoint")
