"""Batches of the mixture: which form a document takes, and what it holds."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from vilau.data.captions import CaptionSpec, PromptSpec, choose_caption, choose_prompt
from vilau.data.drawn_clips import DrawnClips
from vilau.data.forms import (
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
from vilau.data.mixing.own import OwnSet
from vilau.data.pairs import load_image
from vilau.data.shards import Record, ShardSet
from vilau.types import Document, MultimodalBatch
from vilau.world.clip_language import clip_caption
from vilau.world.language import facts
from vilau.world.pairs import invented_facts
from vilau.world.scene import Scene, pick, stream_rng

FACTS = tuple(facts() + invented_facts())
"""What only text tells of the drawn world."""


@dataclass(frozen=True)
class MixtureBatches:
    """Builds a ``MultimodalBatch`` with one document per sample index.

    Form, text and crop of a document depend on ``(seed, epoch, index)`` alone; and so does, for a form that
    has a set of its own, which of its samples is taken: any of them, however often it was taken before.
    """

    source: ShardSet
    indices: np.ndarray
    """The samples of the split; others of them come into interleaved documents."""
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
    own: Mapping[str, OwnSet] = field(default_factory=dict)
    """Sets of the forms that do not come from ``source``."""

    def __call__(self, epoch: int, indices: np.ndarray) -> MultimodalBatch:
        """Return the batch of the samples at ``indices`` ``(B,)``."""
        pictures = Pictures()
        documents = []
        records = self.source.read(indices)
        for index, record in zip(indices.tolist(), records, strict=True):
            rng = stream_rng(self.seed, "mixture", epoch, index)
            form = self._form(rng, index)
            documents.append(self._document(form, record, rng, pictures))
        return pictures.batch(documents, image_size=self.transform.image_size)

    def _form(self, rng: random.Random, index: int) -> str:
        forms = [form for form, share in self.shares.items() if share > 0]
        if self.fixed:
            return forms[index % len(forms)]
        return rng.choices(forms, [self.shares[form] for form in forms])[0]

    def _document(
        self, form: str, record: Record, rng: random.Random, pictures: Pictures
    ) -> Document:
        if form in self.own:
            return self.own[form].any(rng, pictures)
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
        """The sample's pair and others of its split: the model sees how the first are told."""
        parts = [(image, self._text(record, rng, drawing=False))]
        others = [rng.randrange(len(self.indices)) for _ in range(1, self.interleaved_images)]
        for other in self.source.read(self.indices[others]):
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
