"""Instruction tuning: conversations about an image or a clip, and requests to draw."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vilau.data.bundle import is_bundle
from vilau.data.captions import PromptSpec, choose_prompt
from vilau.data.document_module import DocumentModule, Stream
from vilau.data.drawn_clips import CLIPS, ClipSpec, DrawnClips
from vilau.data.forms import (
    Pictures,
    Shown,
    conversation,
    drawing_document,
    is_drawn,
    marked_conversation,
    without_marks,
)
from vilau.data.media.images import ImageTransform
from vilau.data.mixture import PROMPTS
from vilau.data.pairs import check_share, load_image, open_split
from vilau.data.preparing.options import Options
from vilau.data.shards import Record, ShardSet
from vilau.data.sources.forms import CONVERSATIONS
from vilau.data.world_data import (
    WORLD,
    WORLD_PATH,
    WorldSpec,
    WorldSplit,
    level_of,
    shows_scenes,
)
from vilau.errors import ConfigError
from vilau.types import Document, MultimodalBatch
from vilau.world.exam import FORMS, clip_turns, exam_turn
from vilau.world.questions import sample_questions
from vilau.world.scene import Level, Scene, stream_rng


@dataclass(frozen=True)
class InstructionBatches:
    """Builds a ``MultimodalBatch`` of chat documents: one per sample index, or one per question about it.

    Questions about a drawn scene depend on ``(seed, epoch, index)`` alone.
    """

    source: ShardSet
    transform: ImageTransform
    level: Level
    turns_per_image: int
    single_turn_share: float
    exam_share: float
    exam_forms: tuple[str, ...]
    drawing_share: float
    video_share: float
    clips: DrawnClips
    prompts: PromptSpec
    seed: int
    hidden_share: float = 0.0
    """With a default: runs that began before there was such a share are resumed."""

    def __call__(self, epoch: int, indices: np.ndarray) -> MultimodalBatch:
        """Return the batch of the samples at ``indices`` ``(B,)``."""
        pictures = Pictures()
        documents = []
        records = self.source.read(indices)
        for index, record in zip(indices.tolist(), records, strict=True):
            rng = stream_rng(self.seed, "instructions", epoch, index)
            hidden = self.hidden_share > 0 and rng.random() < self.hidden_share
            if record.scene and self.video_share and rng.random() < self.video_share:
                documents += self._about_clip(rng, None if hidden else pictures)
                continue
            if hidden and not is_drawn(record.texts):
                documents += self._unseen(record, rng)
                continue
            if is_bundle(record.image):
                shown = pictures.add_bundle(
                    record,
                    self.transform,
                    rng,
                    self.source,
                    seen_frames=self.clips.spec.seen_frames,
                )
                documents.append(marked_conversation(shown, record.texts))
                continue
            image = None
            if record.image:
                image = pictures.add(load_image(record, self.transform, rng, self.source))
            if record.scene and image is not None:
                documents += self._about(Scene.from_json(record.scene), image, rng)
            else:
                documents.append(conversation(image, record.texts))
        return pictures.batch(documents, image_size=self.transform.image_size)

    def _about(self, scene: Scene, image: int, rng: random.Random) -> list[Document]:
        if rng.random() < self.drawing_share:
            return [drawing_document(image, choose_prompt(scene, self.prompts, rng))]
        return self._asked(image, self._turns(scene, rng), rng)

    def _unseen(self, record: Record, rng: random.Random) -> list[Document]:
        """What is asked about a sample's images, without them."""
        if record.scene:
            return self._asked(None, self._turns(Scene.from_json(record.scene), rng), rng)
        return [conversation(None, without_marks(record.texts))]

    def _turns(self, scene: Scene, rng: random.Random) -> list[tuple[str, str]]:
        asked = sample_questions(scene, rng, self.turns_per_image, level=self.level)
        turns = [(question.question, question.answer) for question in asked]
        if self.exam_share:
            turns = [
                exam_turn(scene, rng, self.level, self.exam_forms)
                if rng.random() < self.exam_share
                else turn
                for turn in turns
            ]
        return turns

    def _about_clip(self, rng: random.Random, pictures: Pictures | None) -> list[Document]:
        clip = self.clips.any(rng)
        turns = clip_turns(clip, rng, self.turns_per_image)
        shown = None if pictures is None else pictures.add_clip(self.clips.frames(clip))
        return self._asked(shown, turns, rng)

    def _asked(
        self, shown: Shown | None, turns: Sequence[tuple[str, str]], rng: random.Random
    ) -> list[Document]:
        """One conversation, or each question alone."""
        if self.single_turn_share and rng.random() < self.single_turn_share:
            return [conversation(shown, turn) for turn in turns]
        return [conversation(shown, [text for turn in turns for text in turn])]


