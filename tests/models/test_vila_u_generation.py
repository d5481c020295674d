import pytest
import torch

from tests.models import tiny
from vilau.errors import ConfigError, DataError
from vilau.generation.guidance import Guidance
from vilau.generation.sampling import Sampling, image_seed
from vilau.layers.pixels import to_float
from vilau.models.next_token.drawing import draw_codes
from vilau.models.next_token.tokenized import embedded
from vilau.models.sequence.config import PromptConfig
from vilau.models.sequence.prompts import chat_segments
from vilau.models.vila_u.config import TowerConfig
from vilau.models.vila_u.model import VilaU
from vilau.models.vila_u.tower import VisionTower

SAMPLING = Sampling()
GREEDY = Sampling(temperature=0.0)
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


@torch.no_grad()
def drawn(model, prompts, scale, seeds, choose=SAMPLING, num_positions=16, **settings):
    return draw_codes(
        model,
        prompts,
        num_positions=num_positions,
        guidance=scale if isinstance(scale, Guidance) else Guidance(scale),
        choose=choose,
        seeds=seeds,
        **settings,
    )


def forced_logits(model, prompt, codes, start="<im_start>"):
    """Head logits ``(P, D, K)`` of drawn codes from one uncached, unpadded pass."""
    row = model.sequence.drawing_prompts([prompt], start=start)
    words = model.language.model.embed_tokens(row.ids)
    visual = model.projector(model.tokenizer.embed(codes[None]))
    inputs = torch.cat([words, visual[:, :-1]], dim=1)
    hidden = model.language.model(inputs_embeds=inputs).last_hidden_state[0, -len(codes) :]
    return model.head(hidden[None], codes[None])[0]


@torch.no_grad()
def test_greedy_codes_are_the_argmax_of_a_full_forward(model):
    codes = drawn(model, PROMPTS, 1.0, [0, 1, 2], GREEDY)
    assert codes.shape == (3, 16, 3)
    for prompt, image in zip(PROMPTS, codes, strict=True):
        assert torch.equal(forced_logits(model, prompt, image).argmax(dim=-1), image)
    first, second = (forced_logits(model, prompt, codes[0]) for prompt in PROMPTS[:2])
    assert (first - second).abs().max() > 0.01  # the prompt is read


@torch.no_grad()
@pytest.mark.parametrize("negative", [None, "two squares"])
def test_guided_codes_are_the_argmax_of_guided_logits(model, negative):
    codes = drawn(model, PROMPTS[:2], 3.0, [0, 1], GREEDY, negative_prompt=negative)
    for prompt, image in zip(PROMPTS[:2], codes, strict=True):
        with_words = forced_logits(model, prompt, image)
        without = forced_logits(model, negative or "", image)
        guided = without + 3.0 * (with_words - without)
        assert torch.equal(guided.argmax(dim=-1), image)


@torch.no_grad()
def test_drawing_reads_the_codebook_of_each_depth():
    """A full forward, which sums code vectors by ``embed_cumulative``, finds the same greedy codes."""
    torch.manual_seed(0)
    quantizer = tiny.quantizer(shared_codebook=False)
    tower = VisionTower(TowerConfig(vars(tiny.sizes()), quantizer, tiny.decoder()))
    made = VilaU.start(tower, tiny.language(), tiny.head(), tiny.PROMPT).eval()
    made.head.classifier.weight *= 20
    assert not torch.equal(tower.quantizer.book(0).weight, tower.quantizer.book(1).weight)
    codes = drawn(made, PROMPTS[:2], 1.0, [0, 1], GREEDY)
    for prompt, image in zip(PROMPTS[:2], codes, strict=True):
        assert torch.equal(forced_logits(made, prompt, image).argmax(dim=-1), image)


def test_guidance_of_one_is_no_guidance(model):
    plain = drawn(model, PROMPTS, 1.0, [0, 1, 2])
    almost = drawn(model, PROMPTS, 1.0 + 1e-6, [0, 1, 2])
    assert torch.equal(plain, almost)


