"""Published checkpoints of other shapes than the recorded one: written out, read back, used."""

import pytest
import torch
from safetensors.torch import load_file

import vilau
from tests.models import published, tiny
from tests.models.published import (
    CHECKPOINT,
    copy,
    edit,
    edit_weights,
    needs_recordings,
    same_state,
)
from tests.models.test_published_export import same_work
from vilau.data.forms import conversation
from vilau.errors import DataError
from vilau.models.sequence.config import PromptConfig
from vilau.models.sequence.prompts import IMAGE_MARK
from vilau.models.vila_u.config import TowerConfig
from vilau.models.vila_u.model import VilaU
from vilau.models.vila_u.published.read_config import decoder_config
from vilau.models.vila_u.tower import VisionTower
from vilau.models.weight_files import WEIGHTS_FILE
from vilau.types import Document, TextSegment, VideoSegment

SIZES = {
    "one depth, many heads": (
        {"num_heads": 8, "text_heads": 4, "text_length": 5}, {"depth": 1, "codebook_size": 70},
        {"multipliers": (2, 1, 1), "attention_grids": ()}, {"num_layers": 1, "num_heads": 8},
        {"extra": {"num_key_value_heads": 1, "rope_theta": 500.0, "rms_norm_eps": 1e-3}},
    ),
    "seven depths, a dropped border, another grid": (
        {"image_size": 22, "num_layers": 2}, {"depth": 7, "codebook_size": 33},
        {"latent_grid": 8, "attention_grids": (8, 32), "num_res_blocks": 2, "z_channels": 20},
        {"width": 40, "num_layers": 3, "num_heads": 5},
        {"tie_embeddings": True, "rope_scaling_factor": 4.0, "extra": {"head_dim": 8}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_sizes_come_back(name, dtype, tmp_path):
    siglip, quantizer, decoder, head, language = SIZES[name]
    torch.manual_seed(0)
    sizes, settings = tiny.sizes(**siglip), tiny.quantizer(search="published", **quantizer)
    tower = VisionTower(TowerConfig(vars(sizes), settings, tiny.decoder(**decoder)))
    prompt = PromptConfig(form="published")
    model = VilaU.start(tower, tiny.language(**language), tiny.head(**head), prompt)
    model = model.eval().to(dtype)
    vilau.export(model, tmp_path)
    for part in ("llm", "vision_tower", "mm_projector"):  # as large models are stored
        state = load_file(tmp_path / part / WEIGHTS_FILE)
        (tmp_path / part / WEIGHTS_FILE).unlink()
        published.write_tensors(state, tmp_path / part, shard_bytes=10_000)
    again = vilau.load(tmp_path)
    assert same_state(model, again)
    assert again.tokenizer.config.decoder == tower.config.decoder
    assert {p.dtype for p in again.parameters()} == {dtype}
    image = torch.rand(3, 3, sizes.image_size, sizes.image_size).to(dtype) * 2 - 1
    with torch.no_grad():
        codes = model.tokenizer.encode(image)
        assert torch.equal(again.tokenizer.encode(image), codes)
        assert torch.equal(again.tokenizer.decode(codes), model.tokenizer.decode(codes))
        hidden = torch.randn(3, codes.shape[1], 32).to(dtype)
        assert torch.equal(again.head(hidden, codes), model.head(hidden, codes))
    if dtype == torch.float32:
        same_work(model, again, sizes.image_size)


@needs_recordings
def test_codebooks_are_shared_unless_they_differ(tmp_path):
    """Where config.json does not say."""
    silent = copy(tmp_path) / "vision_tower"
    edit(silent / "config.json", lambda c: c["rqvaesiglip"].pop("shared_codebook"))
    book = "rqvaesiglip.quantizer.codebooks.{}.{}"
    names = ("weight", "embed_ema", "cluster_size_ema")

    def repeat(state):
        for depth in (1, 2):
            state.update({book.format(depth, n): state[book.format(0, n)].clone() for n in names})

    edit_weights(silent, repeat)
    assert same_state(vilau.load(CHECKPOINT), vilau.load(tmp_path))
    edit_weights(silent, lambda state: state[book.format(2, "weight")].mul_(2))
    own = vilau.load(tmp_path).tokenizer.quantizer
    assert not own.shared_codebook
    assert torch.equal(own.book(2).weight, 2 * own.book(0).weight)


def test_levels_with_attention_are_counted_from_the_coarsest():
    """36 halves three times to 4, which doubles to 8, 16 and 32."""
    written = {
        "ch": 32,
        "ch_mult": [1, 1, 1, 1],
        "num_res_blocks": 1,
        "z_channels": 8,
        "resolution": 36,
    }
    for cells, grids in ((4, (4,)), (16, (16,)), (9, ()), (36, ())):
        part = {"ddconfig": {**written, "attn_resolutions": [cells]}}
        assert decoder_config(part, {}, tiny.sizes(), {}).attention_grids == grids


# ---------------------------------------------------------------- without video tokens


@pytest.fixture
def without_clips(tmp_path):
    """A checkpoint trained with mm_use_vi_start_end: false."""
    folder = copy(tmp_path / "in")
    llm = folder / "llm"
    edit(folder / "config.json", lambda c: c.update(mm_use_vi_start_end=False))
    edit(llm / "config.json", lambda c: c.update(vocab_size=382))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        edit_weights(llm, lambda s, name=name: s.update({name: s[name][:382].clone()}))
    marks = ["<im_start>", "<im_end>"]
    edit(llm / "added_tokens.json", lambda c: [c.pop(n) for n in list(c) if n not in marks])

    def cut(fields):
        fields["additional_special_tokens"] = marks
        for number in ("382", "383"):
            fields.get("added_tokens_decoder", {}).pop(number, None)

    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        edit(llm / file, cut)
    return folder


@needs_recordings
def test_a_model_without_video_tokens_draws_and_reads(without_clips, tmp_path):
    model = vilau.load(without_clips)
    assert len(model.words) == 382
    assert model.sequence.token("<im_end>") == 381
    vilau.export(model, tmp_path / "out")
    model.save(tmp_path / "ours")
    for folder in ("out", "ours"):
        again = vilau.load(tmp_path / folder)
        assert len(again.words) == 382
        assert same_state(model, again)
        same_work(model, again, 32)
    frames = torch.zeros(4, 3, 32, 32)
    assert isinstance(model.generate_text(frames, "what is shown", max_new_tokens=2), str)


@needs_recordings
def test_a_model_without_video_tokens_knows_no_clips(without_clips):
    model = vilau.load(without_clips)
    says = "has no token <vi_start>, so it knows no image or clip"
    with pytest.raises(DataError, match=says):
        model.generate_videos("a cat", num_frames=2)
    clip = Document((TextSegment("a cat"), VideoSegment((0, 1), target=True)))
    with pytest.raises(DataError, match=says):
        model.sequence.lay_out([clip])
    # It learns to answer about clips from bare frames, which need no token.
    model.sequence.lay_out([conversation((0, 1), ["what is shown", "a cat"])])
    with pytest.raises(DataError, match=says):
        model.generate_text(torch.zeros(2, 3, 32, 32), f"<vi_start>{IMAGE_MARK * 2}<vi_end> what")
