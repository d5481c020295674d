"""Several sources of documents in one run: shares, order, resume, validation, codes and refusals."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from vilau.costs.documents import document_forms
from vilau.data.blend import Blend, BlendSource, epoch_plan, shares_of
from vilau.data.instructions import Instructions
from vilau.data.mixture import MultimodalMixture
from vilau.data.world_data import WorldSpec
from vilau.errors import CheckpointError, ConfigError
from vilau.study.stage_cli import StageCLI
from vilau.types import Document, ImageSegment, MultimodalBatch, TextSegment, VideoSegment

DOCS = Path(__file__).resolve().parents[2] / "docs" / "data.md"
READ, DRAW, ASK = (
    WorldSpec(num_train=20, num_val=4),
    WorldSpec(num_train=12, num_val=4),
    WorldSpec(num_train=16, num_val=4),
)


def reading(**settings: Any) -> MultimodalMixture:
    shares = {"image_to_text_share": 1.0, "text_to_image_share": 0.0}
    return MultimodalMixture(image_size=32, world=READ, **{**shares, **settings})


def drawing() -> MultimodalMixture:
    shares = {"image_to_text_share": 0.0, "text_to_image_share": 1.0}
    return MultimodalMixture(image_size=32, world=DRAW, seed=1, **shares)


def asking(**settings: Any) -> Instructions:
    return Instructions(image_size=32, world=ASK, turns_per_image=2, **settings)


def blend(*sources: tuple[float, Any], **settings: Any) -> Blend:
    settings = {"image_size": 32, "global_batch_size": 6, **settings}
    found = Blend([BlendSource(weight, data) for weight, data in sources], **settings)
    found.setup()
    return found


def form(document: Document) -> str:
    """What the three sources give: descriptions, drawings, conversations."""
    if any(isinstance(s, ImageSegment) and s.target for s in document.segments):
        return "draw"
    return "read" if sum(s.target for s in document.segments) == 1 else "ask"


def told(batch: MultimodalBatch) -> tuple[Any, ...]:
    return batch.images.numpy().tobytes(), tuple(batch.documents)


def test_sources_come_by_weight_and_each_sample_once_a_pass() -> None:
    data = blend((3, reading()), (1, drawing()), (2, asking()), samples_per_epoch=24)
    loader = data.train_dataloader()
    assert len(loader) == 4
    epochs = [list(loader) for _ in range(3)]
    for batches in epochs:
        forms = Counter(form(document) for batch in batches for document in batch.documents)
        assert forms == {"read": 12, "draw": 4, "ask": 8}
    # `drawing` holds 12 scenes and gives 4 an epoch: three epochs show each once.
    pictures = [
        batch.images[segment.index].numpy().tobytes()
        for batches in epochs
        for batch in batches
        for document in batch.documents
        for segment in document.segments
        if isinstance(segment, ImageSegment) and segment.target
    ]
    assert len(set(pictures)) == len(pictures) == 12
    # Sources are mixed, not one after another, and differently in each epoch.
    plans = [epoch_plan((12, 4, 8), 0, epoch)[0].tolist() for epoch in range(2)]
    assert plans[0] != plans[1]
    assert plans[0] != sorted(plans[0])
    assert [told(b) for b in epochs[0]] != [told(b) for b in epochs[1]]


def test_each_pass_through_a_source_has_an_order_of_its_own() -> None:
    # Twelve drawings an epoch: each epoch of the blend is one pass through the source's own twelve scenes.
    loader = blend((1, drawing()), (1, reading()), samples_per_epoch=24).train_dataloader()

    def drawn_in_order() -> list[bytes]:
        return [
            batch.images[segment.index].numpy().tobytes()
            for batch in loader
            for document in batch.documents
            for segment in document.segments
            if isinstance(segment, ImageSegment) and segment.target
        ]

    first, second = drawn_in_order(), drawn_in_order()
    assert set(first) == set(second)
    assert len(first) == 12
    assert first != second


def test_a_document_shows_the_picture_it_is_about() -> None:
    alone = asking()
    alone.setup()
    stream = alone.stream("train")
    known = {}
    for index in stream.indices.tolist():
        batch = stream.make_batch(0, np.array([index]))
        known[batch.documents[0].segments[-1]] = batch.images[0]
    both = blend((1, reading()), (1, asking()), samples_per_epoch=32)
    found = 0
    for batch in both.train_dataloader():
        for document in batch.documents:
            picture = known.get(document.segments[-1])
            shown = next(s for s in document.segments if isinstance(s, ImageSegment))
            if form(document) == "ask" and picture is not None:
                found += bool(torch.equal(batch.images[shown.index], picture))
    assert found >= 8


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stopped_run_goes_on_with_exactly_the_rest(workers: int) -> None:
    sources = (2, reading()), (1, drawing()), (1, asking())
    whole = blend(*sources, samples_per_epoch=24).train_dataloader()
    expected = [told(batch) for _ in range(2) for batch in whole]
    first = blend(*sources, samples_per_epoch=24).train_dataloader()
    seen = []
    for batch in first:
        seen.append(told(batch))
        if len(seen) == 3:
            break
    again = blend(*sources, samples_per_epoch=24, num_workers=workers).train_dataloader()
    again.load_state_dict(first.state_dict())
    for batch in again:
        seen.append(told(batch))
        if len(seen) == len(expected):
            break
    assert seen == expected


def test_a_checkpoint_of_another_blend_is_refused() -> None:
    state = (
        blend((2, reading()), (1, asking()), samples_per_epoch=24).train_dataloader().state_dict()
    )
    for other in (
        blend((1, reading()), (1, asking()), samples_per_epoch=24),
        blend((2, reading()), (1, asking(exam_share=0.5)), samples_per_epoch=24),
        blend((2, reading(seed=1)), (1, asking()), samples_per_epoch=24),
    ):
        with pytest.raises(CheckpointError, match="other training data"):
            other.train_dataloader().load_state_dict(state)


def test_validation_shows_every_held_sample_of_every_source_once() -> None:
    data = blend((9, reading()), (1, asking()))
    batches = list(data.val_dataloader())
    forms = Counter(form(document) for batch in batches for document in batch.documents)
    assert forms == {"read": 4, "ask": 4}
    assert [told(b) for b in batches] == [told(b) for b in data.val_dataloader()]


def test_joined_batches_keep_pixels_codes_and_clips_apart() -> None:
    def batch(
        pixels: int, documents: list[Document], codes: torch.Tensor | None
    ) -> MultimodalBatch:
        return MultimodalBatch(torch.full((pixels, 3, 2, 2), pixels), documents, codes=codes)

    text = TextSegment("a", target=True)
    coded = torch.arange(12).reshape(2, 3, 2)
    found = MultimodalBatch.joined([
        batch(3, [Document((VideoSegment((0, 2)), ImageSegment(1), text))], None),
        batch(0, [Document((ImageSegment(1), text), source="b")], coded),
        batch(0, [Document((text,))], None),
        batch(1, [Document((ImageSegment(0), text))], None),
    ])  # fmt: skip
    assert [d.segments for d in found.documents] == [
        (VideoSegment((0, 2)), ImageSegment(1), text), (ImageSegment(4), text), (text,), (ImageSegment(5), text),
    ]  # fmt: skip
    assert found.documents[1].source == "b"
    assert found.num_images == 6
    assert found.codes is not None
    # Rows of -1 stand for images that come as pixels, in order: three of the first batch, one of the last.
    assert (found.codes[[0, 1, 2, 5]] == -1).all()
    assert torch.equal(found.codes[3:5], coded)
    assert found.images[:, 0, 0, 0].tolist() == [3, 3, 3, 1]


def test_shares_add_up() -> None:
    assert shares_of(10, [1, 1, 1]) == (4, 3, 3)
    assert shares_of(10, [0.7, 0.2, 0.1]) == (7, 2, 1)
    assert sum(shares_of(101, [3, 5, 11, 0.2])) == 101


def test_what_makes_no_sense_is_told() -> None:
    with pytest.raises(ConfigError, match=r"data\.sources is empty; name at least one"):
        blend()
    with pytest.raises(
        ConfigError, match=r"data\.sources\[1\]\.weight is 0; write a number above 0"
    ):
        blend((1, reading()), (0, asking()))
    with pytest.raises(
        ConfigError, match=r"sources\[0\]\.data\.image_size is 32, but data\.image_size is 64"
    ):
        blend((1, reading()), image_size=64)
    with pytest.raises(ConfigError, match="samples_per_epoch is 1; write at least 2"):
        blend((1, reading()), (1, asking()), samples_per_epoch=1)
    few = blend((1000, reading()), (1, asking()), samples_per_epoch=24)
    with pytest.raises(
        ConfigError, match=r"sources\[1\]\.weight is 1, which gives it less than one of"
    ):
        few.train_dataloader()


def test_the_config_of_the_docs_says_what_it_seems_to_say() -> None:
    (text,) = re.findall(
        r"```yaml\n(data:\n  class_path: \S*Blend\n.*?)```", DOCS.read_text(), re.DOTALL
    )
    model = {
        "class_path": "vilau.training.finetune.SupervisedFineTuning", "init_args": {"checkpoint": "none"},
    }  # fmt: skip
    config = {"model": model, **yaml.safe_load(text), "trainer": {"max_steps": 1}}
    data = StageCLI(config).config.data.init_args
    assert [source.weight for source in data.sources] == [3, 1]
    assert [source.data.class_path.split(".")[-1] for source in data.sources] == [
        "Instructions", "MultimodalMixture",
    ]  # fmt: skip
    assert data.sources[1].data.init_args.text_to_image_share == 0.8
    forms = document_forms(config)
    assert sum(form.share for form in forms) == pytest.approx(1)
    alone = {**config, "data": config["data"]["init_args"]["sources"][1]["data"]}
    assert [form.share * 0.25 for form in document_forms(alone)] == [
        form.share for form in forms[-len(document_forms(alone)) :]
    ]
    config["data"]["init_args"]["sources"][1]["wieght"] = 1
    with pytest.raises(ConfigError, match="has none of that name. Did you mean `weight`"):
        StageCLI(config)
