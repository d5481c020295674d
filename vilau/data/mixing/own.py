"""Sets of a user for the forms that are no pairs: videos, interleaved documents and text alone."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from vilau.data.forms import (
    INTERLEAVED,
    TEXT_ONLY,
    TEXT_TO_VIDEO,
    Pictures,
    filming_document,
    text_document,
    web_document,
)
from vilau.data.media.images import ImageTransform
from vilau.data.shards import ShardSet
from vilau.data.sources import forms as kinds
from vilau.types import Document
from vilau.world.scene import pick

KINDS = {TEXT_TO_VIDEO: kinds.VIDEOS, INTERLEAVED: kinds.INTERLEAVED, TEXT_ONLY: kinds.TEXTS}
"""Which samples each of the forms is made from."""


@dataclass(frozen=True)
class OwnSet:
    """Samples from which the documents of one form are made."""

    form: str
    source: ShardSet
    indices: np.ndarray
    """The samples of the split."""
    transform: ImageTransform
    seen_frames: int | None = None
    """So many frames of a clip; None: all."""
    most_images: int | None = None
    """So many images of a document, the first; None: all."""

    def any(self, rng: random.Random, pictures: Pictures) -> Document:
        """The document of one sample, all equally likely; raises ``DataError`` for a broken one."""
        index = self.indices[rng.randrange(len(self.indices))]
        (record,) = self.source.read([index])
        if self.form == TEXT_ONLY:
            return text_document(pick(rng, record.texts))
        shown = pictures.add_bundle(
            record,
            self.transform,
            rng,
            self.source,
            seen_frames=self.seen_frames,
            most=self.most_images,
        )
        if self.form == INTERLEAVED:
            return web_document(record.texts[0], shown)
        (frames,) = shown
        assert isinstance(frames, tuple)
        return filming_document(frames, pick(rng, record.texts))
