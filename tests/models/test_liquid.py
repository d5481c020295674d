"""Liquid: a plain language model whose vocabulary holds codes (reference B2, B3)."""

import shutil

import pytest
import torch
import torch.nn.functional as F

import vilau
from tests.models import tiny
from tests.models.forms import FORMS, forms_batch
from vilau.errors import CheckpointError, ConfigError
from vilau.layers.pixels import to_float
from vilau.models.liquid.model import Liquid
from vilau.models.sequence.config import PromptConfig
from vilau.models.sizes import IMAGE_TOKENIZER_FOLDER
from vilau.models.vila_u.model import VilaU
from vilau.types import MultimodalBatch


@pytest.fixture(scope="module")
def model():
    return tiny.liquid(max_length=256)


def as_tokens(model, batch):
    """Rows of one vocabulary, and which of their tokens bear loss: as words, as codes."""
    layout = model.sequence.lay_out(batch.documents)
    rows, words = layout.ids.clone(), layout.targets
    codes = torch.zeros_like(words)
    found = model.tokenizer.encode(to_float(batch.images))[..., 0] + model.code_offset
    for row, start, image, drawn in zip(
        layout.span_rows, layout.span_starts, layout.span_images, layout.span_targets, strict=True
    ):
        rows[row, start : start + found.shape[1]] = found[image]
        codes[row, start : start + found.shape[1]] = drawn
    return rows, words, codes, layout.mask


@pytest.mark.parametrize("form", FORMS)
def test_losses_are_those_of_a_language_model_over_one_vocabulary(model, form):
    batch = forms_batch(form)
    terms = model.losses(batch)
    rows, words, codes, mask = as_tokens(model, batch)
    with torch.no_grad():
        logits = model.language(input_ids=rows, attention_mask=mask).logits[:, :-1]
    nats = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="none")
    for name, bearing in (("text", words), ("visual", codes)):
        expected = nats[bearing[:, 1:].flatten()].sum()
        torch.testing.assert_close(terms.sums[name].detach(), expected, rtol=1e-5, atol=1e-4)
        assert terms.counts[name] == int(bearing.sum())


def test_stored_codes_are_as_good_as_pixels(model):
    batch = forms_batch()
    codes = model.tokenizer.encode(to_float(batch.images))
    stored = MultimodalBatch(batch.images[:0], batch.documents, codes=codes)
    pixels, found = model.losses(batch), model.losses(stored)
    for name, total in pixels.sums.items():
        assert torch.equal(found.sums[name], total)


def test_codes_learn_as_words_do(model):
    """Rows of shown codes get gradients where they are read, and all rows where anything is predicted."""
    learning = tiny.liquid()
    learning.losses(forms_batch()).total().backward()
    read = learning.language.model.embed_tokens.weight.grad[learning.code_offset :]
    shown = learning.tokenizer.encode(to_float(forms_batch().images)).unique()
    assert set(read.abs().sum(dim=1).nonzero()[:, 0].tolist()) <= set(shown.tolist())
    assert read.abs().sum() > 0
    assert (learning.language.lm_head.weight.grad.abs().sum(dim=1) > 0).all()
    assert all(p.grad is None for p in learning.tokenizer.parameters())


@torch.no_grad()
def test_drawing_takes_codes_and_writing_words(model):
    """Whatever the other rows say."""
    loud = tiny.liquid()
    loud.language.lm_head.weight[: loud.code_offset] *= 100
    drawn = loud.generate_images(["a red circle"], seed=3, top_k=0, top_p=1.0)
    assert drawn.shape == (1, 3, tiny.SIDE, tiny.SIDE)
    loud = tiny.liquid()
    loud.language.lm_head.weight[loud.code_offset :] *= 100
    assert loud.generate_text(None, "what", max_new_tokens=4)
    hidden = torch.randn(3, 32)
    whole = model.language.lm_head(hidden)
    torch.testing.assert_close(model.word_logits(hidden), whole[:, : model.code_offset])
    heard = []
    model.sample_codes(hidden, lambda logits, d: heard.append((logits, d)) or logits.argmax(dim=-1))
    assert heard[0][1] == 0
    torch.testing.assert_close(heard[0][0], whole[:, model.code_offset :])


