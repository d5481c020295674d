"""Instruction tuning: conversations about one image, and requests to draw one."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from vilau.data.captions import PromptSpec, choose_prompt
from vilau.data.media.images import ImageTransform
from vilau.data.mixture import PROMPTS, drawing_document
from vilau.data.module import StreamedDataModule
from vilau.data.pairs import check_share, load_image, open_split, stack_images
from vilau.data.shards import ShardSet
from vilau.data.sources.forms import CONVERSATIONS
from vilau.data.streaming import FixedLoader, TrainLoader
from vilau.data.world_data import WORLD, WORLD_PATH, WorldSpec, level_of
from vilau.errors import ConfigError
from vilau.types import Document, ImageSegment, MultimodalBatch, Segment, TextSegment
from vilau.world.questions import sample_questions
from vilau.world.scene import LEVELS, Scene, stream_rng

CHAT = "chat"


@dataclass(frozen=True)
class InstructionBatches:
    """Builds a ``MultimodalBatch`` of chat documents, one per sample index.

    Questions about a drawn scene depend on ``(seed, epoch, index)`` alone.
    """

    source: ShardSet
    transform: ImageTransform
    level: str
    turns_per_image: int
    drawing_share: float
    prompts: PromptSpec
    seed: int

    def __call__(self, epoch: int, indices: np.ndarray) -> MultimodalBatch:
        """Return the batch of the samples at ``indices`` ``(B,)``."""
        images: list[np.ndarray] = []
        documents = []
        records = self.source.read(indices)
        for index, record in zip(indices.tolist(), records, strict=True):
            rng = stream_rng(self.seed, "instructions", epoch, index)
            if record.image:
                images.append(load_image(record, self.transform, rng, self.source))
            image = len(images) - 1 if record.image else None
            if record.scene and image is not None:
                documents.append(self._about(Scene.from_json(record.scene), image, rng))
            else:
                documents.append(conversation(image, record.texts))
        return MultimodalBatch(
            images=stack_images(images, image_size=self.transform.image_size),
            documents=documents,
        )

    def _about(self, scene: Scene, image: int, rng: random.Random) -> Document:
        if rng.random() < self.drawing_share:
            return drawing_document(image, choose_prompt(scene, self.prompts, rng))
        asked = sample_questions(scene, rng, self.turns_per_image, level=LEVELS[self.level])
        return conversation(image, [text for q in asked for text in (q.question, q.answer)])


def conversation(image: int | None, turns: list[str] | tuple[str, ...]) -> Document:
    """[image, question, **answer**, question, **answer**, ...]; ``turns`` alternate."""
    segments: list[Segment] = [] if image is None else [ImageSegment(image)]
    for number, text in enumerate(turns):
        segments.append(TextSegment(text, target=number % 2 == 1))
    return Document(tuple(segments), source=CHAT)


class Instructions(StreamedDataModule):
    """Chat documents for instruction tuning; loaders of ``MultimodalBatch``.

    Args:
        path: ``world``; or a LLaVA-style .json or .jsonl file of conversations; or shards that
            ``vilau data prepare`` wrote from one.
        image_folder: what the file's image paths are relative to; None: the file's own folder.
        image_size: side of the images in pixels.
        global_batch_size: documents per optimizer step over all devices.
        world: which drawn scenes, where ``path`` is ``world``.
        turns_per_image: questions about a drawn scene in one document.
        drawing_share: share of documents about drawn scenes that ask for the picture instead.
        prompts: what those ask for.
        validation: conversations for validation; None: see ``ImageTextPairs``.
        validation_share: see ``ImageTextPairs``.
        num_val_samples: at most so many validation documents.
        num_workers: loader processes per device; batches do not depend on it.
        seed: with the epoch, decides order and questions.

    Raises:
        ConfigError: a setting makes no sense.
        DataError: data are missing or broken.
    """

    def __init__(  # noqa: PLR0913 - a data module's settings are its constructor
        self,
        path: str = WORLD_PATH,
        image_folder: str | None = None,
        image_size: int = 64,
        global_batch_size: int = 64,
        world: WorldSpec = WORLD,
        turns_per_image: int = 4,
        drawing_share: float = 0.0,
        prompts: PromptSpec = PROMPTS,
        validation: str | None = None,
        validation_share: float = 0.02,
        num_val_samples: int = 512,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            image_size=image_size,
            global_batch_size=global_batch_size,
            num_workers=num_workers,
            seed=seed,
        )
        prompts.check()
        check_share("drawing_share", drawing_share)
        if turns_per_image < 1:
            raise ConfigError(f"data.turns_per_image is {turns_per_image}; write at least 1.")
        self.path, self.image_folder = path, image_folder
        level_of(world)
        self.world, self.turns_per_image = world, turns_per_image
        self.drawing_share, self.prompts = drawing_share, prompts
        self.validation, self.validation_share = validation, validation_share
        self.num_val_samples = num_val_samples

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
            kind=CONVERSATIONS,
            image_folder=self.image_folder,
        )

    def train_dataloader(self) -> TrainLoader:
        """Stateful loader of ``MultimodalBatch``."""
        return self._train_loader(self._batches(self._split.train, draft=True), self._split)

    def val_dataloader(self) -> FixedLoader:
        """Loader of ``MultimodalBatch`` over a fixed set."""
        batches = self._batches(self._split.val, draft=False)
        return self._fixed_loader(batches, self._split.val_indices)

    def _batches(self, source: ShardSet, *, draft: bool) -> InstructionBatches:
        # A crop may cut off what a question asks about, so even training images keep their centre.
        return InstructionBatches(
            source,
            ImageTransform(self.image_size, draft=draft),
            self.world.level,
            self.turns_per_image,
            self.drawing_share,
            self.prompts,
            self.seed,
        )
