"""Conversations with several images, with images and clips inside, with pictures to draw."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.conftest import encoded, picture
from tests.data.test_documents import documents, ready
from tests.data.test_media_video import gif
from vilau.data.bundle import MARK
from vilau.data.drawn_clips import ClipSpec
from vilau.data.instructions import Instructions
from vilau.data.media.images import open_rgb
from vilau.data.preparing.prepare import Options, prepare
from vilau.data.shards import ShardSet
from vilau.data.sources.forms import CONVERSATIONS, find_source
from vilau.errors import ConfigError, DataError
from vilau.types import Document, ImageSegment, MultimodalBatch, TextSegment, VideoSegment


def turns(*texts: str) -> list[dict[str, str]]:
    roles = ("human", "gpt")
    return [{"from": roles[n % 2], "value": text} for n, text in enumerate(texts)]


@pytest.fixture
def folder(tmp_path: Path, own_cache: Path) -> Path:
    """Images 1.jpg to 3.jpg in a folder of their own, and a clip of four frames in another."""
    (tmp_path / "coco").mkdir()
    (tmp_path / "clips").mkdir()
    for number in (1, 2, 3):
        (tmp_path / "coco" / f"{number}.jpg").write_bytes(encoded(picture(3 * number)))
    gif(tmp_path / "clips" / "a.gif", 4)
    return tmp_path


def read(folder: Path, row: dict[str, Any], **options: Any) -> tuple[Document, MultimodalBatch]:
    """The one document of a conversation, and its batch."""
    file = folder / "chat.json"
    file.write_text(json.dumps([row, row]))
    folders = {"image_folder": str(folder), "video_folder": str(folder / "clips")}
    data = Instructions(path=str(file), image_size=12, global_batch_size=1, **folders, **options)
    (batch,) = islice(ready(data).train_dataloader(), 1)
    (document,) = documents([batch])
    return document, batch


def words(document: Document) -> list[str | int | tuple[int, ...]]:
    """Segments in short: what is said, rows of images and clips; ``*`` begins what is learnt."""
    found: list[Any] = []
    for segment in document.segments:
        if isinstance(segment, TextSegment):
            found.append("*" * segment.target + segment.text)
        else:
            found += ["*"] * segment.target
            found.append(segment.index if isinstance(segment, ImageSegment) else segment.indices)
    return found


IMAGES = ["coco/1.jpg", "coco/2.jpg", "coco/3.jpg"]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        # Where the marks are is where the images stand.
        (
            {"image": IMAGES[:2], "conversations": turns("<image>\n<image>\nsame?", "no")},
            [0, 1, "same?", "*no"],
        ),
        (
            {"image": IMAGES[:2], "conversations": turns("is <image> like <image>?", "no")},
            ["is", 0, "like", 1, "?", "*no"],
        ),
        (
            {"images": IMAGES, "conversations": turns("<image> a", "b", "<image> <image> c", "d")},
            [0, "a", "*b", 1, 2, "c", "*d"],
        ),
        ({"image": IMAGES[0], "conversations": turns("what\n<image>", "x")}, ["what", 0, "*x"]),
        ({"image": IMAGES[0], "conversations": turns("a", "b", "<image>", "c")}, ["a", "*b", 0, "*c"]),
        # A mark in an answer is a picture to draw.
        ({"image": IMAGES[0], "conversations": turns("draw", "<image>")}, ["draw", "*", 0]),
        (
            {"image": IMAGES[:2], "conversations": turns("<image> in red", "here: <image>", "ty", "np")},
            [0, "in red", "*here:", "*", 1, "ty", "*np"],
        ),
        # One image that no mark places, or whose mark leads, comes first.
        ({"image": IMAGES[0], "conversations": turns("what", "x")}, [0, "what", "*x"]),
        ({"image": [IMAGES[0]], "conversations": turns(" <image>\nwhat ", "x ")}, [0, "what", "*x"]),
        ({"image": IMAGES[0], "conversations": turns("<image>", "x")}, [0, "", "*x"]),
        # Clips, in either spelling of their mark.
        ({"video": "a.gif", "conversations": turns("<video>\nwhat", "x")}, [(0, 1, 2), "what", "*x"]),
        ({"video": "a.gif", "conversations": turns("what", "x")}, [(0, 1, 2), "what", "*x"]),
        ({"video": "a.gif", "conversations": turns("why <image>", "x")}, ["why", (0, 1, 2), "*x"]),
        (
            {"video": "a.gif", "image": IMAGES[0], "conversations": turns("<image> in <video>?", "x")},
            [0, "in", (1, 2, 3), "?", "*x"],
        ),
        # Text alone; there <video> is a word.
        ({"conversations": turns("what is <video>", "a tag")}, ["what is <video>", "*a tag"]),
        ({"image": [], "conversations": turns("a", "b", "c", "d")}, ["a", "*b", "c", "*d"]),
        ({"image": IMAGES[:2], "conversations": turns(f"<image>{MARK}<image>", "x")}, [0, 1, "*x"]),
    ],
)  # fmt: skip
def test_forms_of_conversations(folder: Path, row: dict[str, Any], expected: list[Any]) -> None:
    document, batch = read(folder, row, clips=ClipSpec(num_frames=3))
    assert words(document) == expected
    assert document.chat
    assert len(batch.images) == sum(
        len(x) if isinstance(x, tuple) else isinstance(x, int) for x in expected
    )


def test_images_are_those_that_are_named(folder: Path) -> None:
    row = {"image": [IMAGES[2], IMAGES[0]], "conversations": turns("<image> <image>", "x")}
    _, batch = read(folder, row)
    blue = batch.images[:, 2].float().mean(dim=(1, 2))
    assert blue.tolist() == pytest.approx([0.9 * 255, 0.3 * 255], abs=4)


def test_frames_of_a_clip(folder: Path) -> None:
    row = {"video": "a.gif", "conversations": turns("<video> what", "x")}
    _, batch = read(folder, row, clips=ClipSpec(num_frames=4, seen_frames=2))
    shades = batch.images.float().mean(dim=(1, 2, 3))
    assert [round((shade - 10) / 11) for shade in shades.tolist()] == [0, 3]


def test_shards_hold_what_they_were_prepared_with(folder: Path) -> None:
    row = {"video": "a.gif", "conversations": turns("<video> what", "x")}
    (folder / "chat.json").write_text(json.dumps([row, row, {"conversations": turns("a", "b")}]))
    source = find_source(
        str(folder / "chat.json"), kind=CONVERSATIONS, video_folder=str(folder / "clips")
    )
    assert "2 of them with several images, with one inside, or with a clip" in source.title
    prepare(source, folder / "out", Options(num_frames=3), kind=CONVERSATIONS)
    data = Instructions(path=str(folder / "out"), image_size=12, global_batch_size=2)
    frames = [
        x
        for d in documents(ready(data).train_dataloader())
        for x in d.segments
        if isinstance(x, VideoSegment)
    ]
    assert all(len(x.indices) == 3 for x in frames)
    data = Instructions(
        path=str(folder / "out"), image_size=12, global_batch_size=2, clips=ClipSpec(seen_frames=4)
    )
    with pytest.raises(
        ConfigError, match=r"seen_frames is 4, but .*out holds clips of 3 frames; write at most 3"
    ):
        list(ready(data).train_dataloader())


def test_one_bad_image_takes_its_conversation_out(folder: Path) -> None:
    """Not the image alone: the question is about it."""
    (folder / "coco" / "2.jpg").write_bytes(b"broken")
    rows = [
        {"image": IMAGES[:2], "conversations": turns("<image> <image> same?", "no")},
        {"image": IMAGES[::2], "conversations": turns("<image> <image> same?", "yes")},
    ]  # fmt: skip
    (folder / "chat.json").write_text(json.dumps(rows))
    source = find_source(str(folder / "chat.json"), kind=CONVERSATIONS, image_folder=str(folder))
    result = prepare(source, folder / "out", Options(max_unreadable=0.5), kind=CONVERSATIONS)
    assert (result.count, result.spec["unreadable"]) == (1, 1)
    (record,) = ShardSet(folder / "out").read([0])
    assert record.texts[1] == "yes"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"image": IMAGES, "conversations": turns("<image> and <image>", "x")},
            r"conversation 1 has 2 <image> and 0 <video> marks for 3 images and 0 videos; write one mark",
        ),
        (
            {"image": IMAGES[:2], "conversations": turns("which", "x")},
            r"has 0 <image> and 0 <video> marks for 2 images and 0 videos",
        ),
        (
            {"image": IMAGES[0], "conversations": turns("<image>", "<image>")},
            r"has 2 <image> and 0 <video> marks for 1 images",
        ),
        ({"conversations": turns("<image> what", "x")}, r"1 <image> and 0 <video> marks for 0 images"),
        (
            {"video": "a.gif", "conversations": turns("<video> <video>", "x")},
            r"has 0 <image> and 2 <video> marks for 0 images and 1 videos",
        ),
        (
            {"video": "a.gif", "image": IMAGES[0], "conversations": turns("<image> x", "x")},
            r"has 1 <image> and 0 <video> marks for 1 images and 1 videos",
        ),
        ({"video": "b.gif", "conversations": turns("a", "x")}, r"its video .*b.gif does not exist"),
        ({"image": [*IMAGES, "4.jpg"], "conversations": turns("a", "x")}, r"image .*4.jpg does not"),
        ({"video": 1, "conversations": turns("a", "x")}, r"has the video 1; write the path of one vid"),
    ],
)  # fmt: skip
def test_marks_and_files_must_agree(folder: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(folder, row)
    assert not list((folder / "cache").glob("data-*/manifest.json"))


def test_a_video_without_frames_is_skipped(folder: Path) -> None:
    (folder / "clips" / "b.gif").write_bytes(b"GIF89a")
    rows = [
        {"video": name, "conversations": turns("<video> what", name)} for name in ("a.gif", "b.gif")
    ]
    (folder / "chat.json").write_text(json.dumps(rows))
    source = find_source(
        str(folder / "chat.json"), kind=CONVERSATIONS, video_folder=str(folder / "clips")
    )
    result = prepare(source, folder / "out", Options(max_unreadable=0.5), kind=CONVERSATIONS)
    assert result.spec["unreadable"] == 1
    assert "b.gif cannot be read as a video" in (folder / "out" / "unreadable.txt").read_text()


def test_a_single_leading_image_is_stored_as_ever(folder: Path) -> None:
    """Sets of such conversations are the files they were before there were others."""
    row = {"image": IMAGES[0], "conversations": turns("<image>\nwhat", "x")}
    (folder / "chat.json").write_text(json.dumps([row]))
    source = find_source(str(folder / "chat.json"), kind=CONVERSATIONS, image_folder=str(folder))
    assert source.title == f"conversations in {folder / 'chat.json'}"
    prepare(source, folder / "out", Options(), kind=CONVERSATIONS)
    (record,) = ShardSet(folder / "out").read([0])
    assert record.image == (folder / IMAGES[0]).read_bytes()
    assert np.asarray(open_rgb(record.image)).shape == (30, 40, 3)
    assert record.texts == ("what", "x")


def test_descriptions_in_conversations_are_pairs(folder: Path) -> None:
    """ShareGPT4V's captions, to be read or drawn from."""
    rows = [
        {"image": IMAGES[0], "conversations": turns("<image>\nDescribe it.", "A long road.")},
        {"image": IMAGES[1], "conversations": turns("What is it?\n<image>", "A blue field.")},
        {"image": IMAGES[2], "conversations": turns("<image>\nq", "a", "q", "b")},
        {"image": IMAGES[2], "conversations": turns("draw a road", "<image>")},
        {"conversations": turns("hello", "hello")},
    ]
    file = folder / "captions.json"
    file.write_text(json.dumps(rows))
    source = find_source(str(file), image_folder=str(folder))
    assert source.title == f"descriptions in {file}"
    assert [item.texts for item in source.items] == [("A long road.",), ("A blue field.",)]
    first, second = (item.image for item in source.items)
    assert [str(folder / name) for name in IMAGES[:2]] == [first.path, second.path]
    assert [reason for _, reason in source.unpaired] == [
        "it is not one question about one image"
    ] * 3
    file.write_text(json.dumps(rows[2:]))
    with pytest.raises(DataError, match=r"captions.json has no conversation of one question about"):
        find_source(str(file), image_folder=str(folder))
