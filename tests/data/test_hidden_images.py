"""A share of samples whose images are left out: their questions are asked as of who is shown nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.data.test_clip_documents import FEW
from tests.data.test_conversation_forms import IMAGES, folder, read, turns, words  # noqa: F401
from tests.data.test_documents import documents, ready
from vilau.data.batch_mark import _fields, mark_of
from vilau.data.bundle import MARK
from vilau.data.drawn_clips import ClipSpec
from vilau.data.forms import is_drawn, without_marks
from vilau.data.instructions import Instructions
from vilau.data.world_data import WorldSpec
from vilau.errors import ConfigError
from vilau.types import TextSegment, VideoSegment


def test_all_hidden_are_questions_in_words(world: WorldSpec) -> None:
    settings: dict[str, Any] = {
        "world": world, "global_batch_size": 10, "turns_per_image": 3, "exam_share": 0.3, "clips": FEW,
        "video_share": 0.3,
    }  # fmt: skip
    data = ready(Instructions(**settings, hidden_share=1.0))
    asked = Counter()
    for batch in data.train_dataloader():
        assert batch.images.shape == (0, 3, 64, 64)
        assert batch.codes is None
        for document in batch.documents:
            assert document.chat
            targets = [segment.target for segment in document.segments]
            assert targets == [False, True] * (len(targets) // 2)
            asked.update(s.text for s in document.segments if isinstance(s, TextSegment))
    assert any(" doing" in text for text in asked)  # clips are asked about too
    assert any(" color " in text for text in asked)


def test_a_share_is_hidden_and_what_is_drawn_stays(world: WorldSpec) -> None:
    settings: dict[str, Any] = {
        "world": world, "global_batch_size": 10, "turns_per_image": 2, "clips": FEW, "video_share": 0.5,
        "drawing_share": 1.0,
    }  # fmt: skip
    found = documents(ready(Instructions(**settings, hidden_share=0.5)).train_dataloader())
    kinds = Counter(
        "words" if all(isinstance(s, TextSegment) for s in document.segments)
        else "clip" if isinstance(document.segments[0], VideoSegment) else "drawn"
        for document in found
    )  # fmt: skip
    assert sum(kinds.values()) == 100
    assert kinds["words"] == pytest.approx(50, abs=15)
    assert kinds["clip"] == pytest.approx(25, abs=13)
    drawn = [d for d in found if not isinstance(d.segments[-1], TextSegment)]
    assert len(drawn) == kinds["drawn"]
    assert all(document.segments[-1].target for document in drawn)


def test_without_a_share_nothing_changes(world: WorldSpec) -> None:
    settings = {"world": world, "global_batch_size": 10}
    plain = documents(ready(Instructions(**settings)).train_dataloader())
    assert plain == documents(ready(Instructions(**settings, hidden_share=0.0)).train_dataloader())
    batches = ready(Instructions(**settings)).stream("train").make_batch
    assert mark_of(batches) != mark_of(replace(batches, hidden_share=0.1))
    assert "hidden_share" not in str(_fields(batches))  # a run of before the setting is resumed
    with pytest.raises(ConfigError, match=r"data.hidden_share is -0.1; write a share from 0 to 1"):
        Instructions(hidden_share=-0.1)
    with pytest.raises(
        ConfigError,
        match=r"data.hidden_share is 1, so no scene is left of which a share of 0.2 .* write 0 for one of them",
    ):
        Instructions(hidden_share=1.0, drawing_share=0.2)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            {"image": IMAGES[0], "conversations": turns("<image>\nwhat?", "x", "and?", "y")},
            ["what?", "*x", "and?", "*y"],
        ),
        (
            {"image": IMAGES[:2], "conversations": turns("is <image> like <image>?", "no")},
            ["is like ?", "*no"],
        ),
        ({"video": "a.gif", "conversations": turns("<video>\nwhy", "x")}, ["why", "*x"]),
        ({"image": IMAGES[0], "conversations": turns("<image>", "x")}, ["", "*x"]),
        ({"conversations": turns("why", "x")}, ["why", "*x"]),
        # What the model draws is shown to it.
        ({"image": IMAGES[0], "conversations": turns("draw", "<image>")}, ["draw", "*", 0]),
    ],
)
def test_of_files_too(folder: Path, row: dict[str, Any], expected: list[Any]) -> None:  # noqa: F811
    document, batch = read(folder, row, hidden_share=1.0, clips=ClipSpec(num_frames=3))
    assert words(document) == expected
    assert len(batch.images) == sum(isinstance(said, int) for said in expected)


def test_marks() -> None:
    assert without_marks([f"{MARK} what {MARK}", "x"]) == ["what", "x"]
    assert is_drawn(["draw", MARK])
    assert not is_drawn([MARK, "x"])
