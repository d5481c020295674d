"""The mixture and the instructions: what their documents look like."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.conftest import encoded, picture
from vilau.data.captions import PromptSpec
from vilau.data.forms import DESCRIBE
from vilau.data.instructions import Instructions
from vilau.data.mixing.batches import FACTS
from vilau.data.mixture import MultimodalMixture
from vilau.data.preparing.prepare import CONVERSATIONS, Options, prepare
from vilau.data.sources.forms import find_source
from vilau.data.world_data import WorldSpec, world_set
from vilau.errors import ConfigError, DataError
from vilau.types import Document, ImageSegment, MultimodalBatch, TextSegment
from vilau.world.questions import FAMILIES, questions
from vilau.world.scene import Scene, stream_rng


def ready(data: MultimodalMixture | Instructions) -> MultimodalMixture | Instructions:
    data.prepare_data()
    data.setup("fit")
    return data


def documents(batches: Iterable[MultimodalBatch]) -> list[Document]:
    found = []
    for batch in batches:
        for document in batch.documents:
            for segment in document.segments:
                if isinstance(segment, ImageSegment):
                    assert 0 <= segment.index < len(batch.images)
        found += batch.documents
    return found


def same(first: MultimodalBatch, second: MultimodalBatch) -> bool:
    return torch.equal(first.images, second.images) and first.documents == second.documents


# ------------------------------------------------------------------ mixture


def test_forms_and_their_shares(world: WorldSpec) -> None:
    data = ready(
        MultimodalMixture(
            world=replace(world, num_train=400), global_batch_size=16,
            image_to_text_share=0.5, text_to_image_share=0.3, text_only_share=0.2,
        )
    )  # fmt: skip
    found = documents(data.train_dataloader())
    assert len(found) == 400
    for document in found:
        parts = document.segments
        if document.source == "image_to_text":
            assert isinstance(parts[0], ImageSegment)
            assert not parts[0].target
            assert parts[1] == TextSegment(DESCRIBE)
            assert isinstance(parts[2], TextSegment)
            assert parts[2].target
        elif document.source == "text_to_image":
            assert isinstance(parts[0], TextSegment)
            assert not parts[0].target
            assert isinstance(parts[1], ImageSegment)
            assert parts[1].target
        else:
            (text,) = parts
            assert text == TextSegment(text.text, target=True)
            assert text.text in FACTS
    shares = Counter(document.source for document in found)
    assert shares["image_to_text"] == pytest.approx(200, abs=35)
    assert shares["text_only"] == pytest.approx(80, abs=30)


def test_images_belong_to_their_texts(world: WorldSpec) -> None:
    data = ready(MultimodalMixture(world=world, global_batch_size=16, image_to_text_share=1.0,
                                   text_to_image_share=0.0))  # fmt: skip
    truth = world_set(world, "train", image_size=64)
    by_pixels = {}
    for record in truth.read(range(len(truth))):
        scene = Scene.from_json(record.scene)
        by_pixels[_pixels_of(record.image)] = scene
    for batch in islice(data.train_dataloader(), 2):
        for document in batch.documents:
            image, _, caption = document.segments
            pixels = batch.images[image.index].permute(1, 2, 0).numpy().tobytes()
            for thing in by_pixels[pixels].things:
                assert f"{thing.color} {thing.shape}" in caption.text


def _pixels_of(data: bytes) -> bytes:
    from vilau.data.media.images import open_rgb

    return np.asarray(open_rgb(data)).tobytes()


def test_mixtures_are_deterministic_and_their_validation_fixed(world: WorldSpec) -> None:
    options = {"world": world, "global_batch_size": 16, "num_val_samples": 31}
    first, second = (ready(MultimodalMixture(**options)) for _ in range(2))
    pairs = zip(first.train_dataloader(), second.train_dataloader(), strict=True)
    assert all(same(a, b) for a, b in pairs)
    fixed = first.val_dataloader()
    assert all(same(a, b) for a, b in zip(fixed, fixed, strict=True))
    shares = Counter(document.source for document in documents(fixed))
    assert shares == {"image_to_text": 16, "text_to_image": 15}


def test_what_is_asked_for(world: WorldSpec) -> None:
    def prompts(spec: PromptSpec) -> list[str]:
        data = MultimodalMixture(
            world=world, global_batch_size=50, image_to_text_share=0, text_to_image_share=1,
            prompts=spec,
        )  # fmt: skip
        found = documents(ready(data).train_dataloader())
        return [document.segments[0].text for document in found]

    assert np.mean([len(text.split()) for text in prompts(PromptSpec(1.0, 0.0))]) > 12
    assert max(len(text.split()) for text in prompts(PromptSpec(0.0, 1.0))) <= 5
    skills = prompts(PromptSpec(0.0, 0.0))
    assert any(text.startswith(("two", "three")) for text in skills)


def test_shares_must_sum_to_one() -> None:
    with pytest.raises(
        ConfigError, match=r"text_to_image_share 0.5, .* which sum to 1.2; write sh"
    ):
        MultimodalMixture(image_to_text_share=0.7)


def test_a_users_pairs(photos: Path, own_cache: Path) -> None:
    data = ready(MultimodalMixture(path=str(photos), image_size=16, global_batch_size=9))
    found = documents(data.train_dataloader())
    texts = {s.text for d in found for s in d.segments if isinstance(s, TextSegment)} - {DESCRIBE}
    assert len(texts) == 18
    assert all(text.startswith("photo number") for text in texts)


# ------------------------------------------------------------------ instructions


def test_conversations_about_a_scene(world: WorldSpec) -> None:
    data = ready(Instructions(world=world, global_batch_size=10, turns_per_image=3))
    found = documents(data.train_dataloader())
    assert len(found) == 100
    for document in found:
        assert document.chat
        assert isinstance(document.segments[0], ImageSegment)
        turns = document.segments[1:]
        assert 2 <= len(turns) <= 6
        assert [turn.target for turn in turns] == [False, True] * (len(turns) // 2)
        assert len({turn.text for turn in turns[::2]}) == len(turns) // 2


def test_questions_that_stand_alone(world: WorldSpec) -> None:
    """The same questions as in conversations, each a document that shows the picture itself."""
    settings = {"world": world, "global_batch_size": 10, "turns_per_image": 3, "video_share": 0.2}
    together = ready(Instructions(**settings))
    apart = ready(Instructions(**settings, single_turn_share=1.0))
    for talks, alone in zip(together.val_dataloader(), apart.val_dataloader(), strict=True):
        turns = []
        for document in talks.documents:
            shown, *said = document.segments
            turns += [(shown, *said[n : n + 2]) for n in range(0, len(said), 2)]
        assert [document.segments for document in alone.documents] == turns
        assert all(document.chat for document in alone.documents)
        assert torch.equal(talks.images, alone.images)
    half = documents(ready(Instructions(**settings, single_turn_share=0.5)).train_dataloader())
    singles = sum(len(document.segments) == 3 for document in half)
    assert 80 < singles < len(half) - 20
    with pytest.raises(ConfigError, match=r"data.single_turn_share is 2; write a share from 0 to"):
        Instructions(single_turn_share=2)


def test_answers_are_true_and_families_balanced(world: WorldSpec) -> None:
    data = ready(Instructions(world=world, global_batch_size=10))
    truth = world_set(world, "train", image_size=64)
    by_pixels = {_pixels_of(r.image): Scene.from_json(r.scene) for r in truth.read(range(100))}
    families: Counter[str] = Counter()
    for batch in data.train_dataloader():
        for document in batch.documents:
            pixels = batch.images[document.segments[0].index].permute(1, 2, 0).numpy().tobytes()
            # Which questions are possible depends on the generator: gather over some.
            scene, known = by_pixels[pixels], {}
            for number in range(30):
                asked = questions(scene, stream_rng("test", number))
                known |= {q.question: (q.answer, q.family) for q in asked}
            turns = document.segments[1:]
            for question, answer in zip(turns[::2], turns[1::2], strict=True):
                if question.text in known:
                    assert known[question.text][0] == answer.text
                    families[known[question.text][1]] += 1
    assert sum(families.values()) > 300
    assert len(families) >= 9
    assert set(families) <= set(FAMILIES)
    assert families.most_common(1)[0][1] < 0.25 * sum(families.values())


def test_new_questions_each_epoch_and_the_same_each_time(world: WorldSpec) -> None:
    options = {"world": world, "global_batch_size": 10}
    loader = ready(Instructions(**options)).train_dataloader()
    again = ready(Instructions(**options)).train_dataloader()
    first, second = list(loader), list(loader)
    assert all(same(a, b) for a, b in zip(first, again, strict=True))

    def asked(batches: list[MultimodalBatch]) -> dict[bytes, tuple[str, ...]]:
        return {
            batch.images[d.segments[0].index].numpy().tobytes(): tuple(
                s.text for s in d.segments[1:]
            )
            for batch in batches
            for d in batch.documents
        }

    one, two = asked(first), asked(second)
    assert one.keys() == two.keys()
    assert sum(one[image] != two[image] for image in one) > 90


def test_a_share_of_drawing(world: WorldSpec) -> None:
    data = ready(Instructions(world=world, global_batch_size=10, drawing_share=0.5))
    found = documents(data.train_dataloader())
    drawing = [d for d in found if isinstance(d.segments[-1], ImageSegment)]
    assert all(d.segments[-1].target and not d.segments[0].target for d in drawing)
    assert len(drawing) == pytest.approx(50, abs=18)
    with pytest.raises(ConfigError, match=r"data.drawing_share is 3; write a share from 0 to 1"):
        Instructions(drawing_share=3)
    with pytest.raises(ConfigError, match=r"data.turns_per_image is 0; write at least 1"):
        Instructions(turns_per_image=0)


def llava(tmp_path: Path) -> list[dict[str, object]]:
    (tmp_path / "images").mkdir(exist_ok=True)
    rows: list[dict[str, object]] = []
    for number in range(6):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(encoded(picture(number)))
        turns = [
            {"from": "human", "value": f"<image>\nwhat is in picture {number}?"},
            {"from": "gpt", "value": f"a ramp {number}"},
            {"from": "human", "value": "and its colour?"},
            {"from": "gpt", "value": "many"},
        ]
        rows.append({"id": number, "image": f"{number}.jpg", "conversations": turns})
    rows.append(
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]}
    )
    return rows


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_a_users_conversations(tmp_path: Path, own_cache: Path, suffix: str) -> None:
    rows = llava(tmp_path)
    file = tmp_path / f"chat.{suffix}"
    file.write_text(json.dumps(rows) if suffix == "json" else "\n".join(map(json.dumps, rows)))
    data = Instructions(
        path=str(file), image_folder=str(tmp_path / "images"), image_size=16, global_batch_size=6,
        validation=str(file),
    )  # fmt: skip
    found = documents(ready(data).val_dataloader())
    assert len(found) == 7
    with_image = [d for d in found if isinstance(d.segments[0], ImageSegment)]
    assert len(with_image) == 6
    for document in with_image:
        texts = [(s.text, s.target) for s in document.segments[1:]]
        number = texts[1][0][-1]
        assert texts == [
            (f"what is in picture {number}?", False), (f"a ramp {number}", True),
            ("and its colour?", False), ("many", True),
        ]  # fmt: skip
    (text_only,) = [d for d in found if not isinstance(d.segments[0], ImageSegment)]
    assert text_only.segments == (TextSegment("hi"), TextSegment("ho", target=True))
    source = find_source(str(file), kind=CONVERSATIONS, image_folder=str(tmp_path / "images"))
    prepare(source, tmp_path / "shards", Options(), kind=CONVERSATIONS)
    shards = ready(Instructions(path=str(tmp_path / "shards"), global_batch_size=6, image_size=16))
    assert len(documents(shards.train_dataloader())) == 6
    with pytest.raises(DataError, match=r"shards holds samples of kind instructions where image_t"):
        ready(MultimodalMixture(path=str(tmp_path / "shards")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": "gone.jpg"}, r"conversation 1: its image .*gone.jpg does not exist; complete"),
        (
            {"image": 3},
            r"conversation 1 has the image 3; write the path of one image file or a list",
        ),
        ({"image": ["a", 2]}, r"conversation 1 has the image \['a', 2\]; write the path of one"),
        ({"images": ["a"]}, r"conversation 1 has the image image and images; write"),
        (
            {"image": ["0.jpg", "1.jpg"]},
            r"1 has 1 <image> and 0 <video> marks for 2 images and 0 vid",
        ),
        ({"image": None}, r"conversation 1 has 1 <image> and 0 <video> marks for 0 images"),
        ({"video": "a.mp4"}, r"conversation 1: its video .*a.mp4 does not exist; complete"),
        ({"conversations": "x"}, r"conversation 1 has no list named conversations; add one"),
        (
            {"conversations": [{"from": "system", "value": "x"}]},
            r"conversation 1 has a turn from 'system'; write from: human or gpt",
        ),
        (
            {"conversations": [{"from": "human", "value": "x"}]},
            r"conversation 1 has no gpt turn; add the answer",
        ),
        (
            {"conversations": [{"from": "gpt", "value": "x"}]},
            r"conversation 1 has the turn of 'gpt' at place 1; write turns of human and gpt in turn",
        ),
    ],
)
def test_broken_conversations(
    tmp_path: Path, own_cache: Path, change: dict[str, object], message: str
) -> None:
    rows = llava(tmp_path)
    rows[0] |= change
    (tmp_path / "chat.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match=message):
        ready(Instructions(path=str(tmp_path / "chat.json"), image_folder=str(tmp_path / "images")))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"chat.json is no JSON"),
        ("[1]", r"chat.json holds no list of objects; write"),
        ("[]", r"chat.json holds no conversations; add some"),
    ],
)
def test_files_that_hold_no_conversations(
    tmp_path: Path, own_cache: Path, content: str, message: str
) -> None:
    (tmp_path / "chat.json").write_text(content)
    with pytest.raises(DataError, match=message):
        ready(Instructions(path=str(tmp_path / "chat.json")))
    (tmp_path / "chat.json").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match=r"chat.json is no UTF-8 text"):
        ready(Instructions(path=str(tmp_path / "chat.json")))
    with pytest.raises(DataError, match=r"is a folder; give the .json or .jsonl file"):
        ready(Instructions(path=str(tmp_path)))
