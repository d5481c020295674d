"""A folder with the toy study, free to be edited, and a launcher shared by all tests."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from vilau.study.forge import Forge
from vilau.study.load import load_study
from vilau.study.plan import Options, Plan, make_plan

STUDIES = Path(__file__).parent / "studies"


class Workshop:
    """A copy of the toy study whose text a test can change."""

    def __init__(self, folder: Path) -> None:
        shutil.copytree(STUDIES, folder)
        self.folder = folder
        self.path = folder / "toy.yaml"

    def replace(self, old: str, new: str, file: str = "toy.yaml") -> "Workshop":
        text = (self.folder / file).read_text()
        assert old in text
        (self.folder / file).write_text(text.replace(old, new))
        return self

    def line_of(self, text: str, file: str = "toy.yaml") -> int:
        lines = (self.folder / file).read_text().splitlines()
        return next(i for i, line in enumerate(lines, 1) if text in line)

    def plan(self, **options: object) -> Plan:
        return make_plan(load_study(self.path), Options(**options))  # type: ignore[arg-type]


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "studies")


@pytest.fixture(scope="session")
def forge() -> Iterator[Forge]:
    forge = Forge(["tests.study.toys"])
    yield forge
    forge.close()
