import pytest
import torch
from torch import nn

from tests.callbacks.test_evaluation_callbacks import Blank, prompt_batches
from tests.callbacks.toys import Toy, loader, trainer
from vilau.callbacks.generation_agreement import GenerationAgreement
from vilau.errors import ConfigError
from vilau.metrics.detector_card import drawn_images
from vilau.models.scorers import SiglipScorer
from vilau.types import PromptBatch
from vilau.world.language import a
from vilau.world.scene import Scene


class Colours(nn.Module):
    """Mean colours, and the colours that numbers name."""

    kind, name, preparation = "clip", "colours", "as they come"

    def image_features(self, images):
        return images.float().mean(dim=(2, 3)) - 100.0

    def text_features(self, texts):
        return torch.tensor([[float(word) for word in text.split()] for text in texts])


def named() -> list[PromptBatch]:
    """Drawn images as references, which Toy gives back as its drawings, and what they show as prompts."""
    images, scenes = drawn_images(48, start=700)
    things = [Scene.from_json(text).things[0] for text in scenes]
    prompts = [a(f"{thing.color} {thing.shape}") for thing in things]
    return [
        PromptBatch(prompts[i : i + 16], ["[]"] * 16, [[]] * 16, images[i : i + 16], i)
        for i in (0, 16, 32)
    ]


def test_clip_score_of_drawings(tmp_path) -> None:
    images = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    images[:, 0] = torch.tensor([200, 250, 0], dtype=torch.uint8)[:, None, None]
    texts = ["1 0 0", "0 1 0", "0 0 1"]
    rows = [
        PromptBatch(texts[:2], ["", ""], [[], []], images[:2]),
        PromptBatch(texts[2:], [""], [[]], images[2:], 2),
    ]
    callback = GenerationAgreement(Colours())
    (values,) = trainer(tmp_path, callback).test(Toy(), loader(*rows), verbose=False)
    seen = images.double().mean(dim=(2, 3)) - 100
    cosines = (seen / seen.norm(dim=1, keepdim=True)) @ torch.eye(3, dtype=torch.float64)
    own, whole = float(cosines.diagonal().sum()), float(cosines.sum())
    assert own < 0
    assert values["test/clip_score"] == 0.0  # as torchmetrics' score, never negative
    assert values["test/clip_score_chance"] == pytest.approx(max(0.0, 100 * (whole - own) / 6))
    passport = callback.passports["test/clip_score"]
    assert passport.metric == "CLIP score (vilau, torchmetrics' definition)"
    assert passport.num_samples == 3
    assert passport.details == "as they come"
    assert passport.features.startswith("colours ")
    rows[1].references = 255 - images[2:]
    rows[0].references = torch.stack([images[0], 255 - images[0]])
    (values,) = trainer(tmp_path, callback).test(Toy(), loader(*rows), verbose=False)
    assert values["test/clip_score"] > 10.0


def test_the_worlds_siglip_is_no_clip_score(tmp_path) -> None:
    callback = GenerationAgreement(SiglipScorer())
    (values,) = trainer(tmp_path, callback).test(Toy(), loader(*named()), verbose=False)
    assert set(values) == {"test/siglip_cosine", "test/siglip_cosine_chance"}
    assert values["test/siglip_cosine"] > values["test/siglip_cosine_chance"] + 0.1
    passport = callback.passports["test/siglip_cosine"]
    assert passport.metric == "siglip_cosine"
    assert passport.features.startswith("world-siglip ")
    assert passport.num_samples == 48
    assert "with the prompts of others" in callback.passports["test/siglip_cosine_chance"].details
    (blank,) = trainer(tmp_path, GenerationAgreement(SiglipScorer())).test(
        Blank(), loader(*named()), verbose=False
    )
    assert blank["test/siglip_cosine"] == pytest.approx(
        blank["test/siglip_cosine_chance"], abs=0.01
    )
    assert blank["test/siglip_cosine"] < values["test/siglip_cosine"] - 0.1


def test_a_single_drawing_has_no_chance_line(tmp_path) -> None:
    (batch,) = prompt_batches(1, 1)
    callback = GenerationAgreement(SiglipScorer())
    (values,) = trainer(tmp_path, callback).test(Toy(), loader(batch), verbose=False)
    assert set(values) == {"test/siglip_cosine"}


def test_a_scorer_must_be_a_network() -> None:
    with pytest.raises(ConfigError, match="scorer is a str; write"):
        GenerationAgreement("openai/clip-vit-large-patch14")  # type: ignore[arg-type]
