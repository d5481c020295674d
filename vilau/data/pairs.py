"""From stored pairs to batches: which samples train, which validate, and what a batch holds."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vilau.data.captions import CaptionSpec, TextTruth, caption_matches, choose_caption
from vilau.data.media.images import ImageTransform, UnreadableImageError
from vilau.data.preparing.options import OPTIONS, Options
from vilau.data.preparing.prepare import user_set
from vilau.data.shards import Record, ShardSet
from vilau.data.sources.documents import LIMITS, DocumentLimits
from vilau.data.sources.forms import PAIRS
from vilau.data.world_data import (
    WORLD_PATH,
    WorldSpec,
    WorldSplit,
    shows_scenes,
    world_set,
)
from vilau.errors import ConfigError, DataError
from vilau.types import ImageTextBatch
from vilau.world.scene import Scene, pick, stream_rng


@dataclass(frozen=True)
class Split:
    """Training and validation samples; index arrays point into their sets."""

    train: ShardSet
    train_indices: np.ndarray
    val: ShardSet
    val_indices: np.ndarray


def open_split(  # noqa: PLR0913 - the settings of a data module, passed on
    path: str,
    validation: str | None,
    *,
    image_size: int,
    world: WorldSpec,
    validation_share: float,
    num_val_samples: int,
    seed: int,
    kind: str = PAIRS,
    image_folder: str | None = None,
    video_folder: str | None = None,
    limits: DocumentLimits = LIMITS,
    options: Options = OPTIONS,
    coded: bool = False,
    key: str = "path",
) -> Split:
    """Open the sets of a data module; the arguments are those of ``ImageTextPairs``.

    ``kind``, folders and ``limits`` are those of ``find_source``, ``options`` say how what is no shards yet is
    prepared. ``coded`` takes sets of codes too. ``key`` is the setting that gave the path, for messages.

    Raises:
        ConfigError: the validation share or number makes no sense.
        DataError: data are missing or broken.
    """
    if num_val_samples < 1:
        raise ConfigError(f"data.num_val_samples is {num_val_samples}; write at least 1.")

    def opened(path: str, split: WorldSplit) -> ShardSet:
        if path == WORLD_PATH:
            return world_set(world, split, image_size=image_size)
        # Drawn scenes can be asked about, whatever their stored texts are; sets of a form's own cannot.
        stored = PAIRS if key == "path" and shows_scenes(path) else kind
        shards = user_set(
            path,
            kind=stored,
            image_folder=image_folder,
            video_folder=video_folder,
            limits=limits,
            options=options,
            coded=coded,
        )
        if shards.coding is not None and shards.coding.image_size != image_size:
            raise ConfigError(
                f"data.image_size is {image_size}, but {path} holds the codes of images of "
                f"{shards.coding.image_size} pixels; write {shards.coding.image_size}."
            )
        return shards

    train = opened(path, "train")
    every = np.arange(len(train))
    if validation is not None or path == WORLD_PATH:
        val = opened(validation or WORLD_PATH, "val")
        return Split(train, every, val, np.arange(min(num_val_samples, len(val))))
    check_share("validation_share", validation_share)
    if len(train) < 2:
        raise ConfigError(
            f"data.{key} {path} holds {len(train)} sample, too few to hold one back; add "
            + ("images, or name a validation set in data.validation." if key == "path" else "some.")
        )
    num_held = min(num_val_samples, max(1, round(validation_share * len(train))), len(train) - 1)
    held = np.zeros(len(train), dtype=bool)
    held[np.random.default_rng((seed, len(train))).permutation(len(train))[:num_held]] = True
    return Split(train, every[~held], train, every[held])


def check_share(key: str, share: float) -> None:
    """Raise ``ConfigError`` unless ``data.<key>`` is a share."""
    if not 0.0 <= share <= 1.0:
        raise ConfigError(f"data.{key} is {share}; write a share from 0 to 1.")


def load_image(
    record: Record, transform: ImageTransform, rng: random.Random, source: ShardSet
) -> np.ndarray:
    """Decode a stored image to uint8 ``(H, W, 3)``; raises ``DataError`` naming the set.

    From a set of codes: int64 ``(P, D)``, the image's codes, on which no transform can act.
    """
    return load_picture(record.image, transform, rng, source)


def load_picture(
    data: bytes, transform: ImageTransform, rng: random.Random, source: ShardSet
) -> np.ndarray:
    """Decode one of a record's images; see ``load_image``."""
    if source.coding is not None:
        return source.coding.unpack(data, source.folder)
    try:
        return transform(data, rng)
    except UnreadableImageError as error:
        raise DataError(
            f"{source.folder} holds an image that cannot be read ({error}); prepare it again with "
            "`vilau data prepare`, which checks every image."
        ) from error


def load_images(
    source: ShardSet, indices: np.ndarray, transform: ImageTransform
) -> list[np.ndarray]:
    """Decode the images at ``indices`` with a transform that leaves nothing to chance."""
    rng = random.Random(0)
    return [load_image(record, transform, rng, source) for record in source.read(indices)]


def stack_images(images: list[np.ndarray], *, image_size: int) -> Tensor:
    """Stack uint8 ``(H, W, 3)`` arrays into a tensor ``(N, 3, H, W)``; N may be 0."""
    if not images:
        return torch.empty((0, 3, image_size, image_size), dtype=torch.uint8)
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True)
class PairBatches:
    """Builds an ``ImageTextBatch`` from sample indices.

    The caption and the crop of a sample depend on ``(seed, epoch, index)`` alone.
    """

    source: ShardSet
    transform: ImageTransform
    captions: CaptionSpec
    seed: int

    def __call__(self, epoch: int, indices: np.ndarray) -> ImageTextBatch:
        """Return the batch of the samples at ``indices`` ``(B,)``."""
        records = self.source.read(indices)
        scenes = [Scene.from_json(record.scene) for record in records if record.scene]
        images, texts = [], []
        for position, (index, record) in enumerate(zip(indices.tolist(), records, strict=True)):
            rng = stream_rng(self.seed, "pairs", epoch, index)
            images.append(load_image(record, self.transform, rng, self.source))
            if scenes:
                texts.append(choose_caption(scenes[position], self.captions, rng))
            else:
                texts.append(pick(rng, record.texts))
        return ImageTextBatch(
            images=stack_images(images, image_size=self.transform.image_size),
            texts=texts,
            matches=caption_matches(scenes, texts) if scenes else None,
            scenes=[record.scene for record in records if record.scene],
            truth=TextTruth(scenes) if scenes else None,
        )