def test_an_image_does_not_depend_on_its_batch(model):
    seeds = [11, 12, 13]
    together = drawn(model, PROMPTS, 2.0, seeds)
    alone = [drawn(model, [p], 2.0, [seed]) for p, seed in zip(PROMPTS, seeds, strict=True)]
    assert torch.equal(together, torch.cat(alone))
    again = drawn(model, PROMPTS, 2.0, [11, 12, 14])
    assert torch.equal(again[:2], together[:2])
    assert not torch.equal(again[2], together[2])


def test_images_are_decoded_codes_within_the_pixel_range(model):
    images = model.generate_images(
        PROMPTS[:2], guidance_scale=2.0, seed=[5, 6], top_k=12, top_p=0.9
    )
    codes = drawn(model, PROMPTS[:2], 2.0, [5, 6], Sampling(top_k=12, top_p=0.9))
    assert torch.equal(images, model.tokenizer.decode(codes).clamp(-1, 1))
    assert images.shape == (2, 3, tiny.SIDE, tiny.SIDE)
    assert images.dtype == torch.float32


def test_several_images_of_a_prompt_have_seeds_of_their_own(model):
    images = model.generate_images(PROMPTS[:2], seed=7, num_images=2)
    assert images.shape[0] == 4
    third = model.generate_images(PROMPTS[1], seed=[image_seed(7, 2)])
    torch.testing.assert_close(images[2:3], third)  # the decoder's sums round by batch
    assert not torch.allclose(images[2], images[3], atol=0.1)
    torch.testing.assert_close(model.generate_images(PROMPTS[0], seed=7), images[:1])


def test_top_k_of_more_than_the_codebook_keeps_all(model):
    settings = {"top_p": 1.0, "seed": 3}
    everything = model.generate_images("a red circle", top_k=0, **settings)
    assert torch.equal(model.generate_images("a red circle", top_k=900, **settings), everything)


def test_greedy_images_need_no_seed(model):
    one, two = (model.generate_images("a red circle", temperature=0, seed=s) for s in (1, 2))
    assert torch.equal(one, two)


@torch.no_grad()
def test_a_clip_is_frames_drawn_in_one_go(model):
    codes = drawn(model, PROMPTS[:2], 1.0, [0, 1], GREEDY, num_positions=48, start="<vi_start>")
    for prompt, clip in zip(PROMPTS[:2], codes, strict=True):
        forced = forced_logits(model, prompt, clip, start="<vi_start>")
        assert torch.equal(forced.argmax(dim=-1), clip)
    videos = model.generate_videos(
        PROMPTS[:2], num_frames=3, num_videos=2, guidance_scale=1.0, temperature=0
    )
    assert videos.shape == (4, 3, 3, tiny.SIDE, tiny.SIDE)
    frames = model.tokenizer.decode(codes[1].view(3, 16, 3)).clamp(-1, 1)
    assert torch.equal(videos[2], frames)
    assert torch.equal(videos[3], frames)


def test_given_codes_are_kept_and_the_rest_follows_from_them(model):
    whole = drawn(model, PROMPTS[:2], 2.0, [1, 2], GREEDY)
    half = whole[:, :9]
    assert torch.equal(drawn(model, PROMPTS[:2], 2.0, [1, 2], GREEDY, given_codes=half), whole)
    other = (half + 1) % 24
    changed = drawn(model, PROMPTS[:2], 2.0, [1, 2], GREEDY, given_codes=other)
    assert torch.equal(changed[:, :9], other)
    image = model.generate_images(PROMPTS[0], num_images=2, given_codes=whole[:1])
    expected = model.tokenizer.decode(whole[:1]).clamp(-1, 1).expand(2, -1, -1, -1)
    torch.testing.assert_close(image, expected)


def test_a_clip_goes_on_from_its_first_frame(model):
    first = to_float(tiny.images(1))
    clip = model.generate_videos("two squares", num_frames=2, num_videos=2, first_frames=first)
    kept = model.tokenizer.decode(model.tokenizer.encode(first)).clamp(-1, 1)
    torch.testing.assert_close(clip[:, 0], kept.expand(2, -1, -1, -1))
    assert not torch.equal(clip[0, 1], clip[1, 1])