@pytest.mark.parametrize("tied", [False, True])
def test_a_saved_model_is_the_same(tmp_path, tied):
    made = tiny.liquid(tie_embeddings=tied, prompt=PromptConfig(system="", null="learned"))
    made.save(tmp_path)
    loaded = vilau.load(tmp_path)
    assert isinstance(loaded, Liquid)
    assert not loaded.training
    assert loaded.code_offset == len(loaded.words)
    head, table = loaded.language.lm_head.weight, loaded.language.model.embed_tokens.weight
    assert (head is table) == tied
    settings = {"seed": 2, "guidance_scale": 2.0}
    assert torch.equal(
        loaded.generate_images("a star", **settings), made.generate_images("a star", **settings)
    )
    assert loaded.losses(forms_batch()).means() == made.losses(forms_batch()).means()


def test_its_image_tokenizer_is_opened_alone(tmp_path):
    made = tiny.liquid()
    made.save(tmp_path)
    for path in (tmp_path, tmp_path / IMAGE_TOKENIZER_FOLDER):
        assert vilau.load_tokenizer(path).identity() == made.tokenizer.identity()
    with pytest.raises(CheckpointError, match="a vision tower is needed here"):
        vilau.load_tower(tmp_path)


def test_a_tower_of_depth_one_is_an_image_tokenizer(tmp_path):
    made = Liquid.start(tiny.tower(depth=1), tiny.language(), tiny.PROMPT).eval()
    made.save(tmp_path)
    assert vilau.load_tower(tmp_path).identity() == made.tokenizer.identity()
    assert torch.equal(
        vilau.load(tmp_path).generate_images("a star"), made.generate_images("a star")
    )


def test_codes_start_as_spread_as_words():
    torch.manual_seed(0)
    rows = tiny.liquid().language.model.embed_tokens.weight
    offset = tiny.liquid().code_offset
    assert 0.8 < float(rows[offset:].std() / rows[:offset].std()) < 1.2
    assert len(rows[offset:].unique(dim=0)) == 24


def test_several_codes_a_position_are_refused():
    with pytest.raises(
        ConfigError, match="1 scales and 3 codes at each position.*quantizer.depth 1"
    ):
        Liquid.start(tiny.tower(), tiny.language(), tiny.PROMPT)


def test_another_image_tokenizer_is_refused(tmp_path):
    tiny.liquid().save(tmp_path)
    other = tiny.vqgan(codebook_size=32)
    with pytest.raises(CheckpointError, match="trained with the image tokenizer .*of the same run"):
        Liquid.load(tmp_path, other)
    same_size = tiny.vqgan(seed=5)
    with pytest.raises(CheckpointError, match="trained with the image tokenizer .*of the same run"):
        Liquid.load(tmp_path, same_size)
    with pytest.raises(ConfigError, match="has 690 rows, but 666 words and 32 codes need 698"):
        Liquid.load(tmp_path, other, dtype=torch.bfloat16)


def test_without_its_image_tokenizer_it_is_one_sentence(tmp_path):
    tiny.liquid().save(tmp_path)
    shutil.rmtree(tmp_path / IMAGE_TOKENIZER_FOLDER)
    with pytest.raises(
        CheckpointError,
        match="a Liquid without its image tokenizer; copy image_tokenizer/ of the same run",
    ):
        vilau.load(tmp_path)


def test_a_save_that_is_cut_off_leaves_no_older_model(tmp_path, monkeypatch):
    tiny.liquid().save(tmp_path)
    newer = tiny.liquid(seed=1)
    monkeypatch.setattr(newer.tokenizer, "save", lambda folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        newer.save(tmp_path)
    with pytest.raises(CheckpointError, match="holds no config.json"):
        vilau.load(tmp_path)


@torch.no_grad()
def test_rows_that_are_no_words_are_never_written():
    """A table may be longer than its words, before its codes."""
    padded = tiny.liquid()
    model = padded.language
    model.resize_token_embeddings(700 + 24, mean_resizing=False)
    model.lm_head.weight[666:700] = 100 * model.lm_head.weight[:34]
    made = Liquid(
        padded.tokenizer, model, padded.language_config, tiny.PROMPT, padded.words, code_offset=700
    )
    assert made.word_logits(torch.zeros(1, 32)).shape == (1, 666)
    assert isinstance(made.generate_text(None, "what", max_new_tokens=4), str)


def test_it_is_no_vila_u(tmp_path):
    tiny.liquid().save(tmp_path)
    with pytest.raises(CheckpointError, match="describes a liquid, but a vila_u is needed"):
        VilaU.load(tmp_path)
