"""What a unified model promises, whatever is inside: batches, caches, guidance and broken weights."""

import pytest
import torch

import vilau
from tests.models import tiny
from tests.models.forms import FORMS, forms_batch
from vilau.errors import CheckpointError, DataError
from vilau.generation.guidance import Guidance
from vilau.layers.pixels import to_float
from vilau.models.next_token.drawing import draw_codes
from vilau.models.next_token.model import NextTokenModel
from vilau.models.sequence.prompts import chat_segments

PROMPTS = ["a red circle", "a green star left of two squares"]


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def model(request):
    """A model whose pictures depend on the prompt, unlike a freshly made one's."""
    return tiny.outspoken(tiny.FAMILIES[request.param](max_length=256))


def test_a_batch_is_the_sum_of_its_documents_in_all_forms(model):
    together = model.losses(forms_batch())
    alone = [model.losses(forms_batch(name)) for name in FORMS]
    for name in ("text", "visual"):
        torch.testing.assert_close(
            together.sums[name], sum(a.sums[name] for a in alone), rtol=1e-5, atol=1e-4
        )
        assert together.counts[name] == sum(a.counts[name] for a in alone)


@torch.no_grad()
def test_cached_logits_of_codes_are_those_of_a_full_forward(model):
    """With guidance as well: at each depth of each position, for both rows of a batch."""
    if not isinstance(model, NextTokenModel):
        pytest.skip("draws otherwise: tests of its own")
    heard = []

    def choose(logits, uniforms):
        heard.append(logits.clone())
        return logits.argmax(dim=-1)

    for scale in (1.0, 2.5):
        heard.clear()
        codes = draw_codes(
            model, PROMPTS, num_positions=16, guidance=Guidance(scale), choose=choose, seeds=[0, 1]
        )
        cached = torch.stack(heard, dim=1).unflatten(1, (16, -1))
        for row, prompt in enumerate(PROMPTS):
            with_words, without = (_full_logits(model, text, codes[row]) for text in (prompt, ""))
            expected = without + scale * (with_words - without)
            torch.testing.assert_close(cached[row], expected, rtol=1e-4, atol=1e-3)


def _full_logits(model, prompt, codes):
    row = model.sequence.drawing_prompts([prompt])
    visual = model.embed_codes(codes[None])
    words = model.language.model.embed_tokens(row.ids)
    inputs = torch.cat([words, visual[:, :-1]], dim=1)
    hidden = model.language.model(inputs_embeds=inputs).last_hidden_state[:, -len(codes) :]
    return tiny.code_logits(model, hidden, codes[None])[0]


@torch.no_grad()
def test_cached_logits_of_words_are_those_of_a_full_forward(model, monkeypatch):
    heard, word_logits = [], model.word_logits
    monkeypatch.setattr(model, "word_logits", lambda h: heard.append(word_logits(h)) or heard[-1])
    image = to_float(tiny.images(1))
    model.generate_text(image, "what", max_new_tokens=4)
    row = model.sequence.answer_prompts([chat_segments("what", [0], bare=False)])
    inputs = model.embedded(row, model.see(image))
    for logits in heard:
        full = model.language(inputs_embeds=inputs).logits[:, -1, : len(model.words)]
        torch.testing.assert_close(logits.flatten(), full.flatten(), rtol=1e-4, atol=1e-4)
        added = model.language.model.embed_tokens(full.argmax(dim=-1, keepdim=True))
        inputs = torch.cat([inputs, added], dim=1)
    assert heard


def test_guidance_of_one_reads_the_prompt_alone(model):
    settings = {"guidance_scale": 1.0, "seed": [3, 4]}
    plain = model.generate_images(PROMPTS, **settings)
    for negative in ("two squares", "a red circle"):
        assert torch.equal(
            model.generate_images(PROMPTS, negative_prompt=negative, **settings), plain
        )
    guided = model.generate_images(PROMPTS, guidance_scale=3.0, seed=[3, 4])
    assert not torch.equal(guided, plain)


def test_two_results_are_those_of_two_calls(model):
    images = to_float(tiny.images(2))
    both = model.generate_images(PROMPTS, seed=[3, 4])
    answers = model.answer(images, ["what", "how many squares are there"], max_new_tokens=6)
    for row, (prompt, question) in enumerate(
        zip(PROMPTS, ["what", "how many squares are there"], strict=True)
    ):
        own = model.generate_images(prompt, seed=[3 + row])
        torch.testing.assert_close(own, both[row : row + 1])  # the decoder's sums round by batch
        assert model.generate_text(images[row, None], question, max_new_tokens=6) == answers[row]


def test_an_answer_ends_where_its_own_room_does(model):
    """However long the questions beside it are."""
    images, asked = to_float(tiny.images(2)), ["what", "how many " * 110]
    together = model.answer(images, asked, max_new_tokens=200)
    alone = [model.generate_text(images[n, None], asked[n], max_new_tokens=200) for n in (0, 1)]
    assert together == alone
    assert len(together[0].split()) > len(together[1].split()) > 0
    with pytest.raises(DataError, match="the prompt 'how many how many .*…' takes .* positions"):
        model.answer(images, ["what", "how many " * 120], max_new_tokens=5)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_it_reads_and_draws_as_well(family, dtype, tmp_path):
    tiny.FAMILIES[family]().save(tmp_path)
    half = vilau.load(tmp_path, dtype=dtype)
    images = to_float(tiny.images(1))
    assert half.generate_images("a star", seed=1).shape == images.shape
    assert isinstance(half.generate_text(images, "what", max_new_tokens=3), str)
    assert half.losses(forms_batch()).counts == tiny.FAMILIES[family]().losses(forms_batch()).counts


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_are_one_sentence(family, temperature):
    broken = tiny.FAMILIES[family]()
    with torch.no_grad():
        broken.language.model.norm.weight.fill_(float("nan"))
    for call in (broken.generate_images, lambda *a, **k: broken.generate_text(None, *a, **k)):
        with pytest.raises(
            CheckpointError, match="logits are NaN or infinite.*take another checkpoint"
        ):
            call("a red circle", temperature=temperature)