def test_progress_counts_positions(model):
    heard = []
    model.generate_videos("a", num_frames=2, progress=lambda *counts: heard.append(counts))
    assert heard == [(i, 32) for i in range(1, 33)]


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({"prompts": []}, DataError, "prompts is empty; give at least one text"),
        ({"num_images": 0}, ConfigError, "num_images is 0; write 1 or more"),
        ({"guidance_scale": float("nan")}, ConfigError, "guidance_scale is nan"),
        ({"temperature": -1.0}, ConfigError, "temperature is -1.0"),
        ({"seed": [1, 2]}, DataError, "seed holds 2 seeds for 1 results"),
        (
            {"given_codes": torch.zeros(1, 17, 3)},
            DataError,
            r"given_codes has the shape \(1, 17, 3\)",
        ),
        ({"given_codes": torch.full((1, 2, 3), 24)}, DataError, "other values than codes 0 to 23"),
        (
            {"prompts": "red " * 2000},
            DataError,
            "the prompt 'red red .*…' takes .* max_length is 1024; give fewer",
        ),
    ],
)
def test_requests_that_cannot_be_drawn_are_refused(model, settings, error, told):
    with pytest.raises(error, match=told):
        model.generate_images(**{"prompts": "a", **settings})


@torch.no_grad()
def test_greedy_answers_are_the_argmax_of_full_forwards(model):
    questions, images = ["what", "how many squares are there"], to_float(tiny.images(2))
    answers = model.answer(images, questions, max_new_tokens=5)
    for question, image, answer in zip(questions, images, answers, strict=True):
        row = model.sequence.answer_prompts([chat_segments(question, [0], bare=False)])
        inputs = embedded(model, row, model.encode(image[None]))
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
        assert model.answer(None, ["x", "y"], max_new_tokens=50) == ["red", "circle red red"]
    finally:
        hook.remove()


def test_answers_end_after_the_allowed_number_of_tokens(model):
    a = model.words(" red", add_special_tokens=False)["input_ids"][0]
    hook = scripted(model, [(a,)] * 3)
    try:
        assert model.generate_text(None, "x", max_new_tokens=3) == "red red red"
    finally:
        hook.remove()


def test_sampled_answers_depend_on_their_seed_alone(model):
    settings = {"max_new_tokens": 6, "temperature": 1.5, "top_p": 0.95}
    together = model.answer(None, ["x", "how many"], seeds=[1, 2], **settings)
    assert model.generate_text(None, "how many", seed=2, **settings) == together[1]
    assert model.generate_text(None, "how many", seed=3, **settings) != together[1]


def test_words_alone_and_images_give_different_answers_in_a_batch_of_any_size(model):
    images = to_float(tiny.images(3))
    many = model.answer(images, ["what is it"] * 3, max_new_tokens=6)
    assert many == [model.generate_text(i[None], "what is it", max_new_tokens=6) for i in images]
    assert model.answer(None, []) == []


def seen_by(model, images, prompt, monkeypatch):
    """Chat as the language model gets it: text with <image n> where image n of ``images`` stands."""
    asked = []
    lay_out = model.sequence.answer_prompts

    def spied(chats):
        asked.extend(chats)
        return lay_out(chats)

    monkeypatch.setattr(model.sequence, "answer_prompts", spied)
    model.generate_text(images, prompt, max_new_tokens=1)
    return "".join(getattr(s, "text", None) or f"<image {s.index}>" for chat in asked for s in chat)


def test_several_images_stand_first_or_where_the_marks_are(model, monkeypatch):
    images = to_float(tiny.images(2))
    assert seen_by(model, images, "same ?", monkeypatch) == "<image 0><image 1>same ?"
    shots = ["<image> what", "red", "<image> what"]
    assert seen_by(model, images, shots, monkeypatch) == "<image 0> whatred<image 1> what"


