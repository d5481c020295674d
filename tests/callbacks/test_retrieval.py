"""Retrieval of a tower: equal to loops written out, with texts that are true of several images."""

import pytest
import torch

from tests.callbacks.toys import Mute, Toy, loader, trainer
from tests.models import tiny
from tests.training import toys
from vilau.callbacks.retrieval import Retrieval, text_keys
from vilau.data.captions import TextTruth
from vilau.errors import ConfigError
from vilau.layers.pixels import to_float
from vilau.types import EmbedsImages, ImageTextBatch
from vilau.world.language import true_phrases
from vilau.world.scene import Scene, Thing

LOOKS = [
    [("red", "star")], [("blue", "ring")], [("red", "ring")], [("green", "star"), ("red", "circle")],
    [("blue", "star")], [("white", "circle")], [("red", "star"), ("blue", "ring")], [("green", "ring")],
]  # fmt: skip
TEXTS = [
    "a star", "a ring", "a red thing", "a star", "a blue star", "a circle on grass", "a star", "a ring",
]  # fmt: skip


def scenes() -> list[Scene]:
    return [
        Scene(
            things=tuple(Thing(s, c, "small", "solid", 9.0, 9.0, 4.0) for c, s in looks),
            background="grass",
            image_size=64,
        )
        for looks in LOOKS
    ]


def batches(known: bool) -> list[ImageTextBatch]:
    images = tiny.images(8, seed=5)
    parts = (slice(0, 3), slice(3, 8))
    return [
        ImageTextBatch(images[p], TEXTS[p], truth=TextTruth(scenes()[p]) if known else None)
        for p in parts
    ]


@torch.no_grad()
def by_hand(module, known: bool) -> dict[str, float]:
    """One question and one answer at a time."""
    images = list(tiny.images(8, seed=5))
    texts = sorted(set(TEXTS))
    quantized = [module.tower.quantize(to_float(image[None])).features for image in images]
    seen = [module.tower.pooled(features)[0] for features in quantized]
    read = [module.tower.text_features([text])[0] for text in texts]

    def goes(i: int, j: int) -> bool:
        paired = any(text == texts[j] and row == i for row, text in enumerate(TEXTS))
        return paired or (known and texts[j] in true_phrases(scenes()[i]))

    found = {}
    for k in (1, 2, 5):
        hits = []
        for i, feature in enumerate(seen):
            order = sorted(range(len(texts)), key=lambda j: -float(feature @ read[j]))
            hits.append(any(goes(i, j) for j in order[:k]))
        found[f"val/retrieval_image_to_text_r{k}"] = sum(hits) / len(hits)
        hits = []
        for j, feature in enumerate(read):
            order = sorted(range(len(images)), key=lambda i: -float(feature @ seen[i]))
            hits.append(any(goes(i, j) for i in order[:k]))
        found[f"val/retrieval_text_to_image_r{k}"] = sum(hits) / len(hits)
    return found


@pytest.mark.parametrize("known", [False, True], ids=["pairs alone", "truth known"])
def test_equals_plain_loops_over_images_and_texts(tmp_path, known) -> None:
    module = toys.tower(tmp_path)
    module.tower.load_state_dict(tiny.tower(seed=3).state_dict())
    assert isinstance(module, EmbedsImages)
    callback = Retrieval(ks=(1, 2, 5))
    run = trainer(tmp_path, callback)
    (values,) = run.validate(module, loader(*batches(known)), verbose=False)
    expected = by_hand(module.eval(), known)
    for name, value in expected.items():
        assert values[name] == pytest.approx(value), name
    assert 0 < expected["val/retrieval_image_to_text_r1"] < 1
    passport = callback.passports["val/retrieval_image_to_text_r1"]
    assert passport.num_samples == 8
    assert passport.details.startswith("5 different texts")
    assert ("known to be true" in passport.details) == known
    # A second round starts anew.
    (again,) = run.validate(module, loader(*batches(known)), verbose=False)
    assert {n: v for n, v in again.items() if "retrieval" in n} == {
        n: v for n, v in values.items() if "retrieval" in n
    }


def test_what_the_truth_adds_changes_the_answer(tmp_path) -> None:
    module = toys.tower(tmp_path)
    module.tower.load_state_dict(tiny.tower(seed=3).state_dict())
    alone, told = (by_hand(module.eval(), known) for known in (False, True))
    assert any(told[name] > alone[name] for name in told)


def test_a_module_without_features_is_named(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"Retrieval.*Mute has none"):
        trainer(tmp_path, Retrieval()).validate(Mute(), loader(*batches(False)), verbose=False)
    with pytest.raises(ConfigError, match=r"ks is \[0\]; write numbers of 1 or more"):
        Retrieval(ks=[0])


def test_each_text_is_embedded_once_a_round(tmp_path) -> None:
    module = Toy()
    batch = ImageTextBatch(tiny.images(4), ["a red", "a blue", "a red", "a red"])
    other = ImageTextBatch(tiny.images(2, seed=1), ["a blue", "a green"])
    run = trainer(tmp_path, Retrieval())
    run.validate(module, loader(batch, other), verbose=False)
    assert module.texts_embedded == ["a red", "a blue", "a green"]
    run.validate(module, loader(batch), verbose=False)
    assert module.texts_embedded[3:] == ["a red", "a blue"]  # the text encoder may have changed


def test_keys_are_positive_and_of_the_words_alone() -> None:
    keys = text_keys(["a star", "a ring", "a star"])
    assert keys[0] == keys[2] != keys[1]
    assert (keys >= 0).all()
