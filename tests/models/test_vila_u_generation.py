import pytest
import torch

from tests.models import tiny
from vilau.layers.pixels import to_float

SAMPLING = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
GREEDY = {"temperature": 1.0, "top_k": 1, "top_p": 1.0}
PROMPTS = ["a red circle", "a green star left of two squares", ""]


@pytest.fixture(scope="module")
def model():
    """A model whose pictures depend on the prompt, unlike a freshly made one's."""
    made = tiny.vila_u()
    with torch.no_grad():
        made.head.classifier.weight *= 20
        for part in (made.head.hidden_projection, made.language.model.embed_tokens):
            part.weight *= 3
    return made


def forced_logits(model, prompt, codes):
    """Head logits ``(P, D, K)`` of a drawn image from one uncached, unpadded pass."""
    row = model.sequence.drawing_prompts([prompt])
    words = model.language.model.embed_tokens(row.ids)
    visual = model.projector(model.tokenizer.embed(codes[None]))
    inputs = torch.cat([words, visual[:, :-1]], dim=1)
    hidden = model.language.model(inputs_embeds=inputs).last_hidden_state[0, -len(codes) :]
    return model.head(hidden, model.tokenizer.quantizer.embed_cumulative(codes))


@torch.no_grad()
def test_greedy_codes_are_the_argmax_of_a_full_forward(model):
    codes = model.generate_codes(PROMPTS, guidance_scale=1.0, seeds=[0, 1, 2], **GREEDY)
    assert codes.shape == (3, 16, 3)
    for prompt, drawn in zip(PROMPTS, codes, strict=True):
        assert torch.equal(forced_logits(model, prompt, drawn).argmax(dim=-1), drawn)
    assert not torch.equal(codes[0], codes[1])


@torch.no_grad()
@pytest.mark.parametrize("negative", [None, "two squares"])
def test_guided_codes_are_the_argmax_of_guided_logits(model, negative):
    codes = model.generate_codes(
        PROMPTS[:2], guidance_scale=3.0, seeds=[0, 1], negative_prompt=negative, **GREEDY
    )
    for prompt, drawn in zip(PROMPTS[:2], codes, strict=True):
        with_words = forced_logits(model, prompt, drawn)
        without = forced_logits(model, negative or "", drawn)
        guided = without + 3.0 * (with_words - without)
        assert torch.equal(guided.argmax(dim=-1), drawn)


def test_guidance_of_one_is_no_guidance(model):
    plain = model.generate_codes(PROMPTS, guidance_scale=1.0, seeds=[0, 1, 2], **SAMPLING)
    almost = model.generate_codes(PROMPTS, guidance_scale=1.0 + 1e-6, seeds=[0, 1, 2], **SAMPLING)
    assert torch.equal(plain, almost)


def test_an_image_does_not_depend_on_its_batch(model):
    seeds = [11, 12, 13]
    together = model.generate_codes(PROMPTS, guidance_scale=2.0, seeds=seeds, **SAMPLING)
    alone = [
        model.generate_codes([prompt], guidance_scale=2.0, seeds=[seed], **SAMPLING)
        for prompt, seed in zip(PROMPTS, seeds, strict=True)
    ]
    assert torch.equal(together, torch.cat(alone))
    again = model.generate_codes(PROMPTS, guidance_scale=2.0, seeds=[11, 12, 14], **SAMPLING)
    assert torch.equal(again[:2], together[:2])
    assert not torch.equal(again[2], together[2])


def test_images_are_decoded_codes_within_the_pixel_range(model):
    settings = {"guidance_scale": 2.0, "seeds": [5, 6], "top_k": 12, "top_p": 0.9}
    images = model.generate_images(PROMPTS[:2], **settings)
    codes = model.generate_codes(PROMPTS[:2], temperature=1.0, **settings)
    assert torch.equal(images, model.tokenizer.decode(codes).clamp(-1, 1))
    assert images.shape == (2, 3, tiny.SIDE, tiny.SIDE)


@torch.no_grad()
def test_greedy_answers_are_the_argmax_of_full_forwards(model):
    questions, images = ["what", "how many squares are there"], to_float(tiny.images(2))
    answers = model.generate_text(questions, images, max_new_tokens=5)
    for question, image, answer in zip(questions, images, answers, strict=True):
        row = model.sequence.question_prompts([question], with_images=True)
        inputs = model._inputs(row, model.tokenizer.quantize(image[None]).features)
        tokens = []
        for _ in range(5):
            hidden = model.language.model(inputs_embeds=inputs).last_hidden_state[:, -1]
            tokens.append(int(model.language.lm_head(hidden).argmax()))
            added = model.language.model.embed_tokens(torch.tensor([[tokens[-1]]]))
            inputs = torch.cat([inputs, added], dim=1)
        expected = (
            tokens[: tokens.index(model.words.eos_token_id)]
            if model.words.eos_token_id in tokens
            else tokens
        )
        assert answer == model.words.decode(expected, skip_special_tokens=True).strip()


def scripted(model, script):
    """Make the language model say ``script``: for each step the token of each row."""
    steps = iter(script)

    def say(module, inputs, logits):
        wanted = torch.zeros_like(logits)
        for row, token in enumerate(next(steps)):
            wanted[row, token] = 50.0
        return wanted

    return model.language.lm_head.register_forward_hook(say)


def test_answers_stop_at_the_end_token(model):
    a, b = model.words(" red circle", add_special_tokens=False)["input_ids"]
    end = model.words.eos_token_id
    hook = scripted(model, [(a, b), (end, a), (b, a), (a, end)])  # what row 0 says later is ignored
    try:
        assert model.generate_text(["x", "y"], max_new_tokens=50) == ["red", "circle red red"]
    finally:
        hook.remove()


def test_answers_end_after_the_allowed_number_of_tokens(model):
    a = model.words(" red", add_special_tokens=False)["input_ids"][0]
    hook = scripted(model, [(a,)] * 3)
    try:
        assert model.generate_text(["x"], max_new_tokens=3) == ["red red red"]
    finally:
        hook.remove()


def test_sampled_answers_depend_on_their_seed_alone(model):
    settings = {"max_new_tokens": 6, "temperature": 1.5, "top_p": 0.95}
    together = model.generate_text(["x", "how many"], seeds=[1, 2], **settings)
    assert model.generate_text(["how many"], seeds=[2], **settings) == together[1:]
    assert model.generate_text(["how many"], seeds=[3], **settings) != together[1:]


def test_words_alone_and_images_give_different_answers_in_a_batch_of_any_size(model):
    images = to_float(tiny.images(3))
    many = model.generate_text(["what is it"] * 3, images, max_new_tokens=6)
    assert many == [
        model.generate_text(["what is it"], i[None], max_new_tokens=6)[0] for i in images
    ]


def test_mixed_precision_agrees_with_the_plain_model(model):
    """Left padding, the cache and lean attention under autocast: no row may be lost."""
    lean = tiny.vila_u(attention="lean")
    lean.load_state_dict(model.state_dict())
    plain = lean.generate_codes(PROMPTS, guidance_scale=2.0, seeds=[0, 1, 2], **SAMPLING)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = lean.generate_codes(PROMPTS, guidance_scale=2.0, seeds=[0, 1, 2], **SAMPLING)
    assert torch.equal(
        plain, model.generate_codes(PROMPTS, guidance_scale=2.0, seeds=[0, 1, 2], **SAMPLING)
    )
    first = (plain[:, 0] == mixed[:, 0]).float().mean()  # later positions follow what was drawn
    assert first > 0.6
    assert (mixed == 0).float().mean() < 0.5
