from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.conftest import encoded, picture
from vilau.data.captions import CaptionSpec, PromptSpec
from vilau.data.image_text import ImageTextPairs
from vilau.data.preparing.prepare import Options, prepare
from vilau.data.sources.forms import find_source
from vilau.data.world_data import WorldSpec
from vilau.errors import ConfigError, DataError
from vilau.types import ImageTextBatch, LabelledImageBatch
from vilau.world.language import true_phrases
from vilau.world.render import render
from vilau.world.scene import Scene
from vilau.world.things import COLOR_NAMES, SHAPES


def module(**options: object) -> ImageTextPairs:
    data = ImageTextPairs(**{"global_batch_size": 16, "zero_shot_per_class": 1, **options})
    data.prepare_data()
    data.setup("fit")
    return data


def texts_of(data: ImageTextPairs) -> list[str]:
    return [text for batch in data.train_dataloader() for text in batch.texts]


def same(first: ImageTextBatch, second: ImageTextBatch) -> bool:
    return torch.equal(first.images, second.images) and first.texts == second.texts


def test_a_batch_of_the_world(world: WorldSpec) -> None:
    batch = next(iter(module(world=world).train_dataloader()))
    assert isinstance(batch, ImageTextBatch)
    assert batch.images.shape == (16, 3, 64, 64)
    assert batch.images.dtype == torch.uint8
    assert len(batch.texts) == len(batch.scenes) == 16
    for image, scene in zip(batch.images, batch.scenes, strict=True):
        assert (image.permute(1, 2, 0).numpy() == render(Scene.from_json(scene))).all()


def test_matches_are_the_truth(world: WorldSpec) -> None:
    batch = next(iter(module(world=world).train_dataloader()))
    assert batch.matches is not None
    assert batch.matches.dtype == torch.bool
    assert batch.matches.diagonal().all()
    for i, scene in enumerate(batch.scenes):
        true = true_phrases(Scene.from_json(scene))
        for j, text in enumerate(batch.texts):
            assert batch.matches[i, j] == (i == j or text in true)
    assert batch.truth is not None  # what other ranks' captions are judged by
    own = torch.eye(16, dtype=torch.bool)
    assert torch.equal(batch.truth(batch.texts) | own, batch.matches)
    off_diagonal = batch.matches & ~own
    assert 0 < off_diagonal.sum() < 200


def test_loading_is_deterministic_and_epochs_differ(world: WorldSpec) -> None:
    first, second = (iter(module(world=world).train_dataloader()) for _ in range(2))
    assert all(same(a, b) for a, b in islice(zip(first, second, strict=True), 3))
    other = next(iter(module(world=world, seed=1).train_dataloader()))
    loader = module(world=world).train_dataloader()
    epochs = [list(loader), list(loader)]
    assert not same(epochs[0][0], other)
    by_scene = [dict(zip(b.scenes, b.texts, strict=True)) for epoch in epochs for b in epoch]
    seen: dict[str, set[str]] = {}
    for batch in by_scene:
        for scene, text in batch.items():
            seen.setdefault(scene, set()).add(text)
    assert sum(len(texts) > 1 for texts in seen.values()) > 40  # a new caption each epoch


