"""Published checkpoints through ``vilau.load``: what they compute, and where their sizes come from."""

import pytest
import torch
import torch.nn.functional as F

import vilau
from tests.models import published
from tests.models.published import CHECKPOINT, EXPECTED, TOWERS, copy, edit, same_state, with_tower
from vilau.errors import CheckpointError
from vilau.models.sequence.config import PromptConfig

pytestmark = published.needs_recordings

PIXELS = 2e-5
"""See test_oracle_tower."""


@pytest.fixture(scope="module")
def towers():
    return torch.load(TOWERS, weights_only=True)


@pytest.fixture(scope="module")
def expected():
    return torch.load(EXPECTED, weights_only=True)


@pytest.fixture(scope="module")
def model():
    return vilau.load(CHECKPOINT)


def close(found, wanted, tolerance):
    torch.testing.assert_close(found, wanted, rtol=0.0, atol=tolerance)


# ---------------------------------------------------------------- what a checkpoint computes


@pytest.mark.parametrize("name", ["fp32", "interp"])
@torch.no_grad()
def test_a_recorded_tower_computes_the_record(towers, name, tmp_path):
    record = towers[name]
    model = vilau.load(with_tower(tmp_path, record))
    tower, codes = model.tokenizer, record["code"].flatten(1, 2)
    hidden = tower.siglip.vision_model.embeddings(record["image"])
    close(hidden, record["hidden_0"], 3e-6)
    close(tower.features(record["image"]), record["hidden_2"], 3e-6)
    assert torch.equal(tower.encode(record["image"]), codes)
    close(tower.quantize(record["image"]).features, record["z_q"].flatten(1, 2), 1e-6)
    close(tower.embed(codes), record["z_from_codes"].flatten(1, 2), 1e-6)
    close(tower.decode(codes), record["decoded_from_codes"], PIXELS)
    close(model.head(record["llm_hidden"], codes), record["depth_logits"], 3e-6)
    text = tower.siglip.text_model(input_ids=record["text_ids"]).pooler_output
    close(text, record["text_pooled"], 2e-6)
    wanted = F.normalize(record["INFERRED_contrastive_image_feature"], dim=-1)
    close(tower.image_features(record["image"]), wanted, 2e-6)
    assert tower.spec.levels == (tuple(record["code"].shape[1:3]),)


def test_the_language_model_computes_the_record(model, expected):
    batch = expected["train"]["mixed"]
    position = batch["packed_pos"][:1, :60]
    with torch.no_grad():
        states = model.language.model(inputs_embeds=batch["packed_embeds"][:1, :60])
        logits = model.language.lm_head(states.last_hidden_state)
    assert torch.equal(position, torch.arange(60)[None])  # the first sample of a packed row
    close(logits, batch["logits"][:1, :60], 5e-6)
    assert model.language.config.rope_parameters["factor"] == 2.0


def test_prompts_and_ids_are_the_recorded_ones(model, expected):
    assert {name: model.words.convert_tokens_to_ids(name) for name in expected["ids"]} == expected[
        "ids"
    ]
    assert len(model.words) == expected["vocab"]["resized"] == model.language.config.vocab_size
    assert model.prompt == PromptConfig(form="published")
    for recorded in expected["inference_prompts"].values():
        pieces = [model.words(piece)["input_ids"] for piece in recorded["text"].split("<image>")]
        ids = pieces[0] + [id_ for piece in pieces[1:] for id_ in [-200, *piece[1:]]]
        assert ids == recorded["ids"].tolist()


