"""The mixture with a user's videos, web documents and texts in the place of drawn ones."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.data.conftest import encoded, picture
from tests.data.test_captioned_videos import table
from tests.data.test_documents import documents, ready, same
from tests.data.test_media_video import gif
from tests.data.test_web_documents import document, image, images, write
from vilau.data.drawn_clips import ClipSpec
from vilau.data.media import video_files
from vilau.data.mixture import MultimodalMixture
from vilau.data.preparing.prepare import Options, prepare
from vilau.data.sources.forms import INTERLEAVED, TEXTS, VIDEOS, find_source
from vilau.data.world_data import WorldSpec, world_set
from vilau.errors import ConfigError, DataError
from vilau.types import ImageSegment, TextSegment, VideoSegment

NONE = {"image_to_text_share": 0.0, "text_to_image_share": 0.0}
SMALL = {"image_size": 32, "global_batch_size": 8}


@pytest.fixture
def raw(tmp_path: Path, own_cache: Path) -> dict[str, str]:
    """Paths of ten videos, ten documents of three images and ten texts, as a user has them."""
    place = tmp_path / "raw"
    place.mkdir()
    for number in range(10):
        gif(place / f"{number}.gif", 2 + number)
    table(place / "v.csv", *((f"{n}.gif", f"clip {n}", 1.0) for n in range(10)))
    images(place, *range(10))
    (place / "docs").mkdir()
    rows = (
        document(image(n, 0), image((n + 1) % 10, 2), image((n + 2) % 10, 3)) for n in range(10)
    )
    write(place / "docs.jsonl", *rows)
    (place / "t.txt").write_text("".join(f"text {n}\n" for n in range(10)))
    return {
        "video_path": str(place / "v.csv"),
        "interleaved_path": str(place / "docs.jsonl"),
        "text_path": str(place / "t.txt"),
    }


def thirds(world: WorldSpec, paths: dict[str, str], **options: Any) -> MultimodalMixture:
    shares = {"text_to_video_share": 0.4, "interleaved_share": 0.3, "text_only_share": 0.3}
    return ready(MultimodalMixture(world=world, **NONE, **shares, **SMALL, **paths, **options))


def test_each_form_comes_from_its_own_set(world: WorldSpec, raw: dict[str, str]) -> None:
    data = thirds(world, raw, clips=ClipSpec(num_frames=4), validation_share=0.2)
    seen: dict[str, dict[str, set[str]]] = {}
    for split, loader in (("train", data.train_dataloader()), ("val", data.val_dataloader())):
        found = seen[split] = {"text_to_video": set(), "interleaved": set(), "text_only": set()}
        for batch in islice(loader, 12):
            for one in batch.documents:
                check(one, batch)
                texts = [s.text for s in one.segments if isinstance(s, TextSegment)]
                rows = [s.index for s in one.segments if isinstance(s, ImageSegment)]
                shown = tuple(round(float(batch.images[row, 2].float().mean())) for row in rows)
                found[one.source].add(f"{texts}{shown}")
    for form in ("text_to_video", "text_only"):
        assert (len(seen["train"][form]), len(seen["val"][form])) == (8, 2)
        assert not seen["train"][form] & seen["val"][form]


def check(one: Any, batch: Any) -> None:
    """The segments of a document are those of its form."""
    kinds = [(type(segment), segment.target) for segment in one.segments]
    if one.source == "text_to_video":
        assert kinds == [(TextSegment, False), (VideoSegment, True)]
        text, video = one.segments
        shades = batch.images[list(video.indices)].float().mean(dim=(1, 2, 3))
        assert len(shades) == 4
        assert (
            round((float(shades[-1]) - 10) / 11) == int(text.text.split()[1]) + 1
        )  # its last frame
    elif one.source == "interleaved":
        assert not one.chat
        assert kinds == [(ImageSegment, False), (TextSegment, True)] * 3
        assert one.segments[1].text == "sentence 0. sentence 1."
    else:
        assert kinds == [(TextSegment, True)]
        assert one.segments[0].text.startswith("text ")


def test_prepared_sets_and_their_limits(
    world: WorldSpec, raw: dict[str, str], tmp_path: Path
) -> None:
    kinds = {"video_path": VIDEOS, "interleaved_path": INTERLEAVED, "text_path": TEXTS}
    prepared = {}
    for key, kind in kinds.items():
        prepared[key] = str(tmp_path / kind)
        options = Options(num_frames=6) if kind == VIDEOS else Options()
        prepare(find_source(raw[key], kind=kind), tmp_path / kind, options, kind=kind)
    data = thirds(world, prepared, interleaved_images=2, clips=ClipSpec(seen_frames=3))
    for one in documents(data.train_dataloader()):
        if one.source == "text_to_video":
            assert len(one.segments[1].indices) == 3
        if one.source == "interleaved":
            kept = [type(segment) for segment in one.segments]
            assert kept == [ImageSegment, TextSegment, ImageSegment, TextSegment, TextSegment]
            assert one.segments[-1].text == "sentence 3."
    assert not list((tmp_path / "cache").glob("data-*"))
    with pytest.raises(
        ConfigError, match=r"seen_frames is 7, but .*videos holds clips of 6 frames"
    ):
        list(thirds(world, prepared, clips=ClipSpec(seen_frames=7)).train_dataloader())
    scenes = str(world_set(world, "train", image_size=32).folder)
    for key, kind in (("video_path", VIDEOS), ("interleaved_path", INTERLEAVED)):
        with pytest.raises(DataError, match=rf"samples of kind image_text where {kind} is needed"):
            thirds(world, prepared | {key: scenes})
    wrong = prepared | {"text_path": prepared["video_path"]}
    with pytest.raises(DataError, match=r"samples of kind videos where texts is needed"):
        thirds(world, wrong)


def test_samples_depend_on_seed_epoch_and_index(world: WorldSpec, raw: dict[str, str]) -> None:
    """So a run that goes on in the middle sees what it would have seen, with any number of workers."""
    loader = thirds(world, raw).train_dataloader()
    whole, later = list(loader), list(loader)
    again = thirds(world, raw).train_dataloader()
    assert all(same(a, b) for a, b in zip(islice(again, 5), whole, strict=False))
    resumed = thirds(world, raw, num_workers=2).train_dataloader()
    resumed.load_state_dict(again.state_dict())
    assert all(same(a, b) for a, b in zip(islice(resumed, 3), whole[5:8], strict=True))
    other = list(thirds(world, raw, seed=1).train_dataloader())
    for batches in (later, other):
        assert not any(same(a, b) for a, b in zip(whole, batches, strict=True))


def test_frames_of_a_clip_are_cropped_alike(
    world: WorldSpec, tmp_path: Path, own_cache: Path
) -> None:
    """A ramp from left to right: the crop may lie anywhere, but in all frames of a clip at one place."""
    ramp = torch.arange(128, dtype=torch.uint8).expand(4, 3, 32, 128)
    for number in range(6):
        video_files.write_gif(tmp_path / f"{number}.gif", ramp, fps=5)
    path = table(tmp_path / "v.csv", *((f"{n}.gif", "a ramp", 1.0) for n in range(6)))
    options = {"clips": ClipSpec(num_frames=4), "global_batch_size": 8, "image_size": 32}
    shares = {**NONE, "text_to_video_share": 1.0}
    data = ready(MultimodalMixture(world=world, video_path=str(path), **shares, **options))
    (batch,) = islice(data.train_dataloader(), 1)
    starts = [
        {int(batch.images[row, 0, 0, 0]) for row in document.segments[1].indices}
        for document in batch.documents
    ]
    assert all(len(start) == 1 for start in starts)
    assert len(set.union(*starts)) > 2
    fixed = next(iter(data.val_dataloader()))
    assert {int(value) for value in fixed.images[:, 0, 0, 0]} == {48}


def test_a_batch_of_text_alone(world: WorldSpec, raw: dict[str, str]) -> None:
    data = ready(
        MultimodalMixture(
            world=world, **NONE, text_only_share=1.0, text_path=raw["text_path"], **SMALL
        )
    )
    (batch,) = islice(data.train_dataloader(), 1)
    assert batch.images.shape == (0, 3, 32, 32)
    assert all(one.source == "text_only" for one in batch.documents)


def test_a_users_pairs_with_a_users_texts(photos: Path, raw: dict[str, str]) -> None:
    options = {"path": str(photos), "image_to_text_share": 0.5, "text_to_image_share": 0.0}
    data = ready(
        MultimodalMixture(**options, text_only_share=0.5, text_path=raw["text_path"], **SMALL)
    )
    found = documents(data.train_dataloader())
    assert {one.source for one in found} == {"image_to_text", "text_only"}


@pytest.mark.parametrize(
    ("share", "what", "key"),
    [
        ("text_to_video_share", "clips", "video_path"),
        ("interleaved_share", "interleaved documents", "interleaved_path"),
        ("text_only_share", "texts alone", "text_path"),
    ],
)
def test_forms_that_only_the_drawn_world_has(share: str, what: str, key: str) -> None:
    shares = {"image_to_text_share": 0.4, "text_to_image_share": 0.5, share: 0.1}
    message = (
        rf"data.{share} is 0.1, but data.path photos holds no {what}; name some in data.{key}, or"
    )
    with pytest.raises(ConfigError, match=message):
        MultimodalMixture(path="photos", **shares)


def test_a_set_too_small_to_hold_one_back(
    world: WorldSpec, tmp_path: Path, own_cache: Path
) -> None:
    (tmp_path / "t.txt").write_text("one\n")
    options = {**NONE, "text_only_share": 1.0, "text_path": str(tmp_path / "t.txt")}
    with pytest.raises(ConfigError, match=r"data.text_path .*t.txt holds 1 sample, .*; add some\."):
        ready(MultimodalMixture(world=world, **options))


def test_a_set_whose_share_is_zero_is_not_opened(world: WorldSpec, own_cache: Path) -> None:
    data = ready(MultimodalMixture(world=world, **SMALL, video_path="nowhere.csv"))
    assert len(documents(islice(data.train_dataloader(), 1))) == 8


def test_documents_with_missing_images_are_told(
    world: WorldSpec, tmp_path: Path, own_cache: Path
) -> None:
    (tmp_path / "1.jpg").write_bytes(encoded(picture(1)))
    rows = [document(image(n, 0)) for n in (1, 2)]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = {**NONE, "interleaved_share": 1.0, "interleaved_path": str(tmp_path / "d.jsonl")}
    with pytest.raises(
        DataError, match=r"d.jsonl:2: its image 2.jpg is neither in .* run `vilau data"
    ):
        ready(MultimodalMixture(world=world, **options))
