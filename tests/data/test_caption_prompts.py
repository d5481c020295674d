from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vilau.data.caption_prompts import CaptionPrompts, told
from vilau.data.world_data import WorldSpec
from vilau.errors import ConfigError
from vilau.types import PromptBatch
from vilau.world.judge import requirements_from_json, satisfied
from vilau.world.render import render
from vilau.world.scene import Scene
from vilau.world.things import Thing


def batches(**options: object) -> list[PromptBatch]:
    data = CaptionPrompts(**{"num_prompts": 21, "num_references": 30, "global_batch_size": 8} | options)  # fmt: skip
    data.prepare_data()
    data.setup("test")
    return list(data.test_dataloader())


def test_prompts_tell_their_originals_and_references_are_others(world: WorldSpec) -> None:
    found = batches(world=world)
    assert [batch.first_index for batch in found] == [0, 7, 14]
    originals = torch.cat([batch.originals for batch in found])
    references = torch.cat([batch.references for batch in found])
    assert (len(originals), len(references)) == (21, 30)
    pixels = {image.numpy().tobytes() for image in references}
    assert len(pixels) == 30
    for batch in found:
        for text, asked, scene_text, image in zip(
            batch.prompts, batch.requirements, batch.scenes, batch.originals, strict=True
        ):
            scene = Scene.from_json(scene_text)
            assert np.array_equal(image.permute(1, 2, 0).numpy(), render(scene))
            assert image.numpy().tobytes() not in pixels
            assert satisfied(scene, requirements_from_json(asked))
            assert all(f"{thing.color} {thing.shape}" in text for thing in scene.things)
            assert scene.background in text


def test_batches_of_another_size_hold_the_same_prompts(world: WorldSpec) -> None:
    few, many = (batches(world=world, global_batch_size=size) for size in (5, 21))
    assert [t for b in few for t in b.prompts] == [t for b in many for t in b.prompts]


def thing(color: str, shape: str, size: str = "large", texture: str = "solid") -> Thing:
    return Thing(shape, color, size, texture, 20.0, 20.0, 8.0)


def test_what_is_told_is_asked_for_and_nothing_else() -> None:
    star, ring = thing("red", "star"), thing("blue", "ring", texture="dotted")
    scene = Scene((star, star, ring), "grey", 64)
    asked = told(scene)
    assert satisfied(scene, asked)
    for things, background in (
        (scene.things[:2], "grey"),
        ((*scene.things, scene.things[0]), "grey"),
        ((*scene.things[:2], thing("blue", "ring")), "grey"),
        ((*scene.things[:2], thing("green", "ring", texture="dotted")), "grey"),
        ((thing("red", "star", "small"), *scene.things[1:]), "grey"),
        (scene.things, "black"),
    ):
        assert not satisfied(replace(scene, things=things, background=background), asked)
    # Solid is never said: a dotted star is a star, and both kinds count where only one is told apart.
    spotted = replace(scene, things=(thing("red", "star", texture="dotted"), *scene.things[1:]))
    assert satisfied(spotted, asked)
    both = told(spotted)
    assert satisfied(spotted, both)
    assert not satisfied(scene, both)


def test_other_pairs_have_captions_and_no_scenes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(6):
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        rows.append({"image": f"{number}.png", "text": f"caption {number}"})
    table = tmp_path / "pairs.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = batches(path=str(table), image_size=32, num_prompts=4, num_references=None)
    told = {text: image for b in found for text, image in zip(b.prompts, b.originals, strict=True)}
    assert len(told) == 4
    for text, image in told.items():
        with Image.open(tmp_path / f"{text.split()[1]}.png") as picture:
            assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(picture))
    assert all(batch.scenes == [] and set(batch.requirements) == {""} for batch in found)
    assert sum(len(batch.references) for batch in found) == 6
    with pytest.raises(
        ConfigError, match="has 6 images, but data.num_prompts and data.num_referen"
    ):
        batches(path=str(table), image_size=32, num_prompts=4, num_references=3)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"split": "train"}, "data.split is 'train'; write test or comp"),
        ({"num_prompts": 0}, "data.num_prompts is 0; write at least 1"),
        ({"num_references": 0}, "data.num_references is 0; write at least 1"),
        ({"num_prompts": 9000}, "data.world.num_test has .* ask for 9030; write fewer"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    world: WorldSpec, options: dict, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        batches(world=world, **options)
