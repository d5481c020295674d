"""The same weights give the same features, from whichever library's names they are read."""

import json
import shutil

import huggingface_hub
import pytest
import torch
from timm.layers import resample_abs_pos_embed
from transformers import SiglipModel

from tests.models import tiny, vits
from vilau.errors import CheckpointError, ConfigError
from vilau.models.encoders.load import load_encoders, resized_encoders
from vilau.models.encoders.names import known_sizes
from vilau.models.encoders.positions import resized_positions
from vilau.models.encoders.vit import ViTSiglip
from vilau.models.siglip import TextInputs, build_siglip
from vilau.models.sizes import SIGLIP, SiglipSizes
from vilau.models.tokenizers import asset


def hidden(vision, images):
    """What a tower quantises."""
    x = vision.embeddings(images)
    for block in vision.encoder.layers[:-1]:
        x = block(x, attention_mask=None)
    return x


def pooled(vision, images):
    x = vision.encoder.layers[-1](hidden(vision, images), attention_mask=None)
    return vision.head(vision.post_layernorm(x))


def pictures(side=tiny.SIDE):
    return torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def theirs(vit, images):
    """Images as timm's data pipeline gives them to this model."""
    mean, std = (torch.tensor(vit.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    return ((images + 1) / 2 - mean) / std


def last_but_one(vit, images):
    return vit.forward_intermediates(
        theirs(vit, images), [len(vit.blocks) - 2], output_fmt="NLC", intermediates_only=True
    )[0]


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.mark.parametrize(
    ("name", "kind", "whole"),
    [
        ("toyvit_siglip", SiglipModel, True),
        ("toyvit_siglip_tanh", SiglipModel, True),
        ("toyvit_photos", ViTSiglip, True),
        ("toyvit_mean", ViTSiglip, True),
        ("toyvit_tokens", ViTSiglip, False),
        ("toyvit_class", ViTSiglip, False),
    ],
)
def test_timms_weights_give_timms_features(name, kind, whole, tmp_path):
    vit = vits.vit(name)
    file = vits.file_of(vit, tmp_path / "vit.safetensors")
    model, sizes = load_encoders(f"timm/{name}:{file}", text="random", text_sizes=tiny.sizes())
    vision, images = model.eval().vision_model, pictures()
    assert type(model) is kind
    assert sizes.vision == (SIGLIP if kind is SiglipModel else name)
    assert sizes.activation == ("gelu_pytorch_tanh" if "tanh" in name else "gelu")
    assert (sizes.grid, sizes.num_layers, sizes.num_heads, sizes.mlp_size) == (4, 3, 2, 48)
    torch.testing.assert_close(hidden(vision, images), last_but_one(vit, images), rtol=0, atol=1e-5)
    if whole:  # else the last block and the pooling read tokens that have no codes
        expected = vit.forward_head(vit.forward_features(theirs(vit, images)), pre_logits=True)
        torch.testing.assert_close(pooled(vision, images), expected, rtol=0, atol=1e-5)


def test_open_clips_towers_give_open_clips_features(tmp_path):
    clip = vits.OpenClip().eval()
    folder = vits.open_clip_folder(clip, tmp_path / "clip")
    model, sizes = load_encoders(str(folder))
    model.eval()
    ids, images = torch.arange(36).view(3, 12), pictures()
    features = model.text_model(input_ids=ids).pooler_output
    torch.testing.assert_close(features, clip.text_features(ids), rtol=0, atol=1e-5)
    trunk = clip.visual["trunk"]
    torch.testing.assert_close(pooled(model.vision_model, images), trunk(images), rtol=0, atol=1e-5)
    assert (float(model.logit_scale), float(model.logit_bias)) == (2.5, -7.0)
    assert (sizes.text_width, sizes.embed_width, sizes.text_heads) == (48, 32, 4)
    assert (sizes.activation, sizes.text_activation) == ("gelu", "gelu_pytorch_tanh")
    assert sizes.tokenizer == str(folder)
    # The same file with the ViT named by hand, and without its description: images alone.
    file = folder / "open_clip_model.safetensors"
    again, found = load_encoders(f"timm/toyvit_siglip:{file}")
    assert found == sizes
    assert torch.equal(again.eval().text_model(input_ids=ids).pooler_output, features)
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(ConfigError, match="encodes images alone; write start.text"):
        load_encoders(f"timm/toyvit_siglip:{file}")


def test_a_text_tower_beside_another_image_encoder(tmp_path):
    file = vits.file_of(vits.vit("toyvit_mean"), tmp_path / "vit.safetensors")
    clip = vits.OpenClip().eval()
    folder = str(vits.open_clip_folder(clip, tmp_path / "clip"))
    ids = torch.arange(36).view(3, 12)
    model, sizes = load_encoders(f"timm/toyvit_mean:{file}", text=folder)
    features = model.eval().text_model(input_ids=ids).pooler_output
    torch.testing.assert_close(features, clip.text_features(ids), rtol=0, atol=1e-5)
    assert float(model.logit_bias) == -7.0
    # Texts of another width: the image feature is mapped to it, by weights that are new.
    wide = tiny.siglip_folder(tmp_path / "wide", hidden_size=64)
    model, sizes = load_encoders(f"timm/toyvit_mean:{file}", text=wide)
    assert (sizes.hidden_size, sizes.text_width, sizes.embed_width) == (32, 64, 64)
    assert pooled(model.vision_model, pictures()).shape == (3, 64)
    source, _ = load_encoders(wide)
    assert torch.equal(model.text_model.head.weight, source.text_model.head.weight)
    with pytest.raises(CheckpointError, match="are 64 wide, but the image features of .* 32"):
        load_encoders(folder, text=wide)


def test_files_that_torch_wrote_are_read_as_tensors_alone(tmp_path):
    vit = vits.vit("toyvit_siglip")
    state = {f"module.{name}": tensor for name, tensor in vit.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "vit.bin")
    model, _ = load_encoders(f"timm/toyvit_siglip:{tmp_path / 'vit.bin'}", text="random")
    expected = last_but_one(vit, pictures())
    torch.testing.assert_close(hidden(model.vision_model, pictures()), expected)
    torch.save({"state_dict": state, "run": print}, tmp_path / "vit.bin")
    with pytest.raises(CheckpointError, match="cannot be read as tensors alone"):
        load_encoders(f"timm/toyvit_siglip:{tmp_path / 'vit.bin'}", text="random")


# ---------------------------------------------------------------------- names and where their weights lie


@pytest.mark.parametrize(
    "name",
    [
        "vit_base_patch16_siglip_224",
        "vit_base_patch32_siglip_256.v2_webli",
        "vit_large_patch16_siglip_256.webli",
        "vit_so400m_patch14_siglip_384",
        "vit_giantopt_patch16_siglip_256",
    ],
)
def test_the_sizes_that_names_tell_are_timms(name):
    with torch.device("meta"):
        model, sizes = load_encoders(f"timm/{name}", text="random")
    known = known_sizes(f"timm/{name}")
    assert sizes == SiglipSizes(**{**vars(known), "activation": sizes.activation})
    assert type(model) is SiglipModel


def test_hub_names_are_known_on_the_meta_device_and_named_when_they_are_not_here():
    with torch.device("meta"):
        model, sizes = load_encoders("timm/ViT-gopt-16-SigLIP2-384")
    assert (sizes.image_size, sizes.text_width, sizes.embed_width) == (384, 1152, 1536)
    assert model.text_model.head.weight.shape == (1536, 1152)
    with pytest.raises(CheckpointError, match="not in the hub cache; download open_clip_model"):
        load_encoders("timm/ViT-gopt-16-SigLIP2-384")
    with pytest.raises(
        CheckpointError,
        match=r"vit_base_patch16_siglip_224 are not in the hub cache \(as timm/vit_b",
    ):
        load_encoders("timm/vit_base_patch16_siglip_224")


def test_weights_that_timm_downloaded_before_are_found(tmp_path, monkeypatch):
    stored = tmp_path / "models--timm--test_vit2.r160_in1k"
    cached = stored / "snapshots" / "0123"
    cached.mkdir(parents=True)
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text("0123")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    vit = vits.vit("test_vit2")
    vits.file_of(vit, cached / "model.safetensors")
    model, sizes = load_encoders("timm/test_vit2", text="random")
    assert sizes.vision == "test_vit2.r160_in1k"
    images = pictures(160)
    torch.testing.assert_close(hidden(model.vision_model, images), last_but_one(vit, images))
    # open_clip's layout under its hub name, tokenizer and all.
    vits.open_clip_folder(vits.OpenClip(), tmp_path / "clip")
    stored = tmp_path / "models--timm--ViT-B-16-SigLIP"
    (stored / "refs").mkdir(parents=True)
    (stored / "refs" / "main").write_text("4567")
    shutil.copytree(tmp_path / "clip", stored / "snapshots" / "4567")
    _, sizes = load_encoders("timm/ViT-B-16-SigLIP")
    assert (sizes.tokenizer, sizes.text_width) == ("timm/ViT-B-16-SigLIP", 48)
    assert TextInputs(sizes)(["a red circle"], torch.device("cpu")).shape == (1, 12)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("timm/vit_enormous_patch1", "timm cannot build vit_enormous_patch1"),
        ("timm/resnet10t", "resnet10t is a ResNet, but images can be encoded by its VisionTransformer"),
        ("timm/toyvit_siglip:{}/none.safetensors", "names weights that are not there; put the file there"),
        ("timm/toyvit_siglip:{}/vit.txt", "is no file of weights; give one of .safetensors"),
        ("timm/toyvit_mean:{}/vit.safetensors", "blocks.0.ls1.gamma is missing"),
        ("{}/vit.safetensors", "holds no open_clip_config.json, which says"),
    ],
)  # fmt: skip
def test_what_cannot_be_opened_is_told(source, message, tmp_path):
    vits.file_of(vits.vit("toyvit_siglip"), tmp_path / "vit.safetensors")
    (tmp_path / "vit.txt").write_text("weights")
    with pytest.raises(CheckpointError, match=message):
        load_encoders(source.format(tmp_path), text="random")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"no_causal_mask": False}, "text_cfg with no_causal_mask: False, which is no SigLIP's"),
        ({"pool_type": "argmax", "proj_bias": False}, "pool_type: argmax, proj_bias: False"),
        ({"hf_model_name": "roberta"}, "hf_model_name: roberta"),
        ({"norm_kwargs": {}}, "norm_kwargs.eps: None"),
        ({"heads": 5}, "siglip.text_heads is 5, which does not divide siglip.text_hidden_size 48"),
    ],
)
def test_text_towers_unlike_siglips_are_refused(changes, message, tmp_path):
    folder = vits.open_clip_folder(vits.OpenClip(), tmp_path / "clip", **changes)
    with pytest.raises((CheckpointError, ConfigError), match=message):
        load_encoders(str(folder))


