"""Networks that drawings are scored with: a CLIP in a folder, the drawn world's SigLIP."""

import json
from pathlib import Path

import pytest
import torch
from torchmetrics.multimodal import CLIPScore
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from tests.models import tiny
from vilau.errors import CheckpointError
from vilau.metrics.agreement import PairCosine, clip_score
from vilau.metrics.detector_card import drawn_images
from vilau.models.scorers import ClipScorer, SiglipScorer
from vilau.world.language import a
from vilau.world.scene import Scene

LENGTH = 12


def clip_folder(folder: Path) -> str:
    """A tiny random CLIP as transformers writes it, with tokenizer and image preparation."""
    folder.mkdir(exist_ok=True)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{letter}</w>" for letter in letters), "re", "red</w>"]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[("r", "e"), ("re", "d</w>")])
    shared = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}  # fmt: skip
    config = CLIPConfig(
        text_config=shared
        | {"vocab_size": len(words), "max_position_embeddings": LENGTH}
        | {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1},
        vision_config=shared | {"image_size": 32, "patch_size": 8},
        projection_dim=24,
    )  # fmt: skip
    torch.manual_seed(0)
    model = CLIPModel(config)
    for weight in model.parameters():
        weight.data.mul_(3.0)  # at its start every image looks alike to it
    model.save_pretrained(folder)
    side = {"shortest_edge": 32}
    prepare = CLIPImageProcessor(size=side, crop_size={"height": 32, "width": 32})
    CLIPProcessor(prepare, tokenizer).save_pretrained(folder)
    prepare.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return clip_folder(tmp_path_factory.mktemp("clip"))


class Older:
    """What torchmetrics expects of a CLIP: features, not transformers 5's outputs that hold them."""

    def __init__(self, model: CLIPModel) -> None:
        self.model, self.config = model, model.config

    def to(self, device):
        return self

    def get_image_features(self, *inputs):
        return self.model.get_image_features(*inputs).pooler_output

    def get_text_features(self, *inputs):
        return self.model.get_text_features(*inputs).pooler_output


TEXTS = ["a red star", "two", "blue", "green ring", "a red star", "moon"]


def test_clip_score_is_torchmetrics(folder) -> None:
    images = torch.randint(
        0, 256, (6, 3, 40, 52), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    scorer = ClipScorer(folder)
    metric = PairCosine(24)
    for rows in (slice(0, 4), slice(4, 6)):
        metric.update(scorer.image_features(images[rows]), scorer.text_features(TEXTS[rows]))
    model = CLIPModel.from_pretrained(folder).eval()
    pair = (Older(model), CLIPProcessor.from_pretrained(folder))
    theirs = CLIPScore(model_name_or_path=lambda: pair)
    flipped = CLIPScore(model_name_or_path=lambda: pair)
    with torch.no_grad():
        theirs.update(images, TEXTS)
        model.visual_projection.weight.neg_()
        flipped.update(images, TEXTS)
    # Whichever of the two random projections agrees; the other's score is 0, not negative.
    ours = metric.compute()["cosine"]
    expected, other = float(theirs.compute()), float(flipped.compute())
    assert sorted([expected, other])[0] == 0.0 < sorted([expected, other])[1]
    assert float(clip_score(ours)) == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert float(clip_score(-ours)) == pytest.approx(other, rel=1e-4, abs=1e-4)


def test_chance_is_the_mean_over_all_other_texts() -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts = (torch.randn(5, 4, generator=generator) for _ in range(2))
    metric = PairCosine(4)
    metric.update(images[:3], 2 * texts[:3])
    assert "chance" in metric.compute()
    metric.update(images[3:], 0.5 * texts[3:])
    cosines = torch.cosine_similarity(images[:, None], texts[None], dim=-1)
    others = [float(cosines[i, j]) for i in range(5) for j in range(5) if i != j]
    assert float(metric.compute()["cosine"]) == pytest.approx(float(cosines.diagonal().mean()))
    assert float(metric.compute()["chance"]) == pytest.approx(sum(others) / 20)


def test_a_long_text_keeps_its_end(folder) -> None:
    scorer = ClipScorer(folder)
    long, longer = ("a red star " * times for times in (6, 9))
    assert torch.equal(scorer.text_features([long]), scorer.text_features([longer]))
    ends = scorer._words(long, truncation=True, max_length=LENGTH)["input_ids"]
    assert len(ends) == LENGTH
    assert ends[-1] == scorer._words.eos_token_id


def test_a_clip_that_is_not_there_is_named_without_asking_the_network(monkeypatch) -> None:
    def refused(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.getaddrinfo", refused)
    with pytest.raises(CheckpointError) as told:
        ClipScorer("openai/clip-vit-huge-patch1")
    for words in ("openai/clip-vit-huge-patch1 is neither a folder nor in the hub cache", "put its config.json, "
                  "model.safetensors, preprocessor_config.json and tokenizer files into a folder",
                  "GenerationJudge", "world-siglip"):  # fmt: skip
        assert words in str(told.value)


def test_what_a_folder_lacks_is_named(tmp_path) -> None:
    folder = Path(clip_folder(tmp_path / "clip"))
    for name in ("preprocessor_config.json", "processor_config.json"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match=r"put CLIP's preprocessor_config\.json there"):
        ClipScorer(str(folder))
    for file in folder.glob("*tokenizer*"):
        file.unlink()
    with pytest.raises(CheckpointError, match="holds no tokenizer"):
        ClipScorer(str(folder))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "siglip"}))
    with pytest.raises(CheckpointError, match="describes a siglip, but a clip is needed"):
        ClipScorer(str(folder))
    (folder / "model.safetensors").unlink()
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="clip weights"):
        ClipScorer(str(folder))


def test_the_drawn_worlds_siglip_tells_its_captions() -> None:
    scorer = SiglipScorer()
    images, scenes = drawn_images(60)
    texts = []
    for text in scenes:
        thing = Scene.from_json(text).things[0]
        texts.append(a(f"{thing.color} {thing.shape}"))
    metric = PairCosine(96)
    metric.update(scorer.image_features(images), scorer.text_features(texts))
    values = metric.compute()
    assert values["cosine"] > values["chance"] + 0.1
    larger = torch.nn.functional.interpolate(images.float(), scale_factor=2).to(torch.uint8)
    close = torch.cosine_similarity(scorer.image_features(larger), scorer.image_features(images))
    assert close.min() > 0.98
    assert scorer.preparation.startswith("whole images, no crop, to 64")


def test_any_siglip_folder_scores(tmp_path) -> None:
    scorer = SiglipScorer(tiny.siglip_folder(tmp_path / "siglip"))
    assert scorer.name == "SigLIP"
    module_features = scorer.image_features(tiny.images(3))
    assert module_features.shape == (3, 32)
    assert torch.allclose(module_features.norm(dim=1), torch.ones(3))
    assert not any(weight.requires_grad for weight in scorer.parameters())
