"""Captions as prompts to draw: each tells a real image, so that drawings can be held against it and its like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from vilau.data.media.images import ImageTransform
from vilau.data.module import StreamedDataModule
from vilau.data.pairs import load_images, stack_images
from vilau.data.preparing.prepare import user_set
from vilau.data.shards import ShardSet
from vilau.data.streaming import FixedLoader
from vilau.data.world_data import WORLD, WORLD_PATH, WorldSpec, world_set
from vilau.errors import ConfigError
from vilau.types import PromptBatch
from vilau.world.judge import Requirement, requirements_to_json
from vilau.world.language import dense_caption
from vilau.world.scene import Scene, stream_rng
from vilau.world.things import Thing

SPLITS = ("test", "comp")
SKILL = "dense caption"


@dataclass(frozen=True)
class CaptionPromptSet:
    """The first ``count`` captions of a set, with other real images of it spread over them for FID."""

    source: ShardSet
    count: int
    references: np.ndarray
    """Places of the real images in the set."""
    image_size: int
    seed: int

    def __len__(self) -> int:
        return self.count

    def __call__(self, epoch: int, indices: np.ndarray) -> PromptBatch:
        """Return the batch of the prompts at ``indices`` ``(B,)``, which are consecutive."""
        records, transform = self.source.read(indices), ImageTransform(self.image_size)
        first, last = (
            i * len(self.references) // self.count for i in (indices[0], indices[-1] + 1)
        )
        scenes = [Scene.from_json(record.scene) for record in records if record.scene]
        prompts, asked = [record.texts[0] for record in records], [""] * len(records)
        if scenes:
            rngs = [stream_rng(self.seed, "caption prompt", index) for index in indices.tolist()]
            prompts = [dense_caption(scene, rng) for scene, rng in zip(scenes, rngs, strict=True)]
            asked = [requirements_to_json(told(scene)) for scene in scenes]
        own, others = (
            stack_images(load_images(self.source, chosen, transform), image_size=self.image_size)
            for chosen in (indices, self.references[first:last])
        )
        return PromptBatch(
            prompts=prompts,
            requirements=asked,
            skills=[[SKILL] for _ in prompts],
            references=others,
            first_index=int(indices[0]),
            originals=own,
            scenes=[record.scene for record in records if record.scene],
        )


class CaptionPrompts(StreamedDataModule):
    """Captions of real images as prompts; ``test_dataloader`` gives ``PromptBatch``.

    Of drawn scenes a prompt is a caption that tells the whole scene, which is also the truth that a judge may
    hold a drawing against. FID's reference set are other images of the same set.

    Args:
        path: ``world``, or any form of pairs that ``ImageTextPairs`` takes.
        image_size: side of the images in pixels.
        global_batch_size: prompts per step over all devices.
        world: the world the model was trained in, where ``path`` is ``world``.
        split: ``test``, or ``comp``: scenes with combinations that training never showed.
        num_prompts: how many captions; the first of the set.
        num_references: how many real images behind them are the reference set; None: all images of the set,
            the prompts' own among them, as MJHQ-30K is measured.
        num_workers: loader processes per device.
        seed: how the drawn scenes are put into words.

    Raises:
        ConfigError: a setting makes no sense, or the set is too small for it.
        DataError: data are missing or broken.
    """

    def __init__(
        self,
        path: str = WORLD_PATH,
        image_size: int = 64,
        global_batch_size: int = 64,
        world: WorldSpec = WORLD,
        split: Literal["test", "comp"] = "test",
        num_prompts: int = 1000,
        num_references: int | None = 1000,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            image_size=image_size,
            global_batch_size=global_batch_size,
            num_workers=num_workers,
            seed=seed,
        )
        if split not in SPLITS:
            raise ConfigError(f"data.split is {split!r}; write test or comp.")
        for key, value in (("num_prompts", num_prompts), ("num_references", num_references)):
            if value is not None and value < 1:
                raise ConfigError(f"data.{key} is {value}; write at least 1.")
        self.path, self.world, self.split = path, world, split
        self.num_prompts, self.num_references = num_prompts, num_references
        if path == WORLD_PATH:
            self._check_size(world.num_test, "data.world.num_test")

    def setup(self, stage: str | None = None) -> None:
        """Open the set; of drawn scenes those that are not in the cache are drawn first."""
        if self.path == WORLD_PATH:
            source = world_set(self.world, self.split, image_size=self.image_size)
        else:
            source = user_set(self.path)
            self._check_size(len(source), f"data.path {self.path}")
        first = 0 if self.num_references is None else self.num_prompts
        last = len(source) if self.num_references is None else first + self.num_references
        self.prompt_set = CaptionPromptSet(
            source, self.num_prompts, np.arange(first, last), self.image_size, self.seed
        )

    def test_dataloader(self) -> FixedLoader:
        """Loader of ``PromptBatch``."""
        return self._fixed_loader(self.prompt_set, np.arange(self.num_prompts))

    def _check_size(self, size: int, name: str) -> None:
        needed = self.num_prompts + (self.num_references or 0)
        if needed > size:
            raise ConfigError(
                f"{name} has {size} images, but data.num_prompts and data.num_references ask for {needed}; "
                "write fewer, or give a larger set."
            )


def told(scene: Scene) -> list[Requirement]:
    """What a caption that tells the whole scene asks for, but for relations and parts.

    Of things that look alike in what is said of them (solid texture is not) exactly as many as there are, of all
    things together as many as there are, and the background.
    """
    alike = {tuple(_said(thing).items()): _said(thing) for thing in scene.things}
    return [
        *(
            Requirement("count", looks, op="==", value=_number(scene, looks))
            for looks in alike.values()
        ),
        Requirement("count", {}, op="==", value=len(scene.things)),
        Requirement("background", word=scene.background),
    ]


def _said(thing: Thing) -> dict[str, str]:
    looks = {"color": thing.color, "shape": thing.shape, "size": thing.size}
    return looks if thing.texture == "solid" else {**looks, "texture": thing.texture}


def _number(scene: Scene, looks: dict[str, str]) -> int:
    return sum(
        all(getattr(thing, name) == word for name, word in looks.items()) for thing in scene.things
    )
