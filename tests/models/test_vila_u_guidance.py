"""Drawing with a scale per result, ramps, settings per depth, given beginnings, and what guidance leads from."""

import pytest
import torch

from tests.models import tiny
from tests.models.test_vila_u_generation import GREEDY, PROMPTS, SAMPLING, drawn, forced_logits
from tests.models.test_vila_u_generation import model as model  # noqa: PLC0414 - a fixture
from vilau.errors import CheckpointError, ConfigError, DataError
from vilau.generation.guidance import Guidance
from vilau.generation.sampling import Sampling
from vilau.layers.pixels import to_float
from vilau.models.questions import likeliest_letters
from vilau.models.sequence.config import NULL_TOKEN, PromptConfig
from vilau.models.vila_u.model import VilaU
from vilau.training.language import without_words_to_draw


def guided_argmax(model, prompt, image, scales, negative=""):
    with_words, without = (forced_logits(model, text, image) for text in (prompt, negative))
    return (without + scales[:, None, None] * (with_words - without)).argmax(dim=-1)


@torch.no_grad()
def test_a_ramp_guides_each_position_with_its_own_scale(model):
    (image,) = drawn(model, PROMPTS[:1], Guidance(6.0, start=0.0), [0], GREEDY)
    scales = torch.linspace(0.0, 6.0, 16)
    assert torch.equal(guided_argmax(model, PROMPTS[0], image, scales), image)
    assert not torch.equal(image, drawn(model, PROMPTS[:1], 6.0, [0], GREEDY)[0])


def test_each_result_can_have_a_scale_of_its_own(model):
    """One call draws what separate calls do: the same prompt, the same noise, another scale."""
    scales = [1.0, 1.5, 5.0]
    together = drawn(model, [PROMPTS[1]] * 3, Guidance(scales), [7, 7, 7])
    alone = [drawn(model, [PROMPTS[1]], scale, [7]) for scale in scales]
    assert torch.equal(together, torch.cat(alone))
    assert not torch.equal(together[0], together[2])
    plain = drawn(model, PROMPTS, 1.0, [0, 1, 2])
    assert torch.equal(drawn(model, PROMPTS, Guidance([1.0] * 3), [0, 1, 2]), plain)


def rows_read(model, call):
    """How many rows the language model took in its first call and in the later ones."""
    seen = []
    hook = model.language.model.register_forward_pre_hook(
        lambda m, args, kwargs: seen.append(len(kwargs["inputs_embeds"])), with_kwargs=True
    )
    try:
        call()
    finally:
        hook.remove()
    return seen[0], set(seen[1:])


def test_a_text_that_several_results_share_is_read_once(model):
    scales = Guidance([1.0, 2.0, 3.0])
    # Read: the prompt, the null prompt. Drawn: three rows, and twins of the two that are guided.
    assert rows_read(model, lambda: drawn(model, ["a"] * 3, scales, [1, 1, 1])) == (2, {5})
    assert rows_read(model, lambda: drawn(model, ["a", "b"], 1.0, [1, 1])) == (2, {2})


@torch.no_grad()
def test_each_depth_can_be_drawn_in_a_way_of_its_own(model):
    top_k = [24, 1, 24]
    ways = [Sampling(top_k=k, temperature=4.0) for k in top_k]
    codes = drawn(model, PROMPTS[:1], 1.0, [3], ways)
    logits = forced_logits(model, PROMPTS[0], codes[0])
    assert torch.equal(logits[:, 1].argmax(dim=-1), codes[0, :, 1])
    assert not torch.equal(logits[:, 0].argmax(dim=-1), codes[0, :, 0])
    settings = {"guidance_scale": 1.0, "temperature": 4.0, "top_k": top_k, "top_p": 1.0}
    image = model.generate_images(PROMPTS[0], seed=[3], **settings)
    torch.testing.assert_close(image, model.tokenizer.decode(codes).clamp(-1, 1))


@pytest.mark.parametrize("kept", [1, 9, 15])
def test_a_given_beginning_is_kept_and_the_rest_comes_as_if_it_had_been_drawn(model, kept):
    whole = drawn(model, PROMPTS, 2.0, [4, 5, 6])
    again = drawn(model, PROMPTS, 2.0, [4, 5, 6], given_codes=whole[:, :kept])
    assert torch.equal(again, whole)
    ramp = Guidance(4.0, start=1.0)
    whole = drawn(model, PROMPTS, ramp, [4, 5, 6])
    assert torch.equal(drawn(model, PROMPTS, ramp, [4, 5, 6], given_codes=whole[:, :kept]), whole)


def test_a_clip_goes_on_from_any_beginning(model):
    settings = {"num_frames": 3, "guidance_scale": 2.0, "seed": [8]}
    start, places = "<vi_start>", {"num_positions": 48}
    ways = [Sampling(top_k=900, top_p=0.96)] * 3
    whole = drawn(model, PROMPTS[:1], 2.0, [8], ways, start=start, **places)
    clip = model.generate_videos(PROMPTS[0], **settings)
    for kept in (5, 16, 37):
        again = model.generate_videos(PROMPTS[0], given_codes=whole[:, :kept], **settings)
        assert torch.equal(again, clip)
    other = (whole[:, :16] + 1) % 24
    changed = model.generate_videos(PROMPTS[0], given_codes=other, **settings)
    torch.testing.assert_close(changed[:, 0], model.tokenizer.decode(other).clamp(-1, 1))


