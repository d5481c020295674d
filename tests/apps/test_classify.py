"""``vilau classify``: the tower's own features, averaged over templates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from tests.apps.conftest import Command
from tests.models import tiny
from vilau import load_tower
from vilau.layers.pixels import to_float

CLASSES = ["red circle", "blue square", "green star"]


@torch.inference_mode()
def expected(folder: Path, templates: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and probabilities ``(3 images, 3 classes)``."""
    tower = load_tower(folder)
    vectors = [
        F.normalize(tower.text_features([t.replace("{}", c) for t in templates]).mean(0), dim=0)
        for c in CLASSES
    ]
    cosines = tower.image_features(to_float(tiny.images(3))) @ torch.stack(vectors).T
    return cosines, (cosines * tower.siglip.logit_scale.exp()).softmax(-1)


def test_numbers_are_the_towers(
    vilau: Command, tower_folder: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES) + "\n\n")
    (tmp_path / "templates.txt").write_text("a {} on the grass\ntwo {}s\n")
    ask = ("classify", tower_folder, photos, "--classes", "classes.txt", "--json")
    for more, templates in [
        ((), ["{}"]),
        (("--templates", "templates.txt"), ["a {} on the grass", "two {}s"]),
    ]:
        code, printed, _ = vilau(*ask, *more, "--top", 3)
        assert code == 0
        found = json.loads(printed)
        assert [Path(entry["image"]).name for entry in found] == ["a.png", "b.png", "c.png"]
        cosines, shares = expected(tower_folder, templates)
        for row, entry in enumerate(found):
            probabilities = [c["probability"] for c in entry["classes"]]
            assert probabilities == sorted(probabilities, reverse=True)
            assert sum(probabilities) == pytest.approx(1)
            for c in entry["classes"]:
                place = CLASSES.index(c["class"])
                assert c["probability"] == pytest.approx(shares[row, place].item(), abs=1e-5)
                assert c["cosine"] == pytest.approx(cosines[row, place].item(), abs=1e-5)


def test_the_table_shows_the_likeliest(vilau: Command, tower_folder: Path, photos: Path) -> None:
    code, printed, _ = vilau(
        "classify", tower_folder, photos / "a.png", "--classes", ",".join(CLASSES), "--top", 2
    )
    assert code == 0
    first, *rows = printed.splitlines()
    assert first == str(photos / "a.png")
    assert len(rows) == 2
    _, shares = expected(tower_folder, ["{}"])
    best = int(shares[0].argmax())
    assert rows[0].split("  ")[1].strip() == CLASSES[best]
    assert f"{shares[0, best].item():.2%}" in rows[0]
    assert vilau("classify", tower_folder, photos, "--classes", "a,b", "--templates", "photos")[0] == 0  # fmt: skip


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        ("a red circle", "--classes holds 1 class, which every image would be; write two or more"),
        (",", "--classes holds no class; write two or more"),
        ("a,\udcff", "--classes holds the byte 0xff, which is no UTF-8; write it in UTF-8"),
        ("a,b,a", "--classes holds 'a' twice; write every class once"),
        ("gone.txt", "--classes names gone.txt, which does not exist"),
        ("empty.txt", "empty.txt is empty; write one class per line"),
        ("twice.txt", "--classes holds 'dog' twice"),
        ("binary.txt", "binary.txt is no UTF-8 text"),
    ],
)
def test_class_lists_that_say_nothing_are_refused(
    vilau: Command, tower_folder: Path, photos: Path, classes: str, says: str
) -> None:
    Path("empty.txt").write_text("\n \n")
    Path("twice.txt").write_text("dog\ncat\ndog\n")
    Path("binary.txt").write_bytes(b"\xff\xfe\x00\xd8")
    code, printed, error = vilau("classify", tower_folder, photos, "--classes", classes)
    assert (code, printed, error.count("\n")) == (2, "", 1)
    assert says in error


def test_templates_need_one_place(vilau: Command, tower_folder: Path, photos: Path) -> None:
    Path("t.txt").write_text("a {}\na picture\n")
    ask = ("classify", tower_folder, photos, "--classes", "a,b", "--templates", "t.txt")
    code, _, error = vilau(*ask)
    assert code == 2
    assert "t.txt holds the template 'a picture'; write {} once in it" in error