def test_an_open_clip_folder_without_its_parts(tmp_path):
    clip = vits.OpenClip()
    folder = vits.open_clip_folder(clip, tmp_path / "clip")
    config = json.loads((folder / "open_clip_config.json").read_text())
    del clip.text
    vits.file_of(clip, folder / "open_clip_model.safetensors")
    with pytest.raises(CheckpointError, match="holds no text tower"):
        load_encoders(str(folder))
    del config["model_cfg"]["vision_cfg"]["timm_model_name"]
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="names no vision_cfg.timm_model_name"):
        load_encoders(str(folder))


# ---------------------------------------------------------------------- positions


@pytest.mark.parametrize(("first", "grid"), [(0, 12), (0, 5), (1, 12)])
def test_positions_are_resized_as_timm_does(first, grid):
    table = torch.randn(first + 64, 96)
    expected = resample_abs_pos_embed(table[None], [grid, grid], [8, 8], num_prefix_tokens=first)
    assert torch.equal(resized_positions(table, old_grid=8, grid=grid), expected[0])
    assert resized_positions(table, old_grid=8, grid=8) is table


def test_the_same_image_size_changes_nothing():
    model, sizes = load_encoders("world-siglip")
    again, found = load_encoders("world-siglip", image_size=64)
    assert found == sizes
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
    assert resized_encoders(model, sizes, 64) == (model, sizes)


