"""The pretraining mixture: [image, text], [text, image], [text, video], interleaved and text alone."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from vilau.data.captions import CaptionSpec, PromptSpec, choose_caption, choose_prompt
from vilau.data.drawn_clips import CLIPS, ClipSpec, DrawnClips
from vilau.data.forms import (
    IMAGE_TO_TEXT,
    INTERLEAVED,
    TEXT_ONLY,
    TEXT_TO_IMAGE,
    TEXT_TO_VIDEO,
    Pictures,
    drawing_document,
    filming_document,
    interleaved_document,
    reading_document,
    text_document,
)
from vilau.data.media.images import ImageTransform
from vilau.data.module import StreamedDataModule
from vilau.data.pairs import load_image, open_split
from vilau.data.shards import Record, ShardSet
from vilau.data.streaming import FixedLoader, TrainLoader
from vilau.data.world_data import WORLD, WORLD_PATH, WorldSpec, WorldSplit
from vilau.errors import ConfigError
from vilau.types import Document, MultimodalBatch
from vilau.world.clips import clip_caption
from vilau.world.language import facts
from vilau.world.pairs import invented_facts
from vilau.world.scene import Scene, pick, stream_rng

DENSE = CaptionSpec(shape_share=0.0, color_share=0.0, dense_share=1.0)
"""Captions that tell the whole scene."""
PROMPTS = PromptSpec()
"""The default mixture of prompts."""
FACTS = tuple(facts() + invented_facts())
"""What only text tells of the drawn world."""


@dataclass(frozen=True)
class MixtureBatches:
    """Builds a ``MultimodalBatch`` with one document per sample index.

    Form, text and crop of a document depend on ``(seed, epoch, index)`` alone.
    """

    source: ShardSet
    transform: ImageTransform
    shares: dict[str, float]
    """Share of each form; all forms of a fixed set appear in turn."""
    captions: CaptionSpec
    prompts: PromptSpec
    seed: int
    clips: DrawnClips | None = None
    interleaved_images: int = 3
    fixed: bool = False
    """Forms in turn rather than at random."""

    def __call__(self, epoch: int, indices: np.ndarray) -> MultimodalBatch:
        """Return the batch of the samples at ``indices`` ``(B,)``."""
        pictures = Pictures()
        documents = []
        records = self.source.read(indices)
        for index, record in zip(indices.tolist(), records, strict=True):
            rng = stream_rng(self.seed, "mixture", epoch, index)
            form = self._form(rng, index)
            documents.append(self._document(form, record, rng, pictures))
        return MultimodalBatch(pictures.stacked(self.transform.image_size), documents)

    def _form(self, rng: random.Random, index: int) -> str:
        forms = [form for form, share in self.shares.items() if share > 0]
        if self.fixed:
            return forms[index % len(forms)]
        return rng.choices(forms, [self.shares[form] for form in forms])[0]

    def _document(
        self, form: str, record: Record, rng: random.Random, pictures: Pictures
    ) -> Document:
        if form == TEXT_ONLY:
            return text_document(pick(rng, FACTS) if record.scene else pick(rng, record.texts))
        if form == TEXT_TO_VIDEO:
            assert self.clips is not None
            clip = self.clips.any(rng)
            return filming_document(
                pictures.add_clip(self.clips.frames(clip)), clip_caption(clip, rng)
            )
        image = pictures.add(load_image(record, self.transform, rng, self.source))
        if form == INTERLEAVED:
            return self._interleaved(record, image, rng, pictures)
        text = self._text(record, rng, drawing=form == TEXT_TO_IMAGE)
        return (drawing_document if form == TEXT_TO_IMAGE else reading_document)(image, text)

    def _interleaved(
        self, record: Record, image: int, rng: random.Random, pictures: Pictures
    ) -> Document:
        """The sample's pair and others of the set: the model sees how the first are told."""
        parts = [(image, self._text(record, rng, drawing=False))]
        others = [rng.randrange(len(self.source)) for _ in range(1, self.interleaved_images)]
        for other in self.source.read(np.array(others, dtype=np.int64)):
            image = pictures.add(load_image(other, self.transform, rng, self.source))
            parts.append((image, self._text(other, rng, drawing=False)))
        return interleaved_document(parts)

    def _text(self, record: Record, rng: random.Random, *, drawing: bool) -> str:
        if not record.scene:
            return pick(rng, record.texts)
        scene = Scene.from_json(record.scene)
        if drawing:
            return choose_prompt(scene, self.prompts, rng)
        return choose_caption(scene, self.captions, rng)


