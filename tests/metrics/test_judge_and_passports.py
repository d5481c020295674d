import json

import pytest
import torch

from vilau.errors import CheckpointError, DataError
from vilau.metrics.assets import WORLD_FEATURES, WORLD_VERIFIER
from vilau.metrics.detector_card import changes, drawn_images, reading_accuracy, write_card
from vilau.metrics.judge import SceneExact, SceneJudge, judge_scene
from vilau.metrics.passport import (
    SetFingerprint,
    passport_from_dict,
    text_hash,
    unlike_fields,
    weights_hash,
)
from vilau.types import Passport
from vilau.world.scene import Scene, Thing


@pytest.fixture(scope="module")
def drawn() -> tuple[torch.Tensor, list[str]]:
    return drawn_images(200, start=50_000)


@pytest.fixture(scope="module")
def judge() -> SceneJudge:
    return SceneJudge()


@pytest.mark.parametrize(
    ("change", "least"), [("clean", 0.97), ("blur x3", 0.95), ("noise 8", 0.95)]
)
def test_the_shipped_judge_reads_scenes(judge, drawn, change: str, least: float) -> None:
    images, scenes = drawn
    accuracy = reading_accuracy(judge.detector, changes()[change](images), scenes)
    assert accuracy["scene_exact"] >= least
    assert accuracy["full_exact"] >= least


def test_parsed_scenes_are_scenes_of_the_world(judge, drawn) -> None:
    images, scenes = drawn
    truth = Scene.from_json(scenes[0])
    (read,) = judge.parse(images[:1])
    assert read.background == truth.background
    assert {(one.shape, one.color, one.size, one.texture) for one in read.things} == {
        (one.shape, one.color, one.size, one.texture) for one in truth.things
    }


def test_scene_exact_counts_pictures(drawn) -> None:
    images, scenes = drawn
    metric = SceneExact()
    assert metric.compute() == {}
    metric.update(images[:40], scenes[:40])
    assert metric.compute()["scene_exact"] >= 0.95
    metric.update(torch.zeros_like(images[:40]), scenes[:40])
    assert metric.compute()["scene_exact"] <= 0.5


def things(*looks: tuple[str, str]) -> Scene:
    return Scene(
        things=tuple(
            Thing(shape, color, "small", "solid", 10.0 + 20 * index, 20.0, 4.0)
            for index, (color, shape) in enumerate(looks)
        ),
        background="black",
        image_size=64,
    )


def test_judgement_of_a_scene() -> None:
    star = {"kind": "has", "a": {"color": "red", "shape": "star"}}
    no_circle = {"kind": "count", "a": {"shape": "circle"}, "op": "==", "value": 0}
    left = {
        "kind": "relation",
        "a": {"color": "red", "shape": "star"},
        "b": {"color": "blue", "shape": "ring"},
        "word": "left of",
    }
    asked = json.dumps([star, no_circle])
    right = judge_scene(things(("red", "star")), asked)
    assert (right.exact, right.soft, right.named_things) == (True, 1.0, 1.0)
    empty = judge_scene(things(), asked)
    assert (empty.exact, empty.soft, empty.named_things) == (False, 0.5, 0.0)
    swapped = judge_scene(things(("blue", "ring"), ("red", "star")), json.dumps([left]))
    assert (swapped.exact, swapped.named_things) == (False, 1.0)
    assert judge_scene(things(("red", "star"), ("blue", "ring")), json.dumps([left])).exact
    assert judge_scene(things(), json.dumps([no_circle])).named_things is None
    # A thing asked for twice counts once.
    assert judge_scene(things(("blue", "ring")), json.dumps([star, left])).named_things == 0.5


def test_what_cannot_be_judged_is_refused() -> None:
    part = [{"kind": "part", "a": {"shape": "star"}, "b": {"kind": "dot", "color": "red"}}]
    with pytest.raises(DataError, match="asks for a part"):
        judge_scene(things(), json.dumps(part))
    with pytest.raises(DataError, match="without requirements"):
        judge_scene(things(), "[]")


def test_a_detectors_card_is_measured(tmp_path) -> None:
    for file in WORLD_FEATURES.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "card.md").unlink(missing_ok=True)
    write_card(tmp_path, "features", num_images=40, note="Made by hand.")
    card = (tmp_path / "card.md").read_text()
    assert weights_hash(tmp_path) in card
    assert "Made by hand." in card
    assert "| clean | 0.9" in card or "| clean | 1.0" in card
    assert "| real, 100 against 100 others |" in card


@pytest.mark.parametrize("folder", [WORLD_VERIFIER, WORLD_FEATURES])
def test_shipped_networks_are_small_and_documented(folder) -> None:
    assert (folder / "model.safetensors").stat().st_size < 2e6
    assert weights_hash(folder) in (folder / "card.md").read_text()


def test_weights_hash_sees_values_names_and_files(tmp_path) -> None:
    state = {"a": torch.arange(4.0), "b": torch.ones(2)}
    digest = weights_hash(state)
    assert len(digest) == 12
    assert digest == weights_hash({"b": torch.ones(2), "a": torch.arange(4.0)})
    assert digest != weights_hash({"a": torch.arange(4.0), "c": torch.ones(2)})
    assert digest != weights_hash({"a": torch.arange(4.0), "b": torch.zeros(2)})
    assert weights_hash({"b": torch.ones((), dtype=torch.bfloat16)})
    with pytest.raises(CheckpointError, match="holds no weights"):
        weights_hash(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"1")
    first = weights_hash(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert weights_hash(tmp_path) != first
    assert weights_hash(tmp_path / "model.safetensors") == first


def test_fingerprint_ignores_order_and_batches() -> None:
    images = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    one, other = SetFingerprint(), SetFingerprint()
    one.update(images)
    for index in (4, 2, 0, 1, 3):
        other.update(images[index : index + 1])
    assert one.compute() == other.compute()
    assert one.compute()[1] == 5
    other.update(images[:1])
    assert one.compute() != other.compute()
    texts = SetFingerprint()
    texts.update(texts=["a", "b"])
    assert texts.compute()[1] == 2
    both, exchanged = SetFingerprint(), SetFingerprint()
    both.update(images[:2], ["a", "b"])
    exchanged.update(images[:2], ["b", "a"])
    assert both.compute()[0] != exchanged.compute()[0]


def test_passports_are_compared_field_by_field() -> None:
    first = Passport("FID", features="world", num_samples=10)
    assert unlike_fields(first, first) == []
    assert unlike_fields(first, Passport("FID", features="inception", num_samples=20)) == [
        "features",
        "num_samples",
    ]
    assert passport_from_dict(
        {"metric": "FID", "features": "world", "num_samples": 10, "x": 1}
    ) == (first)
    assert text_hash(["ab", "c"]) != text_hash(["a", "bc"])
