"""Every notebook runs top to bottom, in one namespace and without Jupyter, and is stored without outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
import torch

mpl.use("Agg")

from vilau.models.sequence.config import PromptConfig  # noqa: E402 - the back-end must be chosen first
from vilau.models.sizes import LanguageConfig, SiglipSizes  # noqa: E402
from vilau.models.vila_u.config import (  # noqa: E402
    DecoderConfig,
    HeadConfig,
    QuantizerConfig,
    TowerConfig,
)
from vilau.models.vila_u.model import VilaU  # noqa: E402
from vilau.models.vila_u.tower import VisionTower  # noqa: E402

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
QUICK = {
    "01_inspect_codes.ipynb": {
        "QUICK_STEPS = 240": "QUICK_STEPS = 2",
        "NUM_IMAGES = 256": "NUM_IMAGES = 72",
    },
    "02_generation_and_guidance.ipynb": {
        "TOWER_STEPS = 150": "TOWER_STEPS = 2",
        "MODEL_STEPS = 400": "MODEL_STEPS = 2",
    },
}
"""What is made smaller for a test; each must be found in its notebook."""

pytestmark = pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if cell["cell_type"] == kind]


def run(path: Path) -> dict[str, Any]:
    """Run the code cells of a notebook and return the names they leave behind."""
    names: dict[str, Any] = {"__name__": "__main__"}
    source = ["".join(cell["source"]) for cell in cells(path, "code")]
    for old, new in QUICK[path.name].items():
        assert sum(old in text for text in source) == 1, f"{path.name} holds no `{old}`"
        source = [text.replace(old, new) for text in source]
    for number, text in enumerate(source):
        exec(compile(text, f"{path.name}, code cell {number}", "exec"), names)
    return names


@pytest.fixture
def tower_folder(tmp_path: Path) -> Path:
    random_tower().save(tmp_path / "tower")
    return tmp_path / "tower"


def random_tower() -> VisionTower:
    torch.manual_seed(0)
    sizes = SiglipSizes(
        image_size=32, patch_size=8, hidden_size=32, num_layers=2, num_heads=2, mlp_size=48,
        text_layers=1, text_heads=2, text_mlp_size=48, text_length=16, vocab_size=666,
        tokenizer="world-tokenizer",
    )  # fmt: skip
    decoder = DecoderConfig(
        channels=8, multipliers=(1, 1), num_res_blocks=0, attention_grids=(), z_channels=8, norm_groups=4,
        output_patch=4,
    )  # fmt: skip
    quantizer = QuantizerConfig(depth=3, codebook_size=32)
    return VisionTower(TowerConfig(dict(vars(sizes)), quantizer, decoder))


def test_the_notebooks_are_found() -> None:
    assert [path.name for path in NOTEBOOKS] == sorted(QUICK)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_stored_without_outputs(path: Path) -> None:
    for cell in cells(path, "code"):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
    assert cells(path, "markdown")


def test_inspect_codes_on_a_saved_tower(
    tower_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VILAU_TOWER", str(tower_folder))
    names = run(NOTEBOOKS[0])
    assert names["codes"].shape == (72, 16, 3)
    assert names["by_depth"].shape == (3, 6, 3, 32, 32)
    assert 0 <= float(names["accuracy"]) <= 1
    # One more step on reconstruction alone has moved the encoder a little.
    assert 0.5 < min(names["cosines"]) < 1
    said = capsys.readouterr().out
    assert f"Tower {tower_folder}" in said
    assert "depth 3:" in said
    assert "shown:" in said


def test_inspect_codes_makes_a_tower_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VILAU_TOWER", raising=False)
    names = run(NOTEBOOKS[0])
    assert (
        "No finished tower found: making a small one from world-siglip, 2 steps."
        in capsys.readouterr().out
    )
    assert names["codes"].shape[2] == 4
    # The shipped SigLIP is aligned, and two steps of codebook do not undo that altogether.
    assert float(names["accuracy"]) > 3 / 64


def test_inspect_codes_takes_the_aligned_tower_of_a_run(
    tower_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VILAU_TOWER", raising=False)
    for variant in ("recon_and_contrastive", "recon_only"):
        place = tmp_path / "runs" / "ablate_contrastive" / variant / "tower"
        place.mkdir(parents=True)
        (place / "model").symlink_to(tower_folder)
    monkeypatch.setenv("VILAU_OTHER_TOWER", str(tower_folder))
    names = run(NOTEBOOKS[0])
    assert bool((names["same"] == 1).all())
    assert names["drift"]["this tower"] == names["drift"]["the other"]
    assert "recon_and_contrastive/tower/model" in capsys.readouterr().out


def test_generation_on_a_saved_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    language = LanguageConfig(hidden_size=32, num_layers=2, num_heads=2, mlp_size=48)
    head, prompt = HeadConfig(32, 1, 2, 0.0), PromptConfig(system="", null="learned")
    VilaU.start(random_tower(), language, head, prompt).save(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VILAU_MODEL", str(tmp_path / "model"))
    names = run(NOTEBOOKS[1])
    said = capsys.readouterr().out
    assert f"Model {tmp_path / 'model'}" in said
    assert "it is the same picture: True" in said
    assert names["entropy"].shape == (16, 3)
    assert 0 <= float(names["entropy"].min()) <= float(names["entropy"].max()) <= 5.001  # 32 codes
    assert names["weights"].shape[0] == 16
    # What is not looked at of the words goes to the other tokens and to the picture itself.
    assert torch.all(names["weights"].sum(dim=1) <= 1.001)
    assert {token.strip("Ġ▁ ") for token in names["tokens"]} >= {"blue", "circle", "on", "grey"}
    assert len(names["verdicts"]) == 4 * 5
    assert "background grey; it sees" in said


def test_generation_trains_a_model_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VILAU_MODEL", raising=False)
    names = run(NOTEBOOKS[1])
    said = capsys.readouterr().out
    assert "No drawing model found: training a small one, 2 + 2 steps." in said
    assert "64 positions of residual depth 2, 128 codes, 64 pixels" in said
    assert [len(row) for row in names["rows"]] == [6] * 4


@pytest.mark.parametrize("seed", ["", "seed0"], ids=["one seed", "several"])
def test_generation_takes_the_drawing_model_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VILAU_MODEL", raising=False)
    for stage in ("drawing_model", "finetune"):
        place = tmp_path / "runs" / "study" / "variant" / seed / stage / "model"
        place.mkdir(parents=True)
        (place / "config.json").write_text("{}")
    source = ["".join(cell["source"]) for cell in cells(NOTEBOOKS[1], "code")]
    names: dict[str, Any] = {}
    exec(source[0], names)
    exec(source[1].partition("\n\n\nfolder = ")[0], names)
    assert names["find_model"]().parent.name == "drawing_model"
