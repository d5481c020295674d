"""Towers on other encoders, and for images of another size: trained, written, read back, counted."""

import json

import pytest
import torch

import vilau
from tests.models import tiny, vits
from tests.training import toys
from vilau.costs.stage import estimate
from vilau.errors import CheckpointError, ConfigError
from vilau.layers.pixels import to_float
from vilau.models.encoders.positions import resized_positions
from vilau.models.loading import load_tower
from vilau.models.vila_u.model import VilaU
from vilau.study.stage_cli import StageCLI
from vilau.training.pretrain import MultimodalPretraining
from vilau.training.tower import TowerTraining
from vilau.training.tower_start import StartConfig

POSITIONS = "siglip.vision_model.embeddings.position_embedding.weight"


def module(pretrained, start, decoder=None, **changes):
    settings = {"perceptual_weight": 0.0, "optimizer": tiny.optimizer(), **changes}
    torch.manual_seed(0)
    decoder = decoder or tiny.decoder()
    return TowerTraining(
        pretrained, tiny.quantizer(), decoder, start=StartConfig(**start), **settings
    )


def timm_file(folder, name):
    return f"timm/{name}:{vits.file_of(vits.vit(name), folder / f'{name}.safetensors')}"


@pytest.mark.parametrize("name", ["toyvit_siglip", "toyvit_tokens", "toyvit_class", "toyvit_mean"])
def test_a_tower_on_timms_vit_is_trained_and_read_back(name, tmp_path):
    words = tiny.siglip_folder(tmp_path / "words", hidden_size=32 if "siglip" in name else 64)
    built = module(timm_file(tmp_path, name), {"text": words})
    before = {n: p.detach().clone() for n, p in built.tower.named_parameters()}
    recorder = toys.fit(built, toys.pair_data(), 2)
    assert all(torch.isfinite(torch.tensor(recorder.losses)))
    still = {n for n, p in built.tower.named_parameters() if torch.equal(p, before[n])}
    assert still == {n for n in before if n.startswith("siglip.text_model.")}
    built.export(str(tmp_path / "tower"))
    again = load_tower(tmp_path / "tower")
    assert again.sizes == built.tower.sizes
    images = to_float(tiny.images(2))
    built.eval()
    with torch.no_grad():
        assert torch.equal(again.eval().features(images), built.tower.features(images))
        assert torch.equal(again.image_features(images), built.tower.image_features(images))
    codes = again.encode(images)
    assert codes.shape == (2, 16, 3)
    assert len(codes.unique()) > 1
    # The published layout has names for SigLIP alone.
    if "siglip" in name:
        vilau.export(again, tmp_path / "published")
    else:
        with pytest.raises(CheckpointError, match=f"timm's {name}, but the published layout holds"):
            vilau.export(again, tmp_path / "published")
        model = VilaU.start(again, tiny.language(), tiny.head(), tiny.PROMPT)
        with pytest.raises(CheckpointError, match="the published layout holds SigLIP's ViT alone"):
            vilau.export(model, tmp_path / "published")
        assert not (tmp_path / "published").exists()
    with torch.device("meta"):
        later = MultimodalPretraining(str(tmp_path / "tower"), tiny.language(), tiny.head())
    assert later.model.tokenizer.sizes == again.sizes


def test_a_random_text_tower_learns_beside_timms_vit(tmp_path):
    source = timm_file(tmp_path, "toyvit_mean")
    start = {"text": "random", "siglip": tiny.sizes(), "logit_bias": -3.0}
    built = module(source, start, freeze_text=False)
    assert built.tower.siglip.logit_bias.item() == -3.0
    before = built.tower.siglip.text_model.head.weight.detach().clone()
    toys.fit(built, toys.pair_data(), 1)
    assert not torch.equal(built.tower.siglip.text_model.head.weight, before)
    # Frozen blocks stay, whatever they are called.
    frozen = module(source, start, freeze_text=False, freeze_vision=True)
    before = frozen.tower.features(to_float(tiny.images(2)))
    toys.fit(frozen, toys.pair_data(), 1)
    assert torch.equal(frozen.tower.features(to_float(tiny.images(2))), before)


def test_recipes_start_from_other_encoders_too(tmp_path):
    source, words = timm_file(tmp_path, "toyvit_tokens"), tiny.siglip_folder(tmp_path / "words")
    whole = module(source, {"text": words}).tower.state_dict()
    text = module(source, {"initialisation": "text", "text": words}).tower.state_dict()
    block = "siglip.vision_model.encoder.layers.0.block.attn.qkv.weight"
    head = "siglip.text_model.head.weight"
    assert torch.equal(text[head], whole[head])
    assert not torch.equal(text[block], whole[block])
    changed = module(source, {"text": words}).tower
    changed.set_search("published")
    assert changed.siglip.text_model.config._attn_implementation == "eager"
    random = module("timm/toyvit_tokens", {"initialisation": "random"}, freeze_text=False).tower
    assert not torch.equal(random.state_dict()[block], whole[block])