def test_an_answer_depends_on_history_images_and_their_order(model):
    images = to_float(tiny.images(2))
    chats = [
        (None, "how many"),
        (None, ["a red circle", "two", "how many"]),
        (images, "how many"),
        (images.flip(0), "how many"),
        (images, "how many <image> <image>"),
    ]
    logits = []
    hook = model.language.lm_head.register_forward_hook(lambda m, i, out: logits.append(out))
    try:
        for shown, prompt in chats:
            model.generate_text(shown, prompt, max_new_tokens=1)
    finally:
        hook.remove()
    for one in range(len(logits)):
        for other in range(one):
            assert not torch.allclose(logits[one], logits[other], atol=1e-4)


def test_pieces_of_an_answer_join_to_it(model):
    pieces = []
    answer = model.generate_text(
        None, "x", max_new_tokens=12, temperature=1.5, seed=4, on_token=pieces.append
    )
    assert len(pieces) > 3
    assert "".join(pieces) == answer


def test_an_answer_ends_where_the_language_model_does():
    small = tiny.vila_u(max_length=40)
    hook = scripted(small, [(5,)] * 40)
    written = []
    try:
        small.language.lm_head.register_forward_hook(lambda m, i, out: written.append(out))
        small.generate_text(None, "how many", max_new_tokens=100)
    finally:
        hook.remove()
    prompt = small.sequence.answer_prompts([chat_segments("how many", [], bare=False)])
    assert len(written) == 40 - prompt.ids.shape[1]


@pytest.mark.parametrize(
    ("images", "prompt", "settings", "error", "told"),
    [
        (
            tiny.images(1),
            "a",
            {},
            DataError,
            r"images is uint8 \(1, 3, 16, 16\); give float \(N, 3",
        ),
        (torch.zeros(3, 16, 16), "a", {}, DataError, r"images is float32 \(3, 16, 16\)"),
        (torch.full((1, 3, 16, 16), 255.0), "a", {}, DataError, "values up to 255; scale them"),
        (None, "<image> a", {}, DataError, "1 <image> marks for 0 images"),
        (None, ["a", "b"], {}, DataError, "ending with the user"),
        (None, "a", {"max_new_tokens": 0}, ConfigError, "max_new_tokens is 0; write 1 or more"),
        (None, "a", {"top_p": 0.0}, ConfigError, "top_p is 0.0"),
        (
            None,
            "red " * 2000,
            {},
            DataError,
            "the prompt 'red red .*…' takes .* max_length is 1024",
        ),
    ],
)
def test_chats_that_cannot_be_answered_are_refused(model, images, prompt, settings, error, told):
    with pytest.raises(error, match=told):
        model.generate_text(images, prompt, **settings)


def test_questions_and_images_must_be_as_many(model):
    with pytest.raises(DataError, match="2 questions have 1 images; give one image for each"):
        model.answer(to_float(tiny.images(1)), ["a", "b"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_on_a_cpu(dtype):
    half = tiny.vila_u(prompt=PromptConfig(form="published")).to(dtype)
    images = to_float(tiny.images(2))
    assert half.generate_images(["a", ""], seed=1).isfinite().all()
    assert half.generate_videos("a", num_frames=2, first_frames=images[:1]).isfinite().all()
    assert isinstance(half.generate_text(images, "a", max_new_tokens=2), str)
    assert isinstance(half.generate_text(None, "a", max_new_tokens=2, temperature=0.9), str)


def test_mixed_precision_agrees_with_the_plain_model(model):
    """Left padding, the cache and lean attention under autocast: no row may be lost."""
    lean = tiny.vila_u(attention="lean")
    lean.load_state_dict(model.state_dict())
    plain = drawn(lean, PROMPTS, 2.0, [0, 1, 2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = drawn(lean, PROMPTS, 2.0, [0, 1, 2])
    assert torch.equal(plain, drawn(model, PROMPTS, 2.0, [0, 1, 2]))
    first = (plain[:, 0] == mixed[:, 0]).float().mean()  # later positions follow what was drawn
    assert first > 0.6
    assert (mixed == 0).float().mean() < 0.5
