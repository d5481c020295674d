import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from vilau.errors import CheckpointError, DataError
from vilau.layers.detector import Detections, SceneDetector
from vilau.layers.scene_record import scene_agreement, scene_record

ATTRIBUTES = {
    "shape": ["circle", "square"],
    "color": ["red", "blue"],
    "size": ["small", "large"],
    "texture": ["solid", "striped"],
}


def make(**changes: object) -> SceneDetector:
    settings = {"attributes": ATTRIBUTES, "backgrounds": ["black", "sea"], "channels": (4, 6, 8)}
    return SceneDetector(**(settings | changes)).eval()


def thing(x: float, y: float, radius: float = 5.0, **looks: str) -> dict:
    start = {"shape": "circle", "color": "red", "size": "small", "texture": "solid"}
    return start | looks | {"x": x, "y": y, "radius": radius}


def scene(*things: dict, background: str = "sea", image_size: int = 64) -> dict:
    return {"image_size": image_size, "background": background, "things": list(things)}


def perfect(detector: SceneDetector, scenes: list[dict]) -> Detections:
    """Predictions that say exactly what the targets say."""
    targets = detector.targets_from_scenes(scenes)
    hot = torch.nn.functional.one_hot
    return Detections(
        objectness=targets.cells.float() * 20 - 10,
        attributes={
            name: hot(codes, len(ATTRIBUTES[name])).float() * 20
            for name, codes in targets.attributes.items()
        },
        geometry=targets.geometry,
        background=hot(targets.background, 2).float() * 20,
    )


def test_targets_read_back_are_the_scene() -> None:
    detector = make()
    truth = scene(
        thing(12.5, 8.25, 4.0),
        thing(40.0, 33.0, 10.0, shape="square", color="blue", size="large", texture="striped"),
        thing(63.0, 63.5, 4.5, color="blue"),
    )
    (read,) = detector._read(perfect(detector, [truth]), image_size=64, threshold=0.5)
    assert read["background"] == "sea"
    by_place = sorted(read["things"], key=lambda one: one["x"])
    for found, true in zip(by_place, truth["things"], strict=True):
        assert all(found[name] == true[name] for name in ATTRIBUTES)
        assert (found["x"], found["y"], found["radius"]) == pytest.approx(
            (true["x"], true["y"], true["radius"])
        )


def test_a_centre_on_an_edge_counts_in_both_cells_and_is_read_once() -> None:
    detector = make()
    truth = scene(thing(16.2, 20.0))
    targets = detector.targets_from_scenes([truth])
    assert targets.cells[0].nonzero().tolist() == [[2, 1], [2, 2]]
    (read,) = detector._read(perfect(detector, [truth]), image_size=64, threshold=0.5)
    assert len(read["things"]) == 1


@pytest.mark.parametrize("order", [1, -1])
def test_a_thing_keeps_its_own_cell_against_a_neighbour(order: int) -> None:
    detector = make()
    left, right = thing(13.0, 20.0), thing(24.5, 20.0, color="blue")  # cells 1 and 3, edge of 2
    own = thing(20.0, 20.0, color="blue")
    targets = detector.targets_from_scenes([scene(*[left, own, right][::order])])
    assert targets.attributes["color"][0, 2, 2] == 1
    assert targets.geometry[0, 2, 2, 0] == pytest.approx(0.5)


def test_scenes_of_another_size_are_scaled() -> None:
    detector = make()
    small = detector.targets_from_scenes([scene(thing(20.0, 30.0, 5.0))])
    large = detector.targets_from_scenes([scene(thing(40.0, 60.0, 10.0), image_size=128)])
    assert torch.equal(small.cells, large.cells)
    assert torch.allclose(small.geometry, large.geometry)
    (read,) = detector._read(
        perfect(detector, [scene(thing(20.0, 30.0, 5.0))]), image_size=128, threshold=0.5
    )
    assert read["things"][0]["x"] == pytest.approx(40.0)


