"""Zero-shot classification sets: labelled images and the texts that stand for each class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from vilau.data.media.images import ImageTransform
from vilau.data.pairs import load_images, stack_images
from vilau.data.preparing.prepare import class_folder_set
from vilau.data.shards import ShardSet
from vilau.data.sources.folders import CLASS_NAMES
from vilau.data.world_data import WORLD_PATH, WorldSpec, class_indices, class_set
from vilau.types import LabelledImageBatch
from vilau.world.language import class_held_out, class_texts

TEMPLATES = (
    "a photo of a {}.",
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
"""Prompts for classes of photographs: CLIP's plain one and the seven it names as the best subset."""
OPENAI_TEMPLATES = (
    "a bad photo of a {}.", "a photo of many {}.", "a sculpture of a {}.", "a photo of the hard to see {}.",
    "a low resolution photo of the {}.", "a rendering of a {}.", "graffiti of a {}.",
    "a bad photo of the {}.", "a cropped photo of the {}.", "a tattoo of a {}.", "the embroidered {}.",
    "a photo of a hard to see {}.", "a bright photo of a {}.", "a photo of a clean {}.",
    "a photo of a dirty {}.", "a dark photo of the {}.", "a drawing of a {}.", "a photo of my {}.",
    "the plastic {}.", "a photo of the cool {}.", "a close-up photo of a {}.",
    "a black and white photo of the {}.", "a painting of the {}.", "a painting of a {}.",
    "a pixelated photo of the {}.", "a sculpture of the {}.", "a bright photo of the {}.",
    "a cropped photo of a {}.", "a plastic {}.", "a photo of the dirty {}.",
    "a jpeg corrupted photo of a {}.", "a blurry photo of the {}.", "a photo of the {}.",
    "a good photo of the {}.", "a rendering of the {}.", "a {} in a video game.", "a photo of one {}.",
    "a doodle of a {}.", "a close-up photo of the {}.", "a photo of a {}.", "the origami {}.",
    "the {} in a video game.", "a sketch of a {}.", "a doodle of the {}.", "a origami {}.",
    "a low resolution photo of a {}.", "the toy {}.", "a rendition of the {}.", "a photo of the clean {}.",
    "a photo of a large {}.", "a rendition of a {}.", "a photo of a nice {}.", "a photo of a weird {}.",
    "a blurry photo of a {}.", "a cartoon {}.", "art of a {}.", "a sketch of the {}.", "a embroidered {}.",
    "a pixelated photo of a {}.", "itap of the {}.", "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.", "a plushie {}.", "a photo of the nice {}.", "a photo of the small {}.",
    "a photo of the weird {}.", "the cartoon {}.", "art of the {}.", "a drawing of the {}.",
    "a photo of the large {}.", "a black and white photo of a {}.", "the plushie {}.",
    "a dark photo of a {}.", "itap of a {}.", "graffiti of the {}.", "a toy {}.", "itap of my {}.",
    "a photo of a cool {}.", "a photo of a small {}.", "a tattoo of the {}.",
)  # fmt: skip
"""CLIP's 80 prompts for ImageNet, in its order: what published zero-shot accuracies are measured with."""


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
        """The world's classes for ``world``, else a folder with one folder of images per class, or
        shards that were made of one.

        Raises:
            ConfigError: a number makes no sense.
            DataError: the folder is missing, empty or unreadable.
        """
        transform = ImageTransform(image_size)
        if path == WORLD_PATH:
            source = class_set(world, per_class, image_size=image_size)
            classes = class_indices(world)
            labels = np.arange(len(source)) % len(classes)
            prompts = [list(class_texts()[number]) for number in classes]
            held_out = torch.tensor(class_held_out(), dtype=torch.bool)[classes]
            return ZeroShotBatches(source, transform, labels, prompts, held_out)
        source = class_folder_set(path)
        texts = [head.texts for head in source.heads()]
        names = {folder: name for name, folder in texts}
        _warn_of_repeated(names, path)
        number = {folder: n for n, folder in enumerate(sorted(names))}
        labels = np.array([number[folder] for _, folder in texts])
        prompts = [[template.format(names[f]) for template in TEMPLATES] for f in number]
        return ZeroShotBatches(source, transform, labels, prompts)

    def __len__(self) -> int:
        return len(self.source)

    def __call__(self, epoch: int, indices: np.ndarray) -> LabelledImageBatch:
        """Return the batch of the samples at ``indices`` ``(B,)``."""
        images = load_images(self.source, indices, self.transform)
        return LabelledImageBatch(
            images=stack_images(images, image_size=self.transform.image_size),
            labels=torch.from_numpy(self.labels[indices]),
            class_texts=self.class_texts,
            held_out=self.held_out,
        )


def _warn_of_repeated(names: dict[str, str], path: str) -> None:
    """Say which class folders have one name, up to the case of letters."""
    folders: dict[str, list[str]] = {}
    for folder, name in sorted(names.items()):
        folders.setdefault(name.casefold(), []).append(folder)
    for same in folders.values():
        if len(same) > 1:
            rank_zero_warn(
                f"data.zero_shot {path} has {len(same)} classes named {names[same[0]]!r} "
                f"({', '.join(same)}): their texts are equal, so an image of any of them counts as right "
                f"for one at most; give them different names in its {CLASS_NAMES}."
            )
