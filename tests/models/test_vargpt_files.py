"""VARGPT: starting from published files, being saved and opened, and what is refused."""

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModel

import vilau
from tests.models import tiny
from tests.models.test_vargpt_published_decoder import CODE_WIDTH, CODES, published_tensors
from vilau.errors import CheckpointError, ConfigError
from vilau.layers.pixels import to_float
from vilau.models.sequence.config import PromptConfig
from vilau.models.vargpt.config import DecoderConfig, ReaderConfig
from vilau.models.vargpt.model import Vargpt
from vilau.models.vargpt.published_decoder import own_state
from vilau.models.vargpt.reader import PictureReader, build_vision, start_vision
from vilau.models.vargpt.start import start_decoder

# ---------------------------------------------------------------------- starting from files


def of_three_scales():
    """An image tokenizer with the scales and codes of ``published_tensors``."""
    return tiny.over_scales(
        image_size=12, scales=(1, 2, 3), embed_dim=CODE_WIDTH, codebook_size=CODES
    )


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_the_decoder_starts_from_vars_file(tmp_path, suffix):
    file = tmp_path / f"var_d2{suffix}"
    published = published_tensors()
    if suffix == ".pth":
        torch.save(published, file)
    else:
        save_file(published, file)
    tokenizer = of_three_scales()
    config = tiny.scale_decoder(drop_path=0.05)
    if suffix == ".pth":
        with pytest.raises(CheckpointError, match="is a pickle"):
            start_decoder(config, tokenizer, str(file))
    decoder = start_decoder(config, tokenizer, str(file), allow_pickle=True)
    # Its sizes are the file's, its condition is VARGPT's own, all else is VAR's.
    assert (decoder.config.width, decoder.config.num_conditions) == (128, 1)
    assert decoder.config.drop_path == 0.05
    state = own_state(published, decoder.config)
    del state["condition_embedding.weight"]
    for name, tensor in state.items():
        assert torch.equal(decoder.state_dict()[name], tensor), name
    assert decoder.condition_embedding.weight.shape == (2, 128)


def test_a_var_of_another_tokenizer_is_refused(tmp_path):
    save_file(published_tensors(), tmp_path / "var.safetensors")
    config, file = tiny.scale_decoder(), str(tmp_path / "var.safetensors")
    with pytest.raises(
        CheckpointError,
        match=r"code_projection.weight of the shape \(128, 5\), where the image tok",
    ):
        start_decoder(
            config, tiny.over_scales(image_size=12, scales=(1, 2, 3), codebook_size=CODES), file
        )
    with pytest.raises(
        CheckpointError, match="position_embedding of the shape .* take the tokenizer that it was"
    ):
        start_decoder(config, tiny.over_scales(embed_dim=CODE_WIDTH, codebook_size=CODES), file)
    with pytest.raises(
        CheckpointError, match="decoder_checkpoint is nowhere.pth, and there is no such file"
    ):
        start_decoder(config, of_three_scales(), "nowhere.pth")


@pytest.mark.parametrize("whole", [True, False], ids=["clip", "clip_vision_model"])
def test_a_saved_clip_is_read_with_all_its_sizes(tmp_path, whole):
    sizes = {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
        "image_size": 12, "patch_size": 4, "hidden_act": "gelu",
    }  # fmt: skip
    torch.manual_seed(0)
    if whole:
        words = {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
        }
        made = CLIPModel(CLIPConfig(vision_config=sizes, text_config=words, projection_dim=8))
    else:
        made = CLIPVisionModel(CLIPVisionConfig(**sizes))
    made.save_pretrained(tmp_path)
    vision, config = start_vision(ReaderConfig(pretrained=str(tmp_path)))
    assert (config.kind, config.hidden_size, config.num_positions) == ("clip", 16, 9)
    assert config.activation == "gelu"
    own = made.vision_model if whole else made
    images = to_float(tiny.images(1))
    reader = PictureReader(vision, config, 8)
    again = PictureReader(own, config, 8)
    torch.testing.assert_close(reader.features(images), again.features(images))


def test_the_shipped_siglip_reads():
    vision, config = start_vision(ReaderConfig(pretrained="world-siglip"))
    assert config.kind == "siglip"
    assert PictureReader(vision, config, 8)(to_float(tiny.images(1))).shape == (
        1,
        config.num_positions,
        8,
    )


def test_an_encoder_that_is_nowhere_is_one_sentence(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="bert"):
        start_vision(ReaderConfig(pretrained=str(tmp_path)))


def test_on_the_meta_device_the_published_encoder_has_its_sizes():
    with torch.device("meta"):
        vision, config = start_vision(ReaderConfig())
    assert sum(p.numel() for p in vision.parameters()) == 303_507_456
    assert config.num_positions == 576


# ---------------------------------------------------------------------- keeping and refusing


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_saved_model_is_the_same(tmp_path, kind):
    torch.manual_seed(0)
    parts = (
        tiny.over_scales(),
        tiny.language(),
        tiny.picture_reader(kind=kind),
        tiny.scale_decoder(),
    )
    model = Vargpt.start(
        *parts, PromptConfig(system="", null="learned"), unconditional="noise"
    ).eval()
    model.save(tmp_path)
    loaded = vilau.load(tmp_path)
    assert isinstance(loaded, Vargpt)
    assert loaded.unconditional == "noise"
    images = to_float(tiny.images(1))
    assert loaded.generate_text(images, "what", max_new_tokens=4) == model.generate_text(
        images, "what", max_new_tokens=4
    )
    for guidance in (1.0, 2.0):
        drawn = [
            m.generate_images("a star", seed=1, guidance_scale=guidance) for m in (model, loaded)
        ]
        assert torch.equal(*drawn)
    tokenizer = vilau.load_tokenizer(tmp_path)
    assert tokenizer.identity() == model.tokenizer.identity()
    assert {p.requires_grad for p in loaded.reader.vision.parameters()} == {False}


