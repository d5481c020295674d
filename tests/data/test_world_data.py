from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vilau.data.media.images import open_rgb
from vilau.data.world_data import WorldSpec, class_indices, class_set, world_set
from vilau.errors import ConfigError, DataError
from vilau.world.language import CLASSES
from vilau.world.render import render
from vilau.world.scene import Scene, held_out


def scenes(spec: WorldSpec, split: str = "train", image_size: int = 64) -> list[Scene]:
    shards = world_set(spec, split, image_size=image_size)  # type: ignore[arg-type]
    return [Scene.from_json(record.scene) for record in shards.read(range(len(shards)))]


def test_stored_pixels_are_the_rendered_scene(world: WorldSpec) -> None:
    shards = world_set(world, "val", image_size=64)
    assert len(shards) == 40
    for record in shards.read([0, 7, 39]):
        drawn = render(Scene.from_json(record.scene))
        assert (np.asarray(open_rgb(record.image)) == drawn).all()
        assert record.texts[0]


def test_equal_specifications_share_a_folder_and_others_do_not(world: WorldSpec) -> None:
    train = world_set(world, "train", image_size=64)
    assert world_set(replace(world, num_val=5), "train", image_size=64).folder == train.folder
    others = [
        world_set(replace(world, num_train=10, seed=1), "train", image_size=64),
        world_set(replace(world, num_train=10), "train", image_size=64),
        world_set(replace(world, num_train=10), "train", image_size=32),
        world_set(replace(world, num_train=10, level="easy"), "train", image_size=64),
        world_set(world, "val", image_size=64),
    ]
    assert len({train.folder, *(other.folder for other in others)}) == 6


def test_two_caches_get_the_same_bytes(
    world: WorldSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests = []
    for name in "ab":
        monkeypatch.setenv("VILAU_CACHE", str(tmp_path / name))
        manifests.append(world_set(world, "test", image_size=32).manifest)
    assert manifests[0] == manifests[1]


def test_splits_hold_different_scenes_and_comp_only_held_out_ones(world: WorldSpec) -> None:
    train, test, comp = (scenes(world, split) for split in ("train", "test", "comp"))
    assert not {scene.to_json() for scene in train} & {scene.to_json() for scene in test}
    assert not any(map(held_out, train + test))
    assert all(map(held_out, comp))


def test_the_share_of_lone_objects_is_exact_and_in_training_only(world: WorldSpec) -> None:
    spec = replace(world, one_object_share=0.75, num_objects=(2, 4))
    assert sum(len(scene.things) == 1 for scene in scenes(spec)) == 75
    assert min(len(scene.things) for scene in scenes(spec, "val")) == 2


def test_objects_and_sizes_can_be_narrowed(world: WorldSpec) -> None:
    spec = replace(world, num_train=20, num_objects=(2, 2), sizes=("large",))
    for scene in scenes(spec):
        assert [thing.size for thing in scene.things] == ["large", "large"]


def test_classes_are_balanced_and_held_out_ones_are_there(world: WorldSpec) -> None:
    shards = class_set(world, 2, image_size=32)
    assert len(shards) == 2 * len(CLASSES)
    for index, record in enumerate(shards.read(range(len(shards)))):
        (thing,) = Scene.from_json(record.scene).things
        assert (thing.color, thing.shape) == CLASSES[index % len(CLASSES)]
    easy = replace(world, level="easy")
    assert len(class_set(easy, 1, image_size=32)) == len(class_indices(easy)) == 30


def test_senseless_specifications(world: WorldSpec) -> None:
    with pytest.raises(ConfigError, match=r"one_object_share is 1.5; write a share"):
        world_set(replace(world, one_object_share=1.5), "train", image_size=64)
    with pytest.raises(ConfigError, match=r"data.world.num_val is 0; write at least 1"):
        world_set(replace(world, num_val=0), "train", image_size=64)
    for num_objects in ((5, 1), (0, 0)):
        message = rf"num_objects is \[{num_objects[0]}, {num_objects[1]}\]; write the smallest"
        with pytest.raises(ConfigError, match=message):
            world_set(replace(world, num_objects=num_objects), "train", image_size=64)
    with pytest.raises(
        ConfigError, match=r"sizes holds 'huge'; write some of small, medium, large"
    ):
        world_set(replace(world, sizes=("huge",)), "train", image_size=64)
    with pytest.raises(ConfigError, match=r"data.world.level is 'odd'; write one of easy, base"):
        world_set(replace(world, level="odd"), "train", image_size=64)
    with pytest.raises(
        ConfigError,
        match=r"held_out is 'none'; write one of exclude, only, any, or null\.",
    ):
        WorldSpec(held_out="none")
    with pytest.raises(ConfigError, match=r"data.zero_shot_per_class is 0; write at least 1"):
        class_set(world, 0, image_size=32)


def test_a_senseless_specification_is_refused_before_anything_is_drawn() -> None:
    for wrong in ({"level": "odd"}, {"sizes": ("huge",)}, {"num_objects": (5, 1)}, {"num_test": 0}):
        with pytest.raises(ConfigError, match=rf"^data\.world\.{next(iter(wrong))} "):
            WorldSpec(**wrong)  # type: ignore[arg-type]


def test_a_cache_in_a_forbidden_place(
    world: WorldSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VILAU_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot be written .*VILAU_CACHE"):
        world_set(world, "train", image_size=64)


def test_a_damaged_cached_set_is_named(
    world: WorldSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VILAU_CACHE", str(tmp_path))
    shards = world_set(world, "val", image_size=32)
    (shards.folder / shards.manifest.chunks[0].file).write_bytes(b"")
    with pytest.raises(DataError, match=r"holds 0 bytes where .*; delete .*world-val-.* and write"):
        world_set(world, "val", image_size=32)