def test_images_of_another_size(tmp_path):
    source = tiny.siglip_folder(tmp_path / "siglip")
    usual = module(source, {}).tower
    same = module(source, {"image_size": tiny.SIDE}).tower
    assert all(torch.equal(v, same.state_dict()[k]) for k, v in usual.state_dict().items())
    decoder = tiny.decoder(attention_grids=(6,))
    built = module(source, {"image_size": 24}, decoder)
    assert built.tower.spec.levels == ((6, 6),)
    images = torch.rand(2, 3, 24, 24) * 2 - 1
    assert built.tower(images).images.shape == images.shape
    built.export(str(tmp_path / "tower"))
    config = json.loads((tmp_path / "tower" / "config.json").read_text())
    assert config["tower"]["siglip"]["image_size"] == 24
    again = load_tower(tmp_path / "tower")
    assert torch.equal(again.encode(images), built.tower.eval().encode(images))
    with pytest.raises(ConfigError, match="16 x 16 pixels, but this model reads 24 x 24"):
        toys.fit(built, toys.pair_data(), 1)
    with pytest.raises(
        ConfigError, match="decoder.multipliers has 3 levels.*24 pixels instead of 32"
    ):
        module(source, {"image_size": 32}, tiny.decoder(latent_grid=6))


def test_a_trained_tower_goes_on_at_another_size(tmp_path):
    folder = tiny.tower_folder(tmp_path / "tower")
    small = load_tower(folder)
    start = StartConfig(initialisation="tower", checkpoint=folder, image_size=24)
    large = TowerTraining("nowhere", start=start, perceptual_weight=0.0).tower
    assert large.config.decoder.attention_grids == (6,)
    rows = [tower.state_dict()[POSITIONS] for tower in (small, large)]
    assert torch.equal(resized_positions(rows[0], old_grid=4, grid=6), rows[1])
    others = [k for k in small.state_dict() if k != POSITIONS]
    assert all(torch.equal(small.state_dict()[k], large.state_dict()[k]) for k in others)
    assert large.decode(large.encode(torch.zeros(1, 3, 24, 24))).shape == (1, 3, 24, 24)
    source = tiny.siglip_folder(tmp_path / "siglip")
    decoder = tiny.decoder(attention_grids=(6,))
    both = module(source, {"checkpoint": folder, "image_size": 24}, decoder).tower
    assert torch.equal(both.state_dict()[POSITIONS], large.state_dict()[POSITIONS])


@pytest.mark.parametrize(
    ("start", "changes", "message"),
    [
        ({"image_size": 18}, {}, "start.image_size is 18, which 4-pixel patches do not divide; write 16 or 20"),
        ({"text": "random"}, {}, "start.text: random leaves a text tower.*write model.freeze_text: false"),
        ({"initialisation": "random", "text": "x"}, {}, "start.text is x, but start.initialisation: random"),
        ({"initialisation": "text", "text": "random"}, {"freeze_text": False}, "start.text is random, but"),
        ({"initialisation": "random", "siglip": tiny.sizes(), "image_size": 24}, {"freeze_text": False},
         "write start.siglip.image_size"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together(start, changes, message, tmp_path):
    source = tiny.siglip_folder(tmp_path / "siglip")
    with pytest.raises(ConfigError, match=message):
        module(source, start, **changes)


def test_images_without_texts_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="toyvit_mean.*encodes images alone; write start.text"):
        module(timm_file(tmp_path, "toyvit_mean"), {})
    source, text = tiny.siglip_folder(tmp_path / "siglip"), timm_file(tmp_path, "toyvit_siglip")
    with pytest.raises(ConfigError, match="start.text timm/toyvit.*encodes images alone"):
        module(source, {"text": text})


# ---------------------------------------------------------------------- on paper


@pytest.mark.parametrize(
    ("pretrained", "start"),
    [
        ("timm/vit_base_patch16_siglip_256", {"text": "random"}),
        ("timm/vit_large_patch16_siglip_256.webli", {"text": "google/siglip-large-patch16-256"}),
        ("timm/vit_so400m_patch14_siglip_224", {"text": "google/siglip-so400m-patch14-384", "image_size": 448}),
        ("timm/ViT-gopt-16-SigLIP2-256", {}),
    ],
)  # fmt: skip
def test_a_plan_counts_what_check_builds(pretrained, start):
    settings = {
        "pretrained": pretrained,
        "start": start,
        "perceptual_weight": 0.0,
        "freeze_text": False,
    }
    grid = (start.get("image_size") or 256) // (14 if "so400m" in pretrained else 16)
    if "so400m" in pretrained:
        settings["decoder"] = {"latent_grid": 28, "attention_grids": [28]}
        grid = 32
    config = {
        "model": {"class_path": "vilau.training.tower.TowerTraining", "init_args": settings},
        "data": {"class_path": "vilau.data.image_text.ImageTextPairs"},
        "trainer": {"max_steps": 10},
    }
    with torch.device("meta"):
        built, _ = StageCLI(config).build_parts()
    cost = estimate(config)
    assert cost is not None
    assert cost["parameters"] == sum(p.numel() for p in built.parameters())
    assert built.tower.spec.num_positions == grid**2
    assert all(p.device.type == "meta" for p in built.parameters())


def test_a_plan_does_not_guess_at_other_vits(tmp_path):
    settings = {
        "pretrained": "timm/test_vit",
        "start": {"text": "random"},
        "perceptual_weight": 0.0,
    }
    model = {"class_path": "vilau.training.tower.TowerTraining", "init_args": settings}
    assert estimate({"model": model, "trainer": {"max_steps": 10}}) is None
    built = module(timm_file(tmp_path, "toyvit_mean"), {"text": "random"}, freeze_text=False)
    built.export(str(tmp_path / "tower"))
    args = {"tower_checkpoint": str(tmp_path / "tower")}
    later = {"class_path": "vilau.training.pretrain.MultimodalPretraining", "init_args": args}
    assert estimate({"model": later, "trainer": {"max_steps": 10}}) is None