def test_another_image_tokenizer_is_refused(tmp_path):
    tiny.vargpt().save(tmp_path / "a")
    tiny.over_scales(seed=1).save(tmp_path / "a" / "image_tokenizer")
    with pytest.raises(
        CheckpointError, match="was trained with the image tokenizer .* put the image_tokenizer/"
    ):
        vilau.load(tmp_path / "a")
    tiny.vqgan().save(tmp_path / "a" / "image_tokenizer")
    with pytest.raises(CheckpointError, match="holds a VQGAN, but VARGPT draws scale by scale"):
        vilau.load(tmp_path / "a")
    for file in (tmp_path / "a" / "image_tokenizer").iterdir():
        file.unlink()
    (tmp_path / "a" / "image_tokenizer").rmdir()
    with pytest.raises(
        CheckpointError, match="holds a VARGPT without its image tokenizer; copy image_tokenizer/"
    ):
        vilau.load(tmp_path / "a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unconditional": "blank"}, "unconditional is 'blank'; write prompt or noise."),
        (
            {"prompt": PromptConfig(form="published")},
            "prompt.form is published, but the strings of VARGPT's release",
        ),
        (
            {"scales": (2, 4)},
            "has 2 scales, the first of 2 x 2 cells, but VARGPT draws scale after scale from a",
        ),
        ({"layer": -9}, "reader.layer is -9, but the encoder has 3 layers; write -2"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_one_sentence(change, message):
    scales = {"scales": change["scales"]} if "scales" in change else {}
    reader = tiny.picture_reader(**({"layer": change["layer"]} if "layer" in change else {}))
    with pytest.raises(ConfigError, match=message):
        Vargpt.start(
            tiny.over_scales(**scales),
            tiny.language(),
            reader,
            tiny.scale_decoder(),
            change.get("prompt", tiny.PROMPT),
            unconditional=change.get("unconditional", "prompt"),
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "dino"}, "reader.kind is 'dino'; write clip or siglip."),
        (
            {"image_size": 13},
            "reader.image_size is 13, which patches of 4 pixels do not divide; write a multiple",
        ),
    ],
)
def test_sizes_of_a_reader_are_checked(settings, message):
    with pytest.raises(ConfigError, match=message):
        tiny.picture_reader(**settings)


@pytest.mark.parametrize(
    ("parts", "learning"),
    [
        (["projectors"], {"to_language", "to_decoder"}),
        (["language", "reader"], {"language", "reader"}),
        (["decoder", "projectors"], {"decoder", "to_language", "to_decoder"}),
        (
            ["language", "reader", "decoder", "projectors"],
            {"language", "reader", "decoder", "to_language", "to_decoder"},
        ),
    ],
)
def test_a_stage_trains_its_parts_alone(parts, learning):
    model = tiny.vargpt()
    model.train_only(parts)
    found = {n for n, p in model.named_parameters() if p.requires_grad}
    condition = "decoder.condition_embedding.weight"  # with the projectors, as the release has it
    assert (condition in found) == ("projectors" in parts)
    assert {name.split(".")[0] for name in found - {condition}} == learning
    assert not any(name.startswith("reader.vision.") for name in found)
    whole = {n for n, p in model.named_parameters() if n.split(".")[0] in learning - {"reader"}}
    model.train_only(["decoder"])  # where parts share a module, those that learn have the last word
    assert model.decoder.condition_embedding.weight.requires_grad
    model.train_only(parts)
    assert whole <= found


def test_parts_that_there_are_not_are_refused():
    with pytest.raises(
        ConfigError, match="model.trained holds vision; write some of language, reader"
    ):
        tiny.vargpt().train_only(["language", "vision"])
    with pytest.raises(ConfigError, match="model.trained holds nothing; write some of"):
        tiny.vargpt().train_only([])


def test_the_published_sizes():
    """CLIP of 336 pixels and LLaVA's projector (reference A3.1); VAR's are counted in the decoder's tests."""
    with torch.device("meta"):
        reader = PictureReader(build_vision(ReaderConfig()), ReaderConfig(), 4096)
    count = sum(p.numel() for p in reader.projector.parameters())
    assert reader.num_positions == 576
    assert count == 1024 * 4096 + 4096 + 4096 * 4096 + 4096
    assert sum(p.numel() for p in reader.vision.parameters()) == 303_507_456
    assert DecoderConfig().width == 1920


def test_an_encoder_that_is_not_there_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        CheckpointError, match="openai/clip-vit-large-patch14-336 are neither a local"
    ):
        start_vision(ReaderConfig())


def test_a_clip_that_normalises_otherwise_is_refused(tmp_path):
    own = CLIPVisionConfig(
        image_size=12, patch_size=4, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, layer_norm_eps=1e-6,
    )  # fmt: skip
    CLIPVisionModel(own).save_pretrained(tmp_path)
    with pytest.raises(
        CheckpointError, match="layer_norm_eps is 1e-06, but this model can only build"
    ):
        start_vision(ReaderConfig(pretrained=str(tmp_path)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"patch_size": 0}, "reader.patch_size is 0; write a whole number, 1 or more."),
        ({"num_layers": -1}, "reader.num_layers is -1; write a whole number"),
        ({"num_heads": 3}, "reader.num_heads is 3, which does not divide reader.hidden_size 16"),
    ],
)
def test_sizes_of_an_encoder_that_cannot_be_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        tiny.picture_reader(**changes)


def test_an_unknown_activation_is_refused():
    with pytest.raises(ConfigError, match="reader.activation is gulu, which transformers does not"):
        build_vision(tiny.picture_reader(activation="gulu"))
