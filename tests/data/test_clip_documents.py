"""Documents about drawn clips, of several images, and questions in the benchmarks' forms."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest
import torch

from tests.data.test_documents import documents, ready, same
from vilau.data.drawn_clips import ClipSpec, DrawnClips
from vilau.data.instructions import Instructions
from vilau.data.mixing.batches import FACTS
from vilau.data.mixture import MultimodalMixture
from vilau.data.world_data import WorldSpec
from vilau.errors import ConfigError
from vilau.types import ImageSegment, TextSegment, VideoSegment
from vilau.world.clip_language import clip_caption
from vilau.world.clip_sampling import clip_at
from vilau.world.clips import render_clip
from vilau.world.exam import LETTER_ENDING
from vilau.world.pairs import invented_facts
from vilau.world.scene import stream_rng

ONLY_CLIPS = {"image_to_text_share": 0.0, "text_to_image_share": 0.0, "text_to_video_share": 1.0}
FEW = ClipSpec(num_train=3, num_val=2, num_frames=8, num_objects=(1, 2))


def test_clips_to_draw_are_told_and_bear_the_loss(world: WorldSpec) -> None:
    """Every frame of the clip stands in the batch, in order; the caption is one that the clip can have."""
    data = ready(MultimodalMixture(world=world, global_batch_size=8, clips=FEW, **ONLY_CLIPS))
    clips = [clip_at("train", number, num_objects=(1, 2)) for number in range(3)]
    shown = [torch.from_numpy(render_clip(clip)).permute(0, 3, 1, 2) for clip in clips]
    (batch,) = islice(data.train_dataloader(), 1)
    assert batch.images.shape == (64, 3, 64, 64)
    for document in batch.documents:
        assert document.source == "text_to_video"
        text, video = document.segments
        assert isinstance(video, VideoSegment)
        assert video.target
        assert not text.target
        frames = batch.images[list(video.indices)]
        number = next(n for n, one in enumerate(shown) if torch.equal(one, frames))
        words = {
            clip_caption(clips[number], stream_rng("any", index)).split(" on ")[-1]
            for index in range(5)
        }
        assert text.text.split(" on ")[-1] in words
        assert any(motion.kind in text.text for motion in clips[number].motions)


def test_some_frames_of_a_clip(world: WorldSpec) -> None:
    spec = replace(FEW, seen_frames=4)
    clips = DrawnClips(spec, world, "train", 64)
    clip = clip_at("train", 1, num_objects=(1, 2))
    found, every = clips.frames(clip), render_clip(clip)
    assert len(found) == 4
    for frame, number in zip(found, (0, 2, 5, 7), strict=True):
        assert (frame == every[number]).all()


def test_shares_of_the_training_clips_are_staged(world: WorldSpec) -> None:
    spec = ClipSpec(
        num_train=40, num_val=4, num_objects=(3, 3), simple_share=0.5, in_turn_share=0.2
    )
    for split, expected in (("train", {1: 20, 2: 8, 3: 12}), ("val", {3: 4})):
        clips, rng = DrawnClips(spec, world, split, 64), random.Random(0)
        shown = {clip.to_json(): clip for clip in (clips.any(rng) for _ in range(600))}
        found = Counter(len(clip.scene.things) for clip in shown.values())
        assert found.keys() == expected.keys()
        assert all(abs(found[num] - expected[num]) <= 1 for num in expected)
        for clip in shown.values():
            staged = len(clip.motions) < 3
            assert not staged or {motion.speed for motion in clip.motions} == {"fast"}
            if len(clip.motions) == 2:
                assert {(motion.start, motion.end) for motion in clip.motions} == {(0, 4), (4, 8)}


def test_validation_clips_are_none_of_the_training(world: WorldSpec) -> None:
    data = ready(MultimodalMixture(world=world, global_batch_size=8, clips=FEW, **ONLY_CLIPS))
    seen = {
        split: {
            batch.images[list(d.segments[1].indices)].numpy().tobytes()
            for batch in islice(loader, 2)
            for d in batch.documents
        }
        for split, loader in (("train", data.train_dataloader()), ("val", data.val_dataloader()))
    }
    assert len(seen["val"]) == 2
    assert not seen["train"] & seen["val"]


def test_interleaved_documents_bear_loss_on_their_texts(world: WorldSpec) -> None:
    data = ready(
        MultimodalMixture(world=world, global_batch_size=8, image_to_text_share=0.0,
                          text_to_image_share=0.0, interleaved_share=1.0, interleaved_images=4)
    )  # fmt: skip
    (batch,) = islice(data.train_dataloader(), 1)
    assert len(batch.images) == 32
    for document in batch.documents:
        assert not document.chat
        kinds = [type(segment) for segment in document.segments]
        assert kinds == [ImageSegment, TextSegment] * 4
        assert [segment.target for segment in document.segments] == [False, True] * 4


def test_text_alone_teaches_the_invented_words(world: WorldSpec) -> None:
    data = ready(
        MultimodalMixture(world=replace(world, num_train=400), global_batch_size=16,
                          image_to_text_share=0.0, text_to_image_share=0.0, text_only_share=1.0)
    )  # fmt: skip
    said = {document.segments[0].text for document in documents(data.train_dataloader())}
    assert said == set(FACTS)
    assert set(invented_facts()) < said


def test_questions_about_clips(world: WorldSpec) -> None:
    data = ready(
        Instructions(
            world=world, global_batch_size=8, video_share=1.0, turns_per_image=3, clips=FEW
        )
    )
    (batch,) = islice(data.train_dataloader(), 1)
    assert len(batch.images) == 64
    for document in batch.documents:
        video, *turns = document.segments
        assert isinstance(video, VideoSegment)
        assert not video.target
        assert len(video.indices) == 8
        assert [turn.target for turn in turns] == [False, True] * (len(turns) // 2)
        assert 2 <= len(turns) <= 6
    assert same(batch, next(iter(data.train_dataloader())))


def test_a_share_of_clips_and_of_exams(world: WorldSpec) -> None:
    data = ready(
        Instructions(
            world=replace(world, num_train=200), global_batch_size=20, turns_per_image=4,
            video_share=0.25, exam_share=0.5, exam_forms=("options",), clips=FEW,
        )
    )  # fmt: skip
    found = documents(data.train_dataloader())
    kinds = Counter(type(document.segments[0]) for document in found)
    assert kinds[VideoSegment] == pytest.approx(50, abs=20)
    asked = [
        segment.text
        for document in found
        if isinstance(document.segments[0], ImageSegment)
        for segment in document.segments[1:]
        if not segment.target
    ]
    lettered = sum(text.endswith(LETTER_ENDING) for text in asked)
    assert lettered / len(asked) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"exam_forms": ("probe", "essay")}, "data.exam_forms holds 'essay'; write some of probe"),
        ({"exam_share": 1.5}, "data.exam_share is 1.5; write a share from 0 to 1"),
        ({"video_share": -0.1}, "data.video_share is -0.1; write a share"),
        ({"path": "talks.json", "video_share": 0.1}, "data.path is talks.json; write 0."),
        (
            {"video_share": 0.1, "clips": ClipSpec(num_frames=5)},
            "num_frames is 5; write an even number from 4 on",
        ),
        ({"clips": ClipSpec(num_val=0)}, "data.clips.num_val is 0; write at least 1"),
        ({"clips": ClipSpec(seen_frames=9)}, "seen_frames is 9, but a clip has 8 frames"),
        (
            {"clips": ClipSpec(simple_share=2)},
            "clips.simple_share is 2; write a share from 0",
        ),
        (
            {"clips": ClipSpec(in_turn_share=-1)},
            "clips.in_turn_share is -1; write a share from 0",
        ),
        (
            {"clips": ClipSpec(simple_share=0.6, in_turn_share=0.5)},
            "simple_share is 0.6 and in_turn_share 0.5; write shares that add up to 1",
        ),
        ({"clips": ClipSpec(num_objects=(2, 1))}, r"num_objects is \[2, 1\]; write a range"),
    ],
)
def test_instructions_that_make_no_sense(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Instructions(**settings)


def test_mixtures_that_make_no_sense() -> None:
    with pytest.raises(ConfigError, match=r"photos holds no clips; name some in data.video_path"):
        MultimodalMixture(path="photos", image_to_text_share=0.4, text_to_video_share=0.1)
    with pytest.raises(ConfigError, match="interleaved_images is 1; write at least 2"):
        MultimodalMixture(interleaved_images=1)