def test_loss_is_lowest_for_the_truth_and_handles_empty_scenes() -> None:
    detector = make()
    scenes = [scene(thing(20.0, 30.0)), scene(background="black")]
    targets = detector.targets_from_scenes(scenes)
    right = detector.loss(perfect(detector, scenes), targets)
    wrong = detector.loss(perfect(detector, scenes[::-1]), targets)
    assert right < 0.05 < wrong
    empty = detector.targets_from_scenes([scene()])
    assert detector.loss(perfect(detector, [scene()]), empty).isfinite()


def test_features_are_pooled_and_independent_of_the_batch() -> None:
    detector = make()
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    features = detector.features(images)
    assert features.shape == (3, detector.num_features) == (3, 8)
    assert torch.allclose(features[:1], detector.features(images[:1]), atol=1e-6)
    assert detector.features(images[..., :32, :32]).shape == (3, 8)


def test_save_and_load(tmp_path) -> None:
    detector = make(trained_on="drawn-world v9")
    for norm in detector.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.normal_()
    detector.save(tmp_path)
    loaded = SceneDetector.load(tmp_path)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    assert torch.equal(loaded.features(images), detector.features(images))
    assert loaded.trained_on == "drawn-world v9"
    assert not loaded.training
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o044 == 0o044


def test_on_the_meta_device_only_the_config_travels(tmp_path) -> None:
    with torch.device("meta"):
        make().save(tmp_path)
        assert not (tmp_path / "model.safetensors").exists()
        assert SceneDetector.load(tmp_path).head.weight.is_meta


def test_errors_name_the_file(tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        SceneDetector.load(tmp_path)
    make().save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        SceneDetector.load(tmp_path)
    save_file({"head.weight": weights["head.weight"][:3]}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="does not fit the detector"):
        SceneDetector.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="does not fit the detector"):
        SceneDetector.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        SceneDetector.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"class": "Tower"}))
    with pytest.raises(CheckpointError, match="a Tower, not a SceneDetector"):
        SceneDetector.load(tmp_path)


def test_an_unknown_attribute_is_named() -> None:
    with pytest.raises(DataError, match="color 'pink', which this detector does not know"):
        make().targets_from_scenes([scene(thing(8.0, 8.0, color="pink"))])
    with pytest.raises(DataError, match="background 'moon'"):
        make().targets_from_scenes([scene(background="moon")])


def test_scene_record_reads_the_worlds_json() -> None:
    text = '{"things":[["circle","red","small","solid",8.0,9.5,4.0]],"on":"sea","px":64,"seed":1}'
    assert scene_record(text) == scene(thing(8.0, 9.5, 4.0))
    for broken in ("{", "[]", '{"things":[["circle"]],"on":"sea","px":64}', '{"on":"sea"}'):
        with pytest.raises(DataError, match="is not a scene of the drawn world"):
            scene_record(broken)


def test_agreement_tells_kinds_details_and_places_apart() -> None:
    truth = scene(thing(10, 10), thing(40, 40, color="blue"))
    assert set(scene_agreement(truth, truth).values()) == {1.0}
    moved = scene(thing(40, 40), thing(10, 10, color="blue"))
    swapped = scene_agreement(moved, truth)
    assert (swapped["scene_exact"], swapped["color"], swapped["shape"]) == (1.0, 0.0, 1.0)
    resized = scene_agreement(scene(thing(10, 10, size="large"), truth["things"][1]), truth)
    assert (resized["scene_exact"], resized["full_exact"], resized["size"]) == (1.0, 0.0, 0.5)
    missing = scene_agreement(scene(thing(10, 10)), truth)
    assert (missing["scene_exact"], missing["count"], missing["shape"]) == (0.0, 0.0, 0.5)
    dark = scene_agreement(scene(*truth["things"], background="black"), truth)
    assert (dark["scene_exact"], dark["full_exact"]) == (1.0, 0.0)
    assert scene_agreement(scene(), scene())["shape"] == 1.0