@torch.no_grad()
def test_the_bfloat16_tower_keeps_its_format(towers, tmp_path):
    record = towers["bf16"]
    tower = vilau.load_tower(with_tower(tmp_path, record) / "vision_tower")
    assert {parameter.dtype for parameter in tower.parameters()} == {torch.bfloat16}
    assert tower.quantizer.codebook.weight.dtype == torch.float32
    decoded = tower.decode(record["code"].flatten(1, 2))
    assert decoded.dtype == torch.bfloat16
    tower.set_search("published")
    assert torch.equal(tower.encode(record["image"]), record["code"].flatten(1, 2))
    # Eight bits of mantissa: the record is as far from its own float32 decoding.
    assert F.mse_loss(decoded.float(), record["decoded_from_codes"].float()).sqrt() < 0.03
    edit(tmp_path / "config.json", lambda c: c.update(model_dtype="torch.float99"))
    with pytest.raises(CheckpointError, match="stored in several formats"):
        vilau.load(tmp_path)
    edit(tmp_path / "config.json", lambda c: c.update(model_dtype="torch.bfloat16"))
    assert {p.dtype for p in vilau.load(tmp_path).parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_every_number_format_encodes_and_decodes_on_the_cpu(towers, model, dtype):
    loaded = vilau.load(CHECKPOINT, dtype=dtype)
    tower = loaded.tokenizer
    assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
    rotary, whole = (m.language.model.rotary_emb.inv_freq for m in (loaded, model))
    assert torch.equal(rotary, whole)  # rounding them would move every word
    images = towers["fp32"]["image"]
    codes = tower.encode(images)
    assert (codes == model.tokenizer.encode(images)).float().mean() > 0.8
    pixels = tower.decode(codes)
    assert pixels.shape == images.shape
    assert pixels.dtype == dtype
    close(pixels.float(), model.tokenizer.decode(codes), 0.15 if dtype is torch.bfloat16 else 0.02)
    close(tower.image_features(images).norm(dim=-1), torch.ones(len(images)), 1e-2)


# ---------------------------------------------------------------- forms of a checkpoint


def test_both_ways_of_saving_load(towers, tmp_path):
    record = towers["fp32"]
    whole = vilau.load(with_tower(tmp_path / "cloned", record))
    kept = {name: record["state_dict"][name] for name in towers["saved_keys_aliased"]}
    assert set(kept) < set(towers["saved_keys_cloned"]) == set(record["state_dict"])
    assert same_state(whole, vilau.load(with_tower(tmp_path / "aliased", record, kept)))
    inner = {
        name.replace("rqvaesiglip.logit_", "rqvaesiglip.siglip_model.logit_"): tensor
        for name, tensor in kept.items()
    }
    assert same_state(whole, vilau.load(with_tower(tmp_path / "inner", record, inner)))


def test_codebooks_that_differ_are_refused(towers, tmp_path):
    state = dict(towers["fp32"]["state_dict"])
    name = "rqvaesiglip.quantizer.codebooks.2.embed_ema"
    state[name] = state[name] + 1
    folder = with_tower(tmp_path, towers["fp32"], state)
    with pytest.raises(CheckpointError, match="codebooks.2.embed_ema differs from that of depth 0"):
        vilau.load(folder)


def test_codebooks_of_their_own_are_read(towers, tmp_path):
    record, changed = towers["fp32"], "rqvaesiglip.quantizer.codebooks.2.weight"
    state = {**record["state_dict"], changed: record["state_dict"][changed] * 2}
    folder = with_tower(tmp_path, record, state)
    unshare(folder)
    shared, own = vilau.load(CHECKPOINT), vilau.load(folder)
    books = [book.weight for book in own.tokenizer.quantizer.codebooks]
    assert torch.equal(books[0], state["rqvaesiglip.quantizer.codebooks.0.weight"][:-1])
    assert torch.equal(books[2], 2 * books[0])
    codes = record["code"].flatten(1, 2)
    wanted = books[0][codes[..., 0]] + books[1][codes[..., 1]] + 2 * books[0][codes[..., 2]]
    close(own.tokenizer.embed(codes), wanted, 1e-6)
    assert shared.tokenizer.quantizer.shared_codebook


def unshare(folder):
    edit(
        folder / "vision_tower" / "config.json",
        lambda c: c["rqvaesiglip"].update(shared_codebook=False),
    )


def test_codebooks_that_are_not_shared_must_all_be_there(towers, tmp_path):
    record = towers["fp32"]
    kept = {name: record["state_dict"][name] for name in towers["saved_keys_aliased"]}
    folder = with_tower(tmp_path, record, kept)
    unshare(folder)
    with pytest.raises(CheckpointError, match="shared_codebook: false but the codebook of depth 0"):
        vilau.load(folder)


def test_shards_are_joined(model, tmp_path):
    copy(tmp_path)
    (tmp_path / "llm" / "model.safetensors").unlink()
    state = vilau.load(CHECKPOINT).language.state_dict()
    published.write_tensors(state, tmp_path / "llm", shard_bytes=60_000)
    files = sorted(path.name for path in (tmp_path / "llm").glob("model*"))
    assert len(files) > 3
    assert same_state(model, vilau.load(tmp_path))
    (tmp_path / "llm" / files[1]).unlink()
    with pytest.raises(
        CheckpointError, match=f"{files[1]}, which model.safetensors.index.json names"
    ):
        vilau.load(tmp_path)


def test_a_folder_called_model_inside_is_found(model, tmp_path):
    copy(tmp_path / "model")
    assert same_state(model, vilau.load(tmp_path))