class MultimodalMixture(StreamedDataModule):
    """Documents for pretraining; loaders of ``MultimodalBatch``.

    Args:
        path: ``world``, or any form of pairs that ``ImageTextPairs`` takes.
        image_size: side of the images in pixels.
        global_batch_size: documents per optimizer step over all devices.
        world: which drawn scenes, where ``path`` is ``world``.
        image_to_text_share: share of [image, text] documents; the five shares sum to 1.
        text_to_image_share: share of [text, image] documents.
        text_to_video_share: share of [text, video] documents (of drawn data).
        interleaved_share: share of documents of several images with their texts, loss on the texts.
        text_only_share: share of documents without an image (of drawn data: facts about its words).
        interleaved_images: images of an interleaved document.
        clips: which drawn clips.
        captions: what image-to-text documents of drawn scenes say.
        prompts: what text-to-image documents of drawn scenes ask for.
        validation: data for validation; None: see ``ImageTextPairs``.
        validation_share: see ``ImageTextPairs``.
        num_val_samples: at most so many validation documents, of all forms in turn.
        random_crop: crop training images anywhere, not in the centre (never drawn scenes).
        num_workers: loader processes per device; batches do not depend on it.
        seed: with the epoch, decides order, forms and texts.

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
        image_to_text_share: float = 0.5,
        text_to_image_share: float = 0.5,
        text_to_video_share: float = 0.0,
        interleaved_share: float = 0.0,
        text_only_share: float = 0.0,
        interleaved_images: int = 3,
        clips: ClipSpec = CLIPS,
        captions: CaptionSpec = DENSE,
        prompts: PromptSpec = PROMPTS,
        validation: str | None = None,
        validation_share: float = 0.02,
        num_val_samples: int = 512,
        random_crop: bool = True,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            image_size=image_size,
            global_batch_size=global_batch_size,
            num_workers=num_workers,
            seed=seed,
        )
        captions.check()
        prompts.check()
        self.shares = {
            IMAGE_TO_TEXT: image_to_text_share,
            TEXT_TO_IMAGE: text_to_image_share,
            TEXT_TO_VIDEO: text_to_video_share,
            INTERLEAVED: interleaved_share,
            TEXT_ONLY: text_only_share,
        }
        _check_shares(self.shares)
        clips.check()
        if text_to_video_share and path != WORLD_PATH:
            raise ConfigError(
                f"data.text_to_video_share is {text_to_video_share}, but data.path {path} holds no clips; write 0."
            )
        if interleaved_images < 2:
            raise ConfigError(
                f"data.interleaved_images is {interleaved_images}; write at least 2, or interleaved_share: 0."
            )
        self.interleaved_images, self.clips = interleaved_images, clips
        self.path, self.world, self.captions, self.prompts = path, world, captions, prompts
        self.validation, self.validation_share = validation, validation_share
        self.num_val_samples = num_val_samples
        self._train_transform = ImageTransform(
            image_size, random_crop and path != WORLD_PATH, draft=True
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

    def train_dataloader(self) -> TrainLoader:
        """Stateful loader of ``MultimodalBatch``."""
        batches = self._batches("train", self._train_transform)
        return self._train_loader(batches, self._split)

    def val_dataloader(self) -> FixedLoader:
        """Loader of ``MultimodalBatch`` over a fixed set with all forms."""
        batches = self._batches("val", ImageTransform(self.image_size))
        return self._fixed_loader(batches, self._split.val_indices)

    def _batches(self, split: WorldSplit, transform: ImageTransform) -> MixtureBatches:
        return MixtureBatches(
            self._split.train if split == "train" else self._split.val,
            transform,
            self.shares,
            self.captions,
            self.prompts,
            self.seed,
            DrawnClips(self.clips, self.world, split, self.image_size),
            self.interleaved_images,
            fixed=split != "train",
        )


def _check_shares(shares: dict[str, float]) -> None:
    total = sum(shares.values())
    if min(shares.values()) < 0 or abs(total - 1.0) > 1e-6:
        written = ", ".join(f"{form}_share {share}" for form, share in shares.items())
        raise ConfigError(
            f"data has {written}, which sum to {total:g}; write shares from 0 to 1 that sum to 1."
        )
