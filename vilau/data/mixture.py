"""The pretraining mixture: [image, text], [text, image], [text, video], interleaved and text alone."""

from __future__ import annotations

from vilau.data.captions import CaptionSpec, PromptSpec
from vilau.data.document_module import DocumentModule, Stream
from vilau.data.drawn_clips import CLIPS, ClipSpec, DrawnClips
from vilau.data.forms import IMAGE_TO_TEXT, INTERLEAVED, TEXT_ONLY, TEXT_TO_IMAGE, TEXT_TO_VIDEO
from vilau.data.media.images import ImageTransform
from vilau.data.mixing.batches import MixtureBatches
from vilau.data.mixing.own import KINDS, OwnSet
from vilau.data.module import coded_sets
from vilau.data.pairs import Split, open_split
from vilau.data.preparing.options import Options
from vilau.data.sources.documents import DocumentLimits
from vilau.data.world_data import WORLD, WORLD_PATH, WorldSpec, WorldSplit, shows_scenes
from vilau.errors import ConfigError
from vilau.types import CodedSet

DENSE = CaptionSpec(shape_share=0.0, color_share=0.0, dense_share=1.0)
"""Captions that tell the whole scene."""
PROMPTS = PromptSpec()
"""The default mixture of prompts."""


OWN_KEYS = {TEXT_TO_VIDEO: "video_path", INTERLEAVED: "interleaved_path", TEXT_ONLY: "text_path"}
"""The settings that say where the forms come from that are no pairs."""
WHAT = {TEXT_TO_VIDEO: "clips", INTERLEAVED: "interleaved documents", TEXT_ONLY: "texts alone"}
"""What they are made of."""


class MultimodalMixture(DocumentModule):
    """Documents for pretraining; loaders of ``MultimodalBatch``.

    Args:
        path: ``world``, any form of pairs that ``ImageTextPairs`` takes, or what ``vilau data tokenize`` made of
            one: then batches carry codes, which only a model with the tower that encoded them takes.
        image_size: side of the images in pixels.
        global_batch_size: documents per optimizer step over all devices.
        world: which drawn scenes, where ``path`` is ``world``.
        image_to_text_share: share of [image, text] documents; the five shares sum to 1.
        text_to_image_share: share of [text, image] documents.
        text_to_video_share: share of [text, video] documents (of drawn data).
        interleaved_share: share of documents of several images with their texts, loss on the texts.
        text_only_share: share of documents without an image (of drawn data: facts about its words).
        interleaved_images: images of an interleaved document; of one from ``interleaved_path`` at most so many.
        video_path: where [text, video] documents come from: shards that ``vilau data prepare --videos`` wrote,
            or a table of videos and captions. None: they are drawn.
        interleaved_path: where interleaved documents come from: shards of ``--interleaved``, or MMC4's .jsonl
            files with the images beside them. None: the drawn pairs.
        text_path: where documents without an image come from: shards of ``--texts``, or .txt or .jsonl files.
            None: the drawn world's facts. None of the three can be drawn where ``path`` is not ``world``.
            The step of an epoch is an index of ``path``; which sample of the three sets its document takes
            depends on ``(seed, epoch, index)`` alone, so that a run that was stopped goes on exactly. Samples are
            taken at random and put back. ``validation_share`` of each is held back.
        clips: which drawn clips; of videos from ``video_path``, ``num_frames`` are read where it is a table (shards
            hold what they were prepared with), ``seen_frames`` of which the model draws.
        captions: what image-to-text documents of drawn scenes say.
        prompts: what text-to-image documents of drawn scenes ask for.
        validation: data for validation; None: see ``ImageTextPairs``.
        validation_share: see ``ImageTextPairs``.
        num_val_samples: at most so many validation documents, of all forms in turn.
        random_crop: crop training images anywhere, not in the centre (never drawn scenes, nor sets of codes,
            which are of the centre).
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
        video_path: str | None = None,
        interleaved_path: str | None = None,
        text_path: str | None = None,
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
        clips.check(drawn=text_to_video_share > 0 and video_path is None)
        self.own_paths = {
            TEXT_TO_VIDEO: video_path, INTERLEAVED: interleaved_path, TEXT_ONLY: text_path,
        }  # fmt: skip
        if not shows_scenes(path, world):
            _check_sources(path, self.shares, self.own_paths)
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
        self._own_transform = ImageTransform(image_size, random_crop, draft=True)

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
            coded=True,
        )
        self._own = {
            form: self._opened(form, path)
            for form, path in self.own_paths.items()
            if path is not None and self.shares[form]
        }

    def _opened(self, form: str, path: str) -> Split:
        # A table of videos is read into the cache at the size that is wanted: whole frames would fill the disk.
        size = self.image_size if form == TEXT_TO_VIDEO else None
        return open_split(
            path,
            None,
            image_size=self.image_size,
            world=self.world,
            validation_share=self.validation_share,
            num_val_samples=self.num_val_samples,
            seed=self.seed,
            kind=KINDS[form],
            limits=DocumentLimits(max_images=self.interleaved_images),
            options=Options(image_size=size, num_frames=self.clips.num_frames),
            coded=True,
            key=OWN_KEYS[form],
        )

    def coded_sets(self) -> list[CodedSet]:
        """The sets that hold codes, those of the forms of their own too."""
        own: dict[str, Split] = getattr(self, "_own", {})
        of_own = coded_sets(
            *(shards for split in own.values() for shards in (split.train, split.val))
        )
        return list(dict.fromkeys([*super().coded_sets(), *of_own]))

    def stream(self, split: WorldSplit) -> Stream:
        """The samples of ``train``; or of ``val``, with all forms in turn."""
        sets, training = self._split, split == "train"
        shards = sets.train if training else sets.val
        indices = sets.train_indices if training else sets.val_indices
        batches = MixtureBatches(
            shards,
            indices,
            self._train_transform if training else ImageTransform(self.image_size),
            self.shares,
            self.captions,
            self.prompts,
            self.seed,
            DrawnClips(self.clips, self.world, split, self.image_size),
            self.interleaved_images,
            fixed=not training,
            own={form: self._own_set(form, split) for form in self._own},
        )
        return Stream(batches, shards, indices)

    def _own_set(self, form: str, split: WorldSplit) -> OwnSet:
        sets, training = self._own[form], split == "train"
        return OwnSet(
            form,
            sets.train if training else sets.val,
            sets.train_indices if training else sets.val_indices,
            self._own_transform if training else ImageTransform(self.image_size),
            seen_frames=self.clips.seen_frames,
            most_images=self.interleaved_images if form == INTERLEAVED else None,
        )


def _check_sources(path: str, shares: dict[str, float], own: dict[str, str | None]) -> None:
    """Raise ``ConfigError`` for a form that only the drawn world has."""
    for form, own_path in own.items():
        if shares[form] and own_path is None:
            raise ConfigError(
                f"data.{form}_share is {shares[form]}, but data.path {path} holds no {WHAT[form]}; name some in "
                f"data.{OWN_KEYS[form]}, or write 0."
            )


def _check_shares(shares: dict[str, float]) -> None:
    total = sum(shares.values())
    if min(shares.values()) < 0 or abs(total - 1.0) > 1e-6:
        written = ", ".join(f"{form}_share {share}" for form, share in shares.items())
        raise ConfigError(
            f"data has {written}, which sum to {total:g}; write shares from 0 to 1 that sum to 1."
        )
