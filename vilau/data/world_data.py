"""Sets of the drawn world: made once from a specification, stored like any other data."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vilau.data.cache import cache_folder, short_hash, written_once
from vilau.data.media.images import encode_png
from vilau.data.progress import progress
from vilau.data.shards import MANIFEST, Manifest, Record, ShardSet, ShardWriter
from vilau.errors import ConfigError
from vilau.world.language import CLASSES, dense_caption
from vilau.world.render import render
from vilau.world.scene import LEVELS, WORLD_VERSION, Level, Scene, scene_at, stream_rng
from vilau.world.things import SIZE_NAMES

WorldSplit = Literal["train", "val", "test", "comp"]

HELD_OUT_RULES = ("exclude", "only", "any")
"""What may become of scenes with held-out combinations."""


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

    Raises:
        ConfigError: a level, a size or a rule that the world does not know, or a number that makes no sense.
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

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ConfigError(
                f"data.world.level is {self.level!r}; write one of {', '.join(LEVELS)}."
            )
        objects = self.num_objects
        if objects is not None and not 1 <= objects[0] <= objects[1]:
            raise ConfigError(
                f"data.world.num_objects is {list(objects)}; write the smallest and the largest number, from 1 on."
            )
        for size in self.sizes or ():
            if size not in SIZE_NAMES:
                raise ConfigError(
                    f"data.world.sizes holds {size!r}; write some of {', '.join(SIZE_NAMES)}."
                )
        if not 0.0 <= self.one_object_share <= 1.0:
            raise ConfigError(
                f"data.world.one_object_share is {self.one_object_share}; write a share from 0 to 1."
            )
        if self.held_out not in (None, *HELD_OUT_RULES):
            raise ConfigError(
                f"data.world.held_out is {self.held_out!r}; write one of {', '.join(HELD_OUT_RULES)}, or null."
            )
        for key in ("num_train", "num_val", "num_test"):
            if getattr(self, key) < 1:
                raise ConfigError(f"data.world.{key} is {getattr(self, key)}; write at least 1.")

    def count(self, split: WorldSplit) -> int:
        """Number of scenes in a split."""
        return {"train": self.num_train, "val": self.num_val}.get(split, self.num_test)


WORLD = WorldSpec()
"""The default world, as a default argument."""
WORLD_PATH = "world"
"""What ``path`` says for drawn scenes."""


def world_scene(spec: WorldSpec, split: WorldSplit, index: int, *, image_size: int) -> Scene:
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


def world_set(spec: WorldSpec, split: WorldSplit, *, image_size: int) -> ShardSet:
    """Open a split, writing it to the cache first if it is not there.

    Raises:
        DataError: the cache cannot be written, or holds a damaged set.
    """
    count = spec.count(split)
    details = {**asdict(spec), "num_scenes": count, "image_size": image_size, "split": split}
    for unused in ("num_train", "num_val", "num_test"):
        del details[unused]
    if split != "train":
        del details["one_object_share"]
    scenes = (world_scene(spec, split, index, image_size=image_size) for index in range(count))
    return _stored(details, scenes, count, f"{split} split of the drawn world ({spec.level})")


def class_indices(spec: WorldSpec) -> list[int]:
    """Which of the world's 64 classes the level can show, as indices into ``CLASSES``."""
    level = level_of(spec)
    return [
        number
        for number, (color, shape) in enumerate(CLASSES)
        if color in level.colors and shape in level.shapes
    ]


def class_set(spec: WorldSpec, per_class: int, *, image_size: int) -> ShardSet:
    """One-object scenes for zero-shot classification, ``per_class`` of each class of the level.

    Held-out combinations are shown too. Classes take turns: sample i is of class
    ``class_indices(spec)[i % number of classes]``.

    Raises:
        ConfigError: a number makes no sense.
    """
    if per_class < 1:
        raise ConfigError(f"data.zero_shot_per_class is {per_class}; write at least 1.")
    details = {
        "per_class": per_class, "image_size": image_size, "level": spec.level,
        "sizes": spec.sizes, "seed": spec.seed,
    }  # fmt: skip
    lone = replace(spec, num_objects=(1, 1), held_out="any")
    wanted = [CLASSES[number] for number in class_indices(spec)] * per_class
    scenes = _in_order(lone, wanted, image_size=image_size)
    title = f"one-object scenes of the drawn world ({spec.level})"
    return _stored(details, scenes, len(wanted), title)


def level_of(spec: WorldSpec) -> Level:
    """The level's settings."""
    return LEVELS[spec.level]


def shows_scenes(path: str, world: WorldSpec | None = None) -> bool:
    """Tell whether ``path`` is the drawn world, or a stored split of it.

    Raises:
        ConfigError: the split is of another level than ``world``, if that is given.
        DataError: its manifest is damaged.
    """
    folder = Path(path).expanduser()
    if path == WORLD_PATH or not (folder / MANIFEST).exists():
        return path == WORLD_PATH
    spec = Manifest.read(folder).spec
    if "world_version" not in spec:
        return False
    if world is not None and spec["level"] != world.level:
        raise ConfigError(
            f"data.world.level is {world.level}, but {path} holds drawn scenes of level {spec['level']}; write "
            "that level."
        )
    return True


def _in_order(
    spec: WorldSpec, wanted: list[tuple[str, str]], *, image_size: int
) -> Iterator[Scene]:
    """One-object scenes that show the (colour, shape) pairs ``wanted``, from a random stream."""
    waiting: dict[tuple[str, str], list[Scene]] = {pair: [] for pair in wanted}
    indices = itertools.count()
    for pair in wanted:
        while not waiting[pair]:
            scene = world_scene(spec, "val", next(indices), image_size=image_size)
            thing = scene.things[0]
            waiting[thing.color, thing.shape].append(scene)
        yield waiting[pair].pop(0)


def _stored(details: dict[str, Any], scenes: Iterator[Scene], count: int, title: str) -> ShardSet:
    details = {**details, "world_version": WORLD_VERSION}
    folder = cache_folder() / f"world-{details.get('split', 'classes')}-{short_hash(details)}"

    def write() -> None:
        with ShardWriter(folder, kind="image_text", source=title, spec=details) as writer:
            for index, scene in enumerate(progress(scenes, count, f"drawing the {title}")):
                caption = dense_caption(scene, stream_rng("stored caption", index))
                writer.add(Record(encode_png(render(scene)), (caption,), scene.to_json()))

    return ShardSet(written_once(Path(folder), write, marker=MANIFEST))