class Instructions(DocumentModule):
    """Chat documents for instruction tuning; loaders of ``MultimodalBatch``.

    Args:
        path: ``world``; or a LLaVA-style .json or .jsonl file of conversations; or shards that
            ``vilau data prepare`` wrote from one, or ``vilau data tokenize`` from ``world`` or such shards:
            then batches carry codes, which only a model with the tower that encoded them takes.
        image_folder: what the file's image paths are relative to; None: the file's own folder.
        video_folder: likewise for its videos.
        image_size: side of the images in pixels.
        global_batch_size: samples per optimizer step over all devices: conversations, scenes, clips.
        world: which drawn scenes, where ``path`` is ``world``.
        turns_per_image: questions about a drawn scene or clip.
        single_turn_share: share of drawn scenes and clips each of whose questions is a document of its own, as
            benchmarks ask, instead of a turn of one conversation; ``model.share_images`` then reads the picture once.
        exam_share: share of these questions in the forms of the published benchmarks' twins (yes or no,
            lettered options, several elements), which a model only answers as it was taught.
        exam_forms: which of these forms: ``probe`` (POPE), ``pair`` (MME), ``options`` (SEED-Bench), ``hint``
            (ScienceQA), ``open`` (MM-Vet); one that is named twice is asked twice as often.
        drawing_share: share of documents about drawn scenes that ask for the picture instead.
        video_share: share of documents about drawn clips in the place of scenes.
        hidden_share: share of samples whose images and clips are left out, so that their questions are answered from
            words alone, as `Evaluation` asks with ``show_images: false``; 1 teaches a blind baseline. They are not
            drawn either: ``drawing_share`` is one of the others. A conversation whose answers draw keeps its images.
        clips: which drawn clips; and of videos in conversations, ``num_frames`` are read where ``path`` is a
            file (shards hold what they were prepared with), ``seen_frames`` of which the model sees.
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
        exam_share: float = 0.0,
        exam_forms: tuple[str, ...] = FORMS,
        drawing_share: float = 0.0,
        video_share: float = 0.0,
        clips: ClipSpec = CLIPS,
        prompts: PromptSpec = PROMPTS,
        validation: str | None = None,
        validation_share: float = 0.02,
        num_val_samples: int = 512,
        num_workers: int = 0,
        seed: int = 0,
        video_folder: str | None = None,
        single_turn_share: float = 0.0,
        hidden_share: float = 0.0,
    ) -> None:
        super().__init__(
            image_size=image_size,
            global_batch_size=global_batch_size,
            num_workers=num_workers,
            seed=seed,
        )
        prompts.check()
        clips.check(drawn=video_share > 0)
        shares = {
            "exam_share": exam_share, "drawing_share": drawing_share, "video_share": video_share,
            "single_turn_share": single_turn_share,
        }  # fmt: skip
        _check_shares(shares, hidden_share, path, drawn=shows_scenes(path, world))
        if turns_per_image < 1:
            raise ConfigError(f"data.turns_per_image is {turns_per_image}; write at least 1.")
        self.path, self.image_folder, self.video_folder = path, image_folder, video_folder
        for form in exam_forms:
            if form not in FORMS:
                raise ConfigError(
                    f"data.exam_forms holds '{form}'; write some of {', '.join(FORMS)}."
                )
        self.level = level_of(world)
        self.world, self.turns_per_image = world, turns_per_image
        self.single_turn_share, self.hidden_share = single_turn_share, hidden_share
        self.exam_share, self.exam_forms = exam_share, exam_forms
        self.video_share, self.clips = video_share, clips
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
            video_folder=self.video_folder,
            options=Options(num_frames=self.clips.num_frames),
            coded=True,
        )

    def stream(self, split: WorldSplit) -> Stream:
        """The samples of ``train`` or ``val``."""
        sets, training = self._split, split == "train"
        shards = sets.train if training else sets.val
        indices = sets.train_indices if training else sets.val_indices
        batches = InstructionBatches(
            source=shards,
            # A crop may cut off what a question asks about, so even training images keep their centre.
            transform=ImageTransform(self.image_size, draft=training),
            level=self.level,
            turns_per_image=self.turns_per_image,
            single_turn_share=self.single_turn_share,
            exam_share=self.exam_share,
            exam_forms=self.exam_forms,
            drawing_share=self.drawing_share,
            video_share=self.video_share,
            hidden_share=self.hidden_share,
            clips=DrawnClips(self.clips, self.world, split, self.image_size),
            prompts=self.prompts,
            seed=self.seed,
        )
        return Stream(batches, shards, indices)


def _check_shares(
    of_scenes: Mapping[str, float], hidden_share: float, path: str, *, drawn: bool
) -> None:
    """Raise ``ConfigError`` for what is no share, or one of scenes where none are drawn or all are hidden."""
    for key, share in of_scenes.items():
        check_share(key, share)
        if share and not drawn:
            raise ConfigError(
                f"data.{key} is {share}, but only drawn scenes are asked about anew and data.path is {path}; "
                "write 0."
            )
    check_share("hidden_share", hidden_share)
    if hidden_share == 1 and of_scenes["drawing_share"]:
        raise ConfigError(
            f"data.hidden_share is 1, so no scene is left of which a share of {of_scenes['drawing_share']} "
            "(data.drawing_share) could be drawn; write 0 for one of them."
        )