def test_the_curriculum_of_captions(world: WorldSpec) -> None:
    shapes = texts_of(module(world=world, captions=CaptionSpec(1.0, 0.0, 0.0, 0.0)))
    assert {text.split()[-1] for text in shapes} <= set(SHAPES)
    assert {len(text.split()) for text in shapes} == {2}
    colors = texts_of(module(world=world, captions=CaptionSpec(0.0, 1.0, 0.0, 0.0)))
    assert all(text.split()[1] in COLOR_NAMES and text.endswith("thing") for text in colors)
    dense = texts_of(module(world=world, captions=CaptionSpec(0.0, 0.0, 1.0, 0.0)))
    assert np.mean([len(text.split()) for text in dense]) > 12
    placed = texts_of(module(world=world, captions=CaptionSpec(0.0, 0.0, 0.0, placed_share=1.0)))
    # Not where all things stand on boundaries.
    assert np.mean([" to the " in text for text in placed]) > 0.75
    assert not any(" to the middle center" in text for text in dense)
    mixed = texts_of(
        module(world=replace(world, num_train=400), captions=CaptionSpec(0.5, 0.2, 0, 0))
    )
    bare = np.mean([len(text.split()) == 2 for text in mixed])
    colored = np.mean([text.endswith("thing") for text in mixed])
    assert bare == pytest.approx(0.5, abs=0.08)
    assert colored == pytest.approx(0.2, abs=0.06)


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        (CaptionSpec(shape_share=1.2), r"data.captions.shape_share is 1.2; write a share"),
        (CaptionSpec(0.8, 0.8), r"data.captions has shares that sum to 1.75; .* at most 1"),
    ],
)
def test_senseless_captions(captions: CaptionSpec, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ImageTextPairs(captions=captions)
    with pytest.raises(ConfigError, match=r"data.prompts.dense_share is -1"):
        PromptSpec(dense_share=-1).check()


def test_validation_of_the_world(world: WorldSpec) -> None:
    data = module(world=world, num_val_samples=30)
    pairs, classes = data.val_dataloader()
    batches = list(pairs)
    assert sum(len(batch.texts) for batch in batches) == 30
    assert all(same(a, b) for a, b in zip(batches, pairs, strict=True))
    labelled = list(classes)
    assert all(isinstance(batch, LabelledImageBatch) for batch in labelled)
    labels = torch.cat([batch.labels for batch in labelled])
    assert sorted(labels.tolist()) == list(range(64))
    first = labelled[0]
    assert len(first.class_texts) == 64
    assert first.class_texts[0][0] == "a red circle"
    assert first.held_out is not None
    assert first.held_out.sum() == 8
    assert first.images.shape[1:] == (3, 64, 64)
    assert len(module(world=world, zero_shot=None).val_dataloader()) == 1


# ------------------------------------------------------------------ a user's own data


def test_a_folder_of_photographs_is_prepared_once(photos: Path, own_cache: Path) -> None:
    data = module(path=str(photos), image_size=24, global_batch_size=8, validation_share=0.2)
    batch = next(iter(data.train_dataloader()))
    assert batch.images.shape == (8, 3, 24, 24)
    assert batch.matches is None
    assert batch.truth is None
    assert batch.scenes == []
    assert all(text.startswith("photo number") for text in batch.texts)
    (pairs,) = data.val_dataloader()
    held = {text for batch in pairs for text in batch.texts}
    assert len(held) == 4
    assert not held & set(texts_of(data))
    assert len(list(own_cache.glob("data-*"))) == 2  # the set and its lock
    module(path=str(photos), image_size=32, global_batch_size=8)
    assert len(list(own_cache.glob("data-*"))) == 2
    (photos / "p00.txt").write_text("photo number zero")
    module(path=str(photos), image_size=32, global_batch_size=8)
    assert len(list(own_cache.glob("data-*"))) == 4


def test_shards_are_opened_where_they_lie(photos: Path, tmp_path: Path, own_cache: Path) -> None:
    prepare(find_source(str(photos)), tmp_path / "shards", Options())
    data = module(path=str(tmp_path / "shards"), global_batch_size=8, image_size=16)
    assert next(iter(data.train_dataloader())).images.shape == (8, 3, 16, 16)
    assert not own_cache.exists()


def test_crops_and_flips_of_training_images(tmp_path: Path, own_cache: Path) -> None:
    ramp = np.repeat(np.arange(120, dtype=np.uint8)[None, :, None], 30, 0).repeat(3, 2)
    for number in range(8):
        (tmp_path / f"{number}.png").write_bytes(encoded(_image(ramp), "PNG"))
        (tmp_path / f"{number}.txt").write_text("a ramp")
    options = {"path": str(tmp_path), "image_size": 30, "global_batch_size": 7}

    def starts(**more: object) -> set[int]:
        data = module(**options | more)
        batches = [b for _ in range(3) for b in data.train_dataloader()]
        return {int(image[0, 0, 0]) for batch in batches for image in batch.images}

    assert starts(random_crop=False) == {45}
    assert len(starts()) > 1
    assert starts(random_crop=False, random_flip=True) == {45, 74}
    assert starts(random_crop=False, image_size=15, resize=30) == {53}
    assert len(starts(image_size=15, resize=30)) > 4
    assert starts(image_size=15, resize=30) == starts(image_size=15, resize=30)
    data = module(**options, random_flip=True, resize=60)
    (pairs,) = data.val_dataloader()
    assert [int(batch.images[0, 0, 0, 0]) for batch in pairs] == [45]  # the whole middle, as it is


def _image(array: np.ndarray) -> object:
    from PIL import Image

    return Image.fromarray(array)


def test_a_separate_validation_set_and_class_folders(
    photos: Path, tmp_path: Path, own_cache: Path
) -> None:
    for name in ("n01", "n02", "n03"):
        (tmp_path / "classes" / name).mkdir(parents=True)
        for number in range(3):
            file = tmp_path / "classes" / name / f"{number}.jpg"
            file.write_bytes(encoded(picture(number)))
    names = "n01 crane, a bird\nn02 crane, a machine\n"
    (tmp_path / "classes" / "classes.txt").write_text(names)
    data = module(
        path=str(photos),
        global_batch_size=16,
        validation=str(photos),
        zero_shot=str(tmp_path / "classes"),
    )
    assert len(texts_of(data)) == 16
    pairs, classes = data.val_dataloader()
    assert sum(len(batch.texts) for batch in pairs) == 20
    (batch,) = list(classes)
    assert sorted(batch.labels.tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [texts[0] for texts in batch.class_texts] == [
        "a photo of a crane.", "a photo of a crane.", "a photo of a n03.",
    ]  # fmt: skip
    assert batch.held_out is None


def test_senseless_settings(photos: Path, tmp_path: Path, own_cache: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.validation_share is 2; write a share"):
        module(path=str(photos), validation_share=2)
    with pytest.raises(ConfigError, match=r"data.num_val_samples is 0; write at least 1"):
        module(path=str(photos), num_val_samples=0)
    with pytest.raises(ConfigError, match=r"data.num_workers is -1; write a whole number from 0"):
        module(num_workers=-1)
    with pytest.raises(DataError, match=r"data.zero_shot names .*nowhere, which does not exist"):
        module(path=str(photos), zero_shot=str(tmp_path / "nowhere"))
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match=r"bare, which holds no class folders with images"):
        module(path=str(photos), zero_shot=str(tmp_path / "bare"))
    (tmp_path / "bare" / "a.jpg").write_bytes(encoded(picture()))
    (tmp_path / "bare" / "a.txt").write_text("alone")
    with pytest.raises(ConfigError, match=r"bare holds 1 sample, too few to hold one back"):
        module(path=str(tmp_path / "bare"))
