"""Training data resume at the exact sample: under one rank and two, with other workers, and from two ranks to one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import chain, islice, repeat
from typing import Any

import pytest

from tests.data.test_documents import ready
from vilau.data.captions import CaptionSpec, PromptSpec
from vilau.data.drawn_clips import ClipSpec
from vilau.data.image_text import ImageTextPairs
from vilau.data.instructions import Instructions
from vilau.data.mixture import MultimodalMixture
from vilau.data.streaming import Devices, TrainLoader
from vilau.data.world_data import WorldSpec
from vilau.errors import CheckpointError
from vilau.types import ImageSegment, MultimodalBatch, Segment, TextSegment

GLOBAL_BATCH = 8
Make = Callable[[WorldSpec, int], MultimodalMixture | Instructions]
MIXED: dict[str, Any] = {
    "global_batch_size": GLOBAL_BATCH, "image_to_text_share": 0.3, "text_to_image_share": 0.3,
    "text_to_video_share": 0.1, "interleaved_share": 0.2, "text_only_share": 0.1,
}  # fmt: skip
FEW = ClipSpec(num_train=4, num_val=2, num_frames=4, num_objects=(1, 1))


def mixture(world: WorldSpec, workers: int) -> MultimodalMixture:
    return MultimodalMixture(world=world, num_workers=workers, clips=FEW, **MIXED)


def instructions(world: WorldSpec, workers: int) -> Instructions:
    return Instructions(
        world=world, global_batch_size=GLOBAL_BATCH, num_workers=workers, clips=FEW,
        turns_per_image=3, exam_share=0.4, drawing_share=0.2, video_share=0.2, hidden_share=0.2,
    )  # fmt: skip


def loader(
    make: Make, world: WorldSpec, *, rank: int = 0, ranks: int = 1, workers: int = 0
) -> TrainLoader:
    """The training loader of one of ``ranks``."""
    data = ready(make(world, workers))
    built = data.train_dataloader()
    return TrainLoader(
        built._make_batch, built._order, global_batch_size=GLOBAL_BATCH,
        devices=Devices(rank=rank, world_size=ranks), num_workers=workers,
    )  # fmt: skip


def told(batch: MultimodalBatch) -> list[list[object]]:
    """What each document of a batch says, with the pixels it shows."""

    def shown(segment: Segment) -> object:
        if isinstance(segment, TextSegment):
            return segment
        rows = (segment.index,) if isinstance(segment, ImageSegment) else segment.indices
        return segment.target, [batch.images[row].numpy().tobytes() for row in rows]

    return [[shown(segment) for segment in document.segments] for document in batch.documents]


def steps(source: TrainLoader, count: int) -> list[list[list[object]]]:
    """So many steps, over the end of an epoch too, where Lightning asks for a new iterator."""
    return [told(batch) for batch in islice(chain.from_iterable(repeat(source)), count)]


def test_a_mixture_is_not_resumed_over_other_data(world: WorldSpec) -> None:
    spec = replace(world, num_train=48)
    stopped = loader(mixture, spec)
    steps(stopped, 3)
    state = stopped.state_dict()
    again = MultimodalMixture(world=spec, **MIXED, num_workers=2, clips=FEW)
    others = [
        MultimodalMixture(world=replace(spec, seed=spec.seed + 1), **MIXED, clips=FEW),
        MultimodalMixture(world=spec, **MIXED, clips=replace(FEW, seen_frames=2)),
        MultimodalMixture(world=spec, **MIXED, clips=FEW, prompts=PromptSpec(dense_share=0.1)),
        MultimodalMixture(
            world=spec,
            clips=FEW,
            **{**MIXED, "image_to_text_share": 0.2, "text_to_image_share": 0.4},
        ),
    ]
    ready(again).train_dataloader().load_state_dict(state)
    for other in others:
        with pytest.raises(
            CheckpointError, match="other training data, or with other data settings"
        ):
            ready(other).train_dataloader().load_state_dict(state)


def test_pairs_and_instructions_are_not_resumed_over_other_data(world: WorldSpec) -> None:
    spec = replace(world, num_train=48)
    pairs = ready(ImageTextPairs(world=spec, global_batch_size=GLOBAL_BATCH)).train_dataloader()
    ready(
        ImageTextPairs(world=spec, global_batch_size=GLOBAL_BATCH)
    ).train_dataloader().load_state_dict(pairs.state_dict())
    captions = CaptionSpec(shape_share=0.5)
    other = ImageTextPairs(world=spec, global_batch_size=GLOBAL_BATCH, captions=captions)
    asked = Instructions(world=spec, global_batch_size=GLOBAL_BATCH, turns_per_image=2, clips=FEW)
    for built, state in (
        (other, pairs.state_dict()),
        (asked, loader(instructions, spec).state_dict()),
    ):
        with pytest.raises(
            CheckpointError, match="other training data, or with other data settings"
        ):
            ready(built).train_dataloader().load_state_dict(state)


@pytest.mark.parametrize("make", [mixture, instructions])
@pytest.mark.parametrize(
    ("ranks", "again", "workers"), [(1, 1, 0), (1, 1, 2), (2, 2, 0), (2, 1, 0), (1, 2, 0)]
)
def test_what_is_left_of_an_epoch_comes_once(
    make: Make, world: WorldSpec, ranks: int, again: int, workers: int
) -> None:
    """Stopped in mid-epoch after three steps; then the rest, whoever shares it, and the next epoch's first step."""
    spec = replace(world, num_train=48)
    expected = steps(loader(make, spec), 7)  # six are an epoch
    saved = []
    for rank in range(ranks):
        stopped = loader(make, spec, rank=rank, ranks=ranks)
        steps(stopped, 3)
        saved.append(stopped.state_dict())
    assert all(state == saved[0] for state in saved)
    parts = []
    for rank in range(again):
        resumed = loader(make, spec, rank=rank, ranks=again, workers=workers)
        resumed.load_state_dict(saved[0])
        parts.append(steps(resumed, 4))
    found = [[document for part in step for document in part] for step in zip(*parts, strict=True)]
    assert found == expected[3:]