def test_a_clip_goes_on_from_several_frames(model):
    frames = to_float(tiny.images(4)).unflatten(0, (2, 2))
    clips = model.generate_videos(["a", "b"], num_frames=3, first_frames=frames)
    kept = model.tokenizer.decode(model.tokenizer.encode(frames.flatten(0, 1))).clamp(-1, 1)
    torch.testing.assert_close(clips[:, :2].flatten(0, 1), kept)
    codes = model.tokenizer.encode(frames[:1, 0])
    with pytest.raises(ConfigError, match="first_frames and given_codes both say how a clip begin"):
        model.generate_videos("a", first_frames=frames[:1], given_codes=codes)
    with pytest.raises(DataError, match="given_codes has the shape .2, 32, 3."):
        model.generate_videos(["a"] * 3, num_frames=3, first_frames=frames)


def test_logits_that_are_no_numbers_are_told(model):
    broken = tiny.vila_u()
    with torch.no_grad():
        broken.head.classifier.bias[3] = float("nan")
        broken.language.lm_head.weight[5] = float("inf")
    with pytest.raises(CheckpointError, match="logits are NaN or infinite, .* its weights are bro"):
        broken.generate_images("a", guidance_scale=1.0)
    with pytest.raises(CheckpointError, match="logits are NaN or infinite"):
        broken.generate_text(None, "a", max_new_tokens=2)
    shown = to_float(tiny.images(1))
    for name, images in (("pictures", shown), ("words", None)):
        with pytest.raises(CheckpointError, match="NaN or infinite, so nothing can be .* ranked"):
            broken.answer_log_likelihoods(images, f"what do {name} show", ["red", "a blue star"])
    with pytest.raises(CheckpointError, match="logits are NaN or infinite"):
        likeliest_letters(broken, shown, ["what is it"], [["red", "a blue star"]])


# ---------------------------------------------------------------------- the learned null


@pytest.fixture(scope="module", params=["plain", "published"])
def learned(request):
    made = tiny.vila_u(prompt=PromptConfig(system="", form=request.param, null="learned"))
    with torch.no_grad():
        made.head.classifier.weight *= 20
        for part in (made.head.hidden_projection, made.language.model.embed_tokens):
            part.weight *= 3
    return made


def null_places(model, text):
    row = model.sequence.drawing_prompts([text]).ids[0]
    return row.tolist().count(model.words.convert_tokens_to_ids(NULL_TOKEN))


@torch.no_grad()
def test_a_learned_null_is_one_vector_in_the_place_of_the_caption(learned):
    assert null_places(learned, NULL_TOKEN) == 1
    assert len(learned.words) == learned.language.model.embed_tokens.num_embeddings
    # Guidance leads away from it, as from the empty text, which is drawn the same way.
    (image,) = drawn(learned, PROMPTS[:1], 3.0, [0], GREEDY)
    scales = torch.full((16,), 3.0)
    assert torch.equal(guided_argmax(learned, PROMPTS[0], image, scales, NULL_TOKEN), image)
    assert torch.equal(drawn(learned, [""], 1.0, [0]), drawn(learned, [NULL_TOKEN], 1.0, [0]))
    # A negative prompt takes its place.
    (other,) = drawn(learned, PROMPTS[:1], 3.0, [0], GREEDY, negative_prompt="two squares")
    assert torch.equal(guided_argmax(learned, PROMPTS[0], other, scales, "two squares"), other)


def test_the_learned_null_is_trained_by_dropped_captions_alone(learned, tmp_path):
    batch, words = tiny.multimodal(), learned.prompt.null_words
    token = learned.words.convert_tokens_to_ids(NULL_TOKEN)
    table = learned.language.model.embed_tokens.weight

    def gradient(documents):
        learned.zero_grad()
        batch.documents = documents
        learned.losses(batch).total().backward()
        return float(table.grad[token].norm())

    assert gradient(batch.documents) == 0
    assert gradient([without_words_to_draw(d, null=words) for d in batch.documents]) > 0
    learned.save(tmp_path / "model")
    again = VilaU.load(tmp_path / "model")
    assert again.prompt.null == "learned"
    assert null_places(again, NULL_TOKEN) == 1
    assert torch.equal(drawn(again, PROMPTS, 2.0, [1, 2, 3]), drawn(learned, PROMPTS, 2.0, [1, 2, 3]))  # fmt: skip


def test_without_one_the_vocabulary_stays_as_it_was(model):
    assert NULL_TOKEN not in model.words.get_vocab()
    assert model.prompt.null_words == ""
    with pytest.raises(ConfigError, match="prompt.null is 'none'; write prompt or learned"):
        PromptConfig(null="none")


def test_given_codes_and_a_shared_prompt_under_lean_attention(model):
    lean = tiny.vila_u(attention="lean")
    lean.load_state_dict(model.state_dict())
    whole = drawn(model, ["a", "a"], Guidance([1.0, 2.0]), [4, 4], SAMPLING)
    again = drawn(lean, ["a", "a"], Guidance([1.0, 2.0]), [4, 4], given_codes=whole[:, :7])
    assert torch.equal(again, whole)