def test_another_image_size_changes_the_positions_alone():
    model, sizes = load_encoders("world-siglip")
    wide, found = load_encoders("world-siglip", image_size=96)
    assert (found.image_size, found.grid) == (96, 12)
    name = "vision_model.embeddings.position_embedding.weight"
    before, after = model.state_dict(), wide.state_dict()
    assert torch.equal(after[name], resized_positions(before[name], old_grid=8, grid=12))
    assert all(torch.equal(after[key], before[key]) for key in before if key != name)
    assert wide.vision_model(pixel_values=pictures(96)).pooler_output.shape == (3, 96)
    back, _ = resized_encoders(wide, found, 64)
    assert (back.state_dict()[name] - before[name]).norm() < 0.5 * before[name].norm()


@pytest.mark.parametrize(
    ("size", "message"), [(100, "write 96 or 104"), (3, "write 8 or 16"), (-8, "write 8 or 16")]
)
def test_an_image_size_that_patches_do_not_divide(size, message):
    with pytest.raises(ConfigError, match=f"start.image_size is {size}, which 8-pixel.*{message}"):
        load_encoders("world-siglip", image_size=size)


@pytest.mark.parametrize("name", ["toyvit_tokens", "toyvit_class"])
def test_a_vits_own_positions_follow_too(name, tmp_path):
    vit = vits.vit(name)
    file = vits.file_of(vit, tmp_path / "vit.safetensors")
    model, _ = load_encoders(f"timm/{name}:{file}", text="random", image_size=24)
    vit.set_input_size(24)
    expected = last_but_one(vit, pictures(24))
    torch.testing.assert_close(hidden(model.vision_model, pictures(24)), expected)


def test_a_folder_with_transformers_text_of_another_width(tmp_path):
    """As google/siglip2-giant-opt-patch16-256: 1152 wide words, 1536 wide features."""
    torch.manual_seed(0)
    sizes = tiny.sizes(text_hidden_size=48, text_activation="gelu")
    shutil.copytree(asset("world-tokenizer"), tmp_path, dirs_exist_ok=True)
    model = build_siglip(sizes).eval()
    model.save_pretrained(tmp_path)
    again, found = load_encoders(str(tmp_path))
    assert (found.text_width, found.embed_width, found.text_activation) == (48, 32, "gelu")
    ids = torch.arange(36).view(3, 12)
    first, second = (m.eval().text_model(input_ids=ids).pooler_output for m in (model, again))
    torch.testing.assert_close(first, second)
