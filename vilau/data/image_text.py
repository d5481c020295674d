"""Image-text pairs for tower training: drawn scenes or a user's own, plus a zero-shot set."""

from __future__ import annotations

import numpy as np

from vilau.data.captions import CAPTIONS, CaptionSpec
from vilau.data.media.images import ImageTransform
from vilau.data.module import StreamedDataModule
from vilau.data.pairs import PairBatches, open_split
from vilau.data.streaming import FixedLoader, TrainLoader
from vilau.data.world_data import WORLD, WORLD_PATH, WorldSpec
from vilau.data.zero_shot import ZeroShotBatches


class ImageTextPairs(StreamedDataModule):
    """Pairs for training, pairs and labelled images for validation.

    A training image is scaled, cropped and perhaps mirrored as (seed, epoch, index) decide; a validation
    image is always scaled by its short side and cropped in the centre.

    ``val_dataloader`` gives two loaders, of ``ImageTextBatch`` and of ``LabelledImageBatch`` (one
    when ``zero_shot`` is None).

    Args:
        path: ``world`` for drawn scenes; else a folder of images with captions, a table
            (csv, tsv, jsonl, parquet) of images and captions, WebDataset tars, what img2dataset
            wrote, or shards written by ``vilau data prepare``. What is not shards yet is prepared
            into the cache.
        image_size: side of the images in pixels.
        global_batch_size: images per optimizer step over all devices.
        world: which drawn scenes, where ``path`` is ``world``.
        captions: which captions of a drawn scene a step sees.
        validation: data for validation, in any form of ``path``; None: drawn scenes have a split of
            their own, of other data a share is held back.
        validation_share: that share.
        num_val_samples: at most so many validation pairs.
        zero_shot: ``auto``: the world's 64 classes for drawn scenes, nothing for other data; a
            folder with one folder of images per class, as ImageNet's, or shards that ``vilau data
            prepare --classes`` made of one; or None for no zero-shot set.
        zero_shot_per_class: images per class of the drawn zero-shot set.
        random_crop: crop training images anywhere, not in the centre (never drawn scenes).
        random_flip: mirror half of the training images (never drawn scenes: captions say "left").
        num_workers: loader processes per device; batches do not depend on it.
        seed: with the epoch, decides order, captions and crops.
        resize: scale the short side of training images to so many pixels before the square of
            ``image_size`` is cut out; None: to ``image_size`` (never drawn scenes).

    Raises:
        ConfigError: a setting makes no sense.
        DataError: data are missing or broken.
    """

    def __init__(  # noqa: PLR0913 - a data module's settings are its constructor
        self,
        path: str = WORLD_PATH,
        image_size: int = 64,
        global_batch_size: int = 64,
        world: WorldSpec = WORLD,
        captions: CaptionSpec = CAPTIONS,
        validation: str | None = None,
        validation_share: float = 0.02,
        num_val_samples: int = 2000,
        zero_shot: str | None = "auto",
        zero_shot_per_class: int = 10,
        random_crop: bool = True,
        random_flip: bool = False,
        num_workers: int = 0,
        seed: int = 0,
        resize: int | None = None,
    ) -> None:
        super().__init__(
            image_size=image_size,
            global_batch_size=global_batch_size,
            num_workers=num_workers,
            seed=seed,
        )
        captions.check()
        self.path, self.world, self.captions = path, world, captions
        self.validation, self.validation_share = validation, validation_share
        self.num_val_samples = num_val_samples
        self.zero_shot, self.zero_shot_per_class = zero_shot, zero_shot_per_class
        drawn = path == WORLD_PATH
        self._train_transform = ImageTransform(
            image_size,
            random_crop and not drawn,
            random_flip and not drawn,
            draft=True,
            resize=None if drawn else resize,
        )

    def setup(self, stage: str | None = None) -> None:
        """Open the sets and fix which samples are for training and for validation."""
        self._split = open_split(
            self.path,
            self.validation,
            image_size=self.image_size,
            world=self.world,
            validation_share=self.validation_share,
            num_val_samples=self.num_val_samples,
            seed=self.seed,
        )
        classes = self.zero_shot
        if classes == "auto":
            classes = WORLD_PATH if self.path == WORLD_PATH else None
        self._zero_shot = classes and ZeroShotBatches.open(
            classes,
            image_size=self.image_size,
            world=self.world,
            per_class=self.zero_shot_per_class,
        )

    def train_dataloader(self) -> TrainLoader:
        """Stateful loader of ``ImageTextBatch``."""
        batches = PairBatches(self._split.train, self._train_transform, self.captions, self.seed)
        return self._train_loader(batches, self._split.train, self._split.train_indices)

    def val_dataloader(self) -> list[FixedLoader]:
        """Loaders of ``ImageTextBatch`` and, unless switched off, ``LabelledImageBatch``."""
        transform = ImageTransform(self.image_size)
        pairs = PairBatches(self._split.val, transform, self.captions, self.seed)
        loaders = [self._fixed_loader(pairs, self._split.val_indices)]
        if self._zero_shot:
            indices = np.arange(len(self._zero_shot))
            loaders.append(self._fixed_loader(self._zero_shot, indices))
        return loaders
