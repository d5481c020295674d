"""Sets of the drawn world: made once from a specification, stored like any other data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vilau.data.cache import cache_folder, short_hash, written_once
from vilau.data.images import encode_png
from vilau.data.progress import progress
from vilau.data.shards import MANIFEST, Record, ShardSet, ShardWriter
from vilau.errors import ConfigError
from vilau.world.language import CLASSES, dense_caption
from vilau.world.render import render
from vilau.world.scene import WORLD_VERSION, Scene, scene_at, stream_rng

Split = Literal["train", "val", "test", "comp"]


@dataclass(frozen=True)
class WorldSpec:
    """Which drawn world, and how much of it.

    Args:
        level: difficulty: ``easy``, ``base``, ``skew`` or ``hard``.
        num_train: scenes of the training split; likewise ``num_val``, ``num_test`` (and ``comp``).
        num_val: see above.
        num_test: see above.
        num_objects: smallest and largest number of objects; None: as the level has it.
        sizes: the sizes objects may have; None: as the level has it.
        one_object_share: share of the training scenes that show a single object.
        held_out: what becomes of scenes with held-out combinations: ``exclude``, ``only``, ``any``;
            None: the split's own rule (``comp`` shows only them, the others none).
        seed: another seed is another world of the same kind.
    """

    level: str = "base"
    num_train: int = 20000
    num_val: int = 2000
    num_test: int = 2000
    num_objects: tuple[int, int] | None = None
    sizes: tuple[str, ...] | None = None
    one_object_share: float = 0.0
    held_out: str | None = None
    seed: int = 0

    def count(self, split: Split) -> int:
        """Number of scenes in a split."""
        return {"train": self.num_train, "val": self.num_val}.get(split, self.num_test)


WORLD = WorldSpec()
"""The default world, as a default argument."""
WORLD_PATH = "world"
"""What ``path`` says for drawn scenes."""


def world_scene(spec: WorldSpec, split: Split, index: int, *, image_size: int) -> Scene:
    """Scene ``index`` of a split of the specified world."""
    alone = split == "train" and int((index + 1) * spec.one_object_share) > int(
        index * spec.one_object_share
    )
    return scene_at(
        split,
        index,
        level=spec.level,
        image_size=image_size,
        num_objects=(1, 1) if alone else spec.num_objects,
        sizes=spec.sizes,
        held_out=spec.held_out,
        seed=spec.seed,
    )


def world_set(spec: WorldSpec, split: Split, *, image_size: int) -> ShardSet:
    """Open a split, writing it to the cache first if it is not there.

    Raises:
        ConfigError: a number of the specification makes no sense.
        DataError: the cache cannot be written, or holds a damaged set.
    """
    _check(spec)
    count = spec.count(split)
    details = {**asdict(spec), "num_scenes": count, "image_size": image_size, "split": split}
    for unused in ("num_train", "num_val", "num_test"):
        del details[unused]
    scenes = (world_scene(spec, split, index, image_size=image_size) for index in range(count))
    return _stored(details, scenes, count, f"{split} split of the drawn world ({spec.level})")


def class_set(spec: WorldSpec, per_class: int, *, image_size: int) -> ShardSet:
    """One-object scenes for zero-shot classification, ``per_class`` of each of the world's classes.

    Held-out combinations are shown too. Sample i belongs to class ``i % len(CLASSES)``.
    """
    _check(spec)
    details = {
        "classes": len(CLASSES), "per_class": per_class, "image_size": image_size,
        "level": spec.level, "sizes": spec.sizes, "seed": spec.seed,
    }  # fmt: skip
    lone = replace(spec, num_objects=(1, 1), held_out="any")
    count = per_class * len(CLASSES)
    scenes = _balanced(lone, per_class, image_size=image_size)
    return _stored(details, scenes, count, f"one-object scenes of the drawn world ({spec.level})")


def _balanced(spec: WorldSpec, per_class: int, *, image_size: int) -> Iterator[Scene]:
    """Scenes in the order class 0, 1, ..., 0, 1, ... from a stream with random classes."""
    waiting: dict[tuple[str, str], list[Scene]] = {pair: [] for pair in CLASSES}
    index = 0
    for number in range(per_class * len(CLASSES)):
        wanted = CLASSES[number % len(CLASSES)]
        while not waiting[wanted]:
            if index > 1000 * per_class * len(CLASSES):
                raise ConfigError(
                    f"data.world.level {spec.level!r} never shows a {' '.join(wanted)}; set "
                    "data.zero_shot to null, or use level base."
                )
            scene = world_scene(spec, "val", index, image_size=image_size)
            thing = scene.things[0]
            waiting[thing.color, thing.shape].append(scene)
            index += 1
        yield waiting[wanted].pop(0)


def _stored(details: dict[str, Any], scenes: Iterator[Scene], count: int, title: str) -> ShardSet:
    details = {**details, "world_version": WORLD_VERSION}
    folder = cache_folder() / f"world-{details.get('split', 'classes')}-{short_hash(details)}"

    def write() -> None:
        with ShardWriter(folder, kind="image_text", source=title, spec=details) as writer:
            for index, scene in enumerate(progress(scenes, count, f"drawing the {title}")):
                caption = dense_caption(scene, stream_rng("stored caption", index))
                writer.add(Record(encode_png(render(scene)), (caption,), scene.to_json()))

    return ShardSet(written_once(Path(folder), write, marker=MANIFEST))


def _check(spec: WorldSpec) -> None:
    if not 0.0 <= spec.one_object_share <= 1.0:
        raise ConfigError(
            f"data.world.one_object_share is {spec.one_object_share}; write a share from 0 to 1."
        )
    for key in ("num_train", "num_val", "num_test"):
        if getattr(spec, key) < 1:
            raise ConfigError(f"data.world.{key} is {getattr(spec, key)}; write at least 1.")
