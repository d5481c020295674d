"""The tower against recorded outputs of the published code (tiny random weights, float32)."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from vilau.errors import CheckpointError
from vilau.generation.guidance import guide
from vilau.layers.quantize import ResidualQuantizer
from vilau.models.sizes import SiglipSizes
from vilau.models.vila_u.config import DecoderConfig, HeadConfig, QuantizerConfig, TowerConfig
from vilau.models.vila_u.head import DepthTransformer
from vilau.models.vila_u.published.names import head_state, tower_state
from vilau.models.vila_u.tower import VisionTower

ORACLE = Path(__file__).parents[3] / "shared" / "oracles" / "tower-tiny.pt"
PIXELS = 2e-5
"""The recorded decoder itself is 4e-6 away from float64; convolution kernels differ by processor."""
pytestmark = pytest.mark.skipif(not ORACLE.is_file(), reason=f"no recorded outputs at {ORACLE}")


@pytest.fixture(scope="module")
def recorded():
    return torch.load(ORACLE, weights_only=True)


def built_tower(record) -> VisionTower:
    published = json.loads(record["config_json"])["rqvaesiglip"]
    siglip = json.loads(record["siglip_config_json"])
    vision, text, dd = siglip["vision_config"], siglip["text_config"], published["ddconfig"]
    sizes = SiglipSizes(
        image_size=vision["image_size"],
        patch_size=vision["patch_size"],
        hidden_size=vision["hidden_size"],
        num_layers=vision["num_hidden_layers"],
        num_heads=vision["num_attention_heads"],
        mlp_size=vision["intermediate_size"],
        text_layers=text["num_hidden_layers"],
        text_heads=text["num_attention_heads"],
        text_mlp_size=text["intermediate_size"],
        text_length=text["max_position_embeddings"],
        vocab_size=text["vocab_size"],
    )
    latent = published["decoder_latent_shape"]
    decoder = DecoderConfig(
        channels=dd["ch"],
        multipliers=tuple(dd["ch_mult"]),
        num_res_blocks=dd["num_res_blocks"],
        attention_grids=tuple(dd["attn_resolutions"]),
        z_channels=dd["z_channels"],
        latent_grid=latent[0] if latent else None,
    )
    quantizer = QuantizerConfig(
        depth=published["code_shape"][2], codebook_size=published["n_embed"]
    )
    tower = VisionTower(TowerConfig(vars(sizes), quantizer, decoder))
    tower.load_state_dict(tower_state(record["state_dict"]))
    return tower.eval()


def built_head(record, tower) -> DepthTransformer:
    published = json.loads(record["config_json"])["rqtransformer"]
    config = HeadConfig(
        width=published["embed_dim"],
        num_layers=published["head"]["n_layer"],
        num_heads=published["head"]["block"]["n_head"],
    )
    head = DepthTransformer(
        config,
        depth=published["block_size"][2],
        code_width=published["input_embed_dim_1"],
        hidden_width=published["input_embed_dim_2"],
        codebook_size=published["vocab_size"],
        partial_sums=tower.quantizer.embed_cumulative,
    )
    head.load_state_dict(head_state(record["state_dict"]))
    return head.eval()


def close(found, expected, tolerance):
    torch.testing.assert_close(found, expected, rtol=0.0, atol=tolerance)


@pytest.fixture(scope="module", params=["fp32", "interp"])
def record(request, recorded):
    return recorded[request.param]


@pytest.fixture(scope="module")
def tower(record):
    return built_tower(record)


@torch.no_grad()
def test_images_to_codes(record, tower):
    vision = tower.siglip.vision_model
    hidden = vision.embeddings(record["image"])
    close(hidden, record["hidden_0"], 3e-6)
    for number, block in enumerate(vision.encoder.layers):
        hidden = block(hidden, attention_mask=None)
        close(hidden, record[f"hidden_{number + 1}"], 5e-6)
    close(tower.features(record["image"]), record["hidden_2"], 3e-6)
    seen = tower.quantize(record["image"])
    assert torch.equal(seen.codes, record["code"].flatten(1, 2))
    close(seen.features, record["z_q"].flatten(1, 2), 1e-6)
    close(seen.commitment_loss, record["commitment_loss"], 1e-6)


@torch.no_grad()
def test_codes_to_pixels(record, tower):
    codes = record["code"].flatten(1, 2)
    depths = tower.quantizer.codebook.weight[codes]
    assert torch.equal(depths, record["code_emb_depth"].flatten(1, 2))
    close(tower.embed(codes), record["z_from_codes"].flatten(1, 2), 1e-6)
    close(tower.decode(codes), record["decoded_from_codes"], PIXELS)
    close(tower(record["image"]).images, record["decoded"], PIXELS)


@torch.no_grad()
def test_pooled_features(record, tower):
    text = tower.siglip.text_model(input_ids=record["text_ids"]).pooler_output
    close(text, record["text_pooled"], 2e-6)
    plain = tower.siglip.vision_model(pixel_values=record["image"]).pooler_output
    close(plain, record["siglip_image_pooled_unquantised"], 3e-6)
    image = tower.image_features(record["image"])
    close(image, F.normalize(record["INFERRED_contrastive_image_feature"], dim=-1), 2e-6)
    scale, bias = tower.siglip.logit_scale.exp(), tower.siglip.logit_bias
    logits = scale * image @ F.normalize(text, dim=-1).t() + bias
    expected = record["INFERRED_logits_per_image"]
    close(logits, expected, 2e-5 * float(expected.abs().max()))


def test_straight_through_gradient(record, tower):
    features = record["hidden_2"].clone().requires_grad_()
    seen = tower.quantizer(features)
    loss = (seen.features * record["ste_weight"].flatten(1, 2)).sum()
    (loss + 0.25 * seen.commitment_loss).backward()  # RQ-VAE's commitment weight
    close(features.grad, record["ste_grad_input"].flatten(1, 2), 5e-7)


@torch.no_grad()
def test_depth_transformer(record, tower):
    codes = record["code"].flatten(1, 2)
    logits = built_head(record, tower)(record["llm_hidden"], codes)
    close(logits, record["depth_logits"], 3e-6)
    close(F.cross_entropy(logits.flatten(0, 2), codes.flatten()), record["depth_loss"], 2e-6)


@torch.no_grad()
def test_one_guided_step(record, tower):
    """Two rows with a prompt, then the same two without; the recorded codes are taken as drawn."""
    codes, seen = record["gen_codes"][:, 0], []

    def choose(logits, depth):
        seen.append(guide(logits[:2], logits[2:], 3.0))
        return codes[:, depth]

    drawn, features = built_head(record, tower).sample(
        record["llm_hidden"][:, 0],
        choose=choose,
        vectors=tower.quantizer.vectors,
    )
    assert torch.equal(drawn, codes)
    close(torch.stack(seen), record["gen_guided_logits"], 1.1e-5)
    close(features, record["gen_features"][:, 0], 1e-6)


@pytest.mark.parametrize("restart", [False, True])
@torch.no_grad()
def test_codebook_after_two_training_steps(recorded, restart):
    record = recorded[f"ema_restart_{restart}"]
    x = record["input"].flatten(1, 2)
    before, after = record["before"], record["after"]
    quantizer = ResidualQuantizer(
        depth=3, codebook_size=64, width=x.shape[-1], restart_unused_codes=restart
    ).train()
    book = quantizer.codebook
    book.weight.copy_(before["codebooks.0.weight"][:-1])
    book.cluster_size_ema.copy_(before["codebooks.0.cluster_size_ema"])
    book.embed_ema.copy_(before["codebooks.0.embed_ema"])
    torch.manual_seed(int(record["seed"]))
    for step in record["steps"]:
        seen = quantizer(x)
        assert torch.equal(seen.codes, step["code"].flatten(1, 2))
        torch.testing.assert_close(seen.features, step["z_q"].flatten(1, 2))
        torch.testing.assert_close(seen.commitment_loss, step["commitment_loss"])
    for name in ("cluster_size_ema", "embed_ema"):
        close(getattr(book, name), after[f"codebooks.0.{name}"], 1e-6)
    torch.testing.assert_close(book.weight, after["codebooks.0.weight"][:-1])


def test_both_ways_of_saving_are_read(recorded):
    record = recorded["fp32"]
    whole = tower_state(record["state_dict"])
    kept = {name: record["state_dict"][name] for name in recorded["saved_keys_aliased"]}
    assert set(recorded["saved_keys_cloned"]) == set(record["state_dict"])
    for name, tensor in tower_state(kept).items():
        assert torch.equal(tensor, whole[name])
    assert set(tower_state(kept)) == set(whole) == set(built_tower(record).state_dict())


def test_codebooks_that_differ_are_refused(recorded):
    state = dict(recorded["fp32"]["state_dict"])
    name = "rqvaesiglip.quantizer.codebooks.2.weight"
    state[name] = state[name] + 1
    with pytest.raises(CheckpointError, match="codebooks.2.weight differs from that of depth 0"):
        tower_state(state)
