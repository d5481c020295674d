"""Zero-shot classification sets: labelled images and the texts that stand for each class."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vilau.data.images import ImageTransform, stack_images
from vilau.data.pairs import load_image
from vilau.data.shards import ShardSet
from vilau.data.world_data import WORLD_PATH, WorldSpec, class_set
from vilau.types import LabelledImageBatch
from vilau.world.language import CLASSES, class_held_out, class_texts


@dataclass
class ZeroShotBatches:
    """Builds a ``LabelledImageBatch`` from sample indices."""

    source: ShardSet
    transform: ImageTransform
    labels: np.ndarray
    """int64 ``(number of samples,)``."""
    class_texts: list[list[str]]
    held_out: Tensor | None = None

    @staticmethod
    def open(path: str, *, image_size: int, world: WorldSpec, per_class: int) -> ZeroShotBatches:
        """The world's classes for ``world``, else a folder with one folder of images per class.

        Raises:
            ConfigError: the world's level lacks some class.
            DataError: the folder is missing, empty or unreadable.
        """
        transform = ImageTransform(image_size)
        if path == WORLD_PATH:
            source = class_set(world, per_class, image_size=image_size)
            labels = np.arange(len(source)) % len(CLASSES)
            held_out = torch.tensor(class_held_out(), dtype=torch.bool)
            return ZeroShotBatches(source, transform, labels, class_texts(), held_out)
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.source)

    def __call__(self, epoch: int, indices: np.ndarray) -> LabelledImageBatch:
        """Return the batch of the samples at ``indices`` ``(B,)``."""
        records = self.source.read(indices)
        rng = random.Random(epoch)  # unused by a centre crop
        images = [load_image(record, self.transform, rng, self.source) for record in records]
        return LabelledImageBatch(
            images=stack_images(images, image_size=self.transform.image_size),
            labels=torch.from_numpy(self.labels[indices]),
            class_texts=self.class_texts,
            held_out=self.held_out,
        )
