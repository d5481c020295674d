"""VARGPT: features to read, scales to draw, and what joins them."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from tests.models import tiny
from tests.models.forms import forms_batch
from vilau.apps.chat import Conversation
from vilau.errors import ConfigError, DataError
from vilau.generation.guidance import Guidance
from vilau.generation.sampling import image_seed, row_uniforms
from vilau.layers.pixels import to_float
from vilau.models.sequence.prompts import VIDEO_START, chat_segments
from vilau.models.vargpt.drawing import draw_scales
from vilau.models.vargpt.model import Vargpt
from vilau.models.vargpt.reader import PictureReader, build_vision
from vilau.types import Document, ImageSegment, MultimodalBatch, TextSegment

SIDES, P, Q = (1, 2, 4), 21, 9
DRAW = Document((TextSegment("a red circle"), ImageSegment(0, target=True)))
READ = Document((ImageSegment(0), TextSegment("what"), TextSegment("a star", target=True)))
WORDS = Document((TextSegment("a", target=True),))
PROMPTS = ["a red circle", "a green star left of two squares"]


@pytest.fixture(scope="module")
def model():
    return tiny.outspoken(tiny.vargpt(max_length=256))


def given(model, documents, **changes):
    (layout,) = model.sequence.lay_out_in(1, documents, **changes)
    return layout


# ---------------------------------------------------------------------- what stands where


def test_pictures_to_read_and_to_draw_have_places_of_their_own(model):
    word = TextSegment("red")
    documents = [
        Document((word, ImageSegment(0, target=drawn), word), chat=False) for drawn in (True, False)
    ]
    layout = given(model, documents)
    assert layout.span_drawn.tolist() == layout.span_targets.tolist() == [True, False]
    alone = int(given(model, [Document((word, word), chat=False)]).mask.sum())
    assert layout.mask.sum(dim=1).tolist() == [alone + P + 2, alone + Q + 2]  # between two marks
    start = int(layout.span_starts[0])
    # No state is shifted: each predicts the code of its own cell.
    assert layout.span_sources[0].tolist() == list(range(start, start + P))


def test_a_masked_drawing_still_stands_as_one(model):
    masked = Document(DRAW.segments, masked=True)
    layout = given(model, [masked])
    assert (layout.span_drawn.tolist(), layout.span_targets.tolist()) == ([True], [False])
    batch = MultimodalBatch(tiny.images(1), [masked])
    assert model.losses(batch).counts == {"text": 0, "visual": 0}


def test_cells_are_shown_coarser_scales_and_patches_features(model):
    """Embeddings by hand: VAR's maps through decoder and projector, an inner layer of the encoder through another."""
    images = tiny.images(2)
    document = Document((ImageSegment(1), TextSegment("red"), ImageSegment(0, target=True)))
    layout = given(model, [document])
    inputs = model.embedded(layout, model.see(images))[0]
    read, drawn = layout.span_starts.tolist()
    pixels = to_float(images)
    codes = model.tokenizer.encode(pixels[:1])
    maps = model.tokenizer.quantizer.shown(codes[..., 0])
    decoder = model.decoder
    cells = torch.cat(
        [
            decoder.condition_embedding.weight[:1, None] + decoder.start,
            decoder.code_projection(maps),
        ],
        dim=1,
    )
    levels = torch.tensor([0] + [1] * 4 + [2] * 16)
    cells = cells + decoder.level_embedding.weight[levels] + decoder.position_embedding
    torch.testing.assert_close(inputs[drawn : drawn + P], model.to_language(cells)[0])

    small = F.interpolate(pixels[1:], size=(12, 12), mode="bicubic", antialias=True).clamp(-1, 1)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    vision = model.reader.vision
    hidden = vision(pixel_values=((small + 1) / 2 - mean) / deviation, output_hidden_states=True)
    features = hidden.hidden_states[-2][:, 1:]  # the last layer but one, without its class token
    torch.testing.assert_close(inputs[read : read + Q], model.reader.projector(features)[0])


def test_a_siglip_reads_pixels_as_they_are():
    config = tiny.picture_reader(
        kind="siglip", image_size=16, layer=-1, activation="gelu_pytorch_tanh"
    )
    reader = PictureReader(build_vision(config).eval(), config, 8)
    images = to_float(tiny.images(1))
    hidden = reader.vision(pixel_values=images, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(reader.features(images), hidden)
    assert reader(images).shape == (1, 16, 8)


def test_what_is_read_may_have_another_size_than_what_is_drawn(model):
    """Pictures of any size: each part makes them as large as it needs them."""
    large = torch.nn.functional.interpolate(to_float(tiny.images(1)), size=24)
    drawn = Document((TextSegment("a star"), ImageSegment(0, target=True)))
    found = model.losses(MultimodalBatch(large, [READ, drawn]))
    small = F.interpolate(large, size=(16, 16), mode="bicubic", antialias=True).clamp(-1, 1)
    expected = model.losses(MultimodalBatch(small, [drawn]))
    torch.testing.assert_close(found.sums["visual"], expected.sums["visual"], rtol=1e-5, atol=1e-4)


# ---------------------------------------------------------------------- losses


def test_the_loss_is_that_of_the_codes_at_their_own_places(model):
    images = tiny.images(1)
    terms = model.losses(MultimodalBatch(images, [DRAW]))
    layout = given(model, [DRAW])
    hidden = model.language.model(inputs_embeds=model.embedded(layout, model.see(images)))
    start = int(layout.span_starts[0])
    logits = model.decoder(
        model.to_decoder(hidden.last_hidden_state[:, start : start + P]), model.condition()
    )
    codes = model.tokenizer.encode(to_float(images))
    expected = F.cross_entropy(logits[0], codes[0, :, 0], reduction="sum")
    torch.testing.assert_close(terms.sums["visual"], expected, rtol=1e-5, atol=1e-4)
    assert terms.counts["visual"] == P
    assert model.count_targets([DRAW, READ])["visual"] == P


@pytest.mark.parametrize("scale", [0, 1, 2])
def test_a_scale_sees_coarser_ones_alone(model, scale):
    """Other codes of a scale change no logit of it or of coarser ones, and some of the finer."""
    codes = model.tokenizer.encode(to_float(tiny.images(1)))
    ends = [1, 5, 21]
    begin, end = ends[scale] - SIDES[scale] ** 2, ends[scale]
    other = codes.clone()
    other[:, begin:end] = (other[:, begin:end] + 7) % 24
    layout = given(model, [DRAW])
    found = []
    for some in (codes, other):
        seen = model.see(tiny.images(0), some)
        hidden = model.language.model(inputs_embeds=model.embedded(layout, seen)).last_hidden_state
        found.append(model.code_logits(hidden[:, layout.span_sources[0]])[0])
    torch.testing.assert_close(found[0][:end], found[1][:end])
    if scale < 2:
        assert (found[0][end:] - found[1][end:]).abs().max() > 1e-3


@pytest.mark.parametrize(
    "settings", [{"packing": True}, {"length_groups": 2}, {"share_images": True}], ids=str
)
def test_less_work_is_the_same_loss(model, settings):
    batch = forms_batch()
    plain, quick = model.losses(batch), model.losses(batch, **settings)
    assert quick.counts == plain.counts
    for name, total in plain.sums.items():
        torch.testing.assert_close(quick.sums[name], total, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
    "documents",
    [[DRAW], [READ], [Document((TextSegment("a", target=True),))]],
    ids=["draw", "read", "words"],
)
def test_every_weight_that_learns_has_a_gradient_in_every_batch(documents):
    """Under data parallelism a rank that draws nothing must still touch what draws."""
    model = tiny.vargpt().train()
    model.losses(MultimodalBatch(tiny.images(1), documents)).total().backward()
    missing = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert missing == set()
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert {n.split(".")[0] for n in frozen} == {"tokenizer", "reader"}
    assert all(n.startswith(("tokenizer.", "reader.vision.")) for n in frozen)


def test_stored_codes_are_drawn_and_cannot_be_read(model):
    images = tiny.images(2)
    codes = model.tokenizer.encode(to_float(images))
    both = [DRAW, Document((TextSegment("a"), ImageSegment(1, target=True)))]
    fresh = model.losses(MultimodalBatch(images, both)).sums["visual"]
    stored = model.losses(MultimodalBatch(tiny.images(0), both, codes=codes)).sums["visual"]
    half = codes.clone()
    half[1] = -1
    mixed = model.losses(MultimodalBatch(images[1:], both, codes=half)).sums["visual"]
    torch.testing.assert_close(stored, fresh)
    torch.testing.assert_close(mixed, fresh)
    with pytest.raises(
        DataError, match="a document reads an image of which codes alone are stored, but VARGPT"
    ):
        model.losses(MultimodalBatch(tiny.images(0), [READ], codes=codes[:1]))
    with pytest.raises(
        DataError, match=r"codes of the shape \(2, 4, 1\), but this model's image tokenizer has 21"
    ):
        model.losses(MultimodalBatch(tiny.images(0), both, codes=codes[:, :4]))
    with pytest.raises(DataError, match="a batch holds 2 images for 1 rows without codes"):
        model.losses(MultimodalBatch(images, both, codes=half))


# ---------------------------------------------------------------------- drawing


@torch.no_grad()
@pytest.mark.parametrize("unconditional", ["prompt", "noise"])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_drawn_logits_are_those_of_a_full_forward(unconditional, scale):
    """Scale by scale with both caches, guided; the unguided logits are those of training's graph."""
    model = tiny.outspoken(tiny.vargpt(unconditional=unconditional, max_length=256))
    heard = []

    def choose(logits, uniforms):
        heard.append(logits.clone())
        return logits.argmax(dim=-1)

    settings = {"num_images": 1, "choose": [choose], "seeds": [5, 6]}
    codes = draw_scales(model, PROMPTS, guidance=Guidance(scale), **settings)
    drawn = torch.cat([one.unflatten(0, (2, -1)) for one in heard], dim=1)
    noise = [torch.Generator().manual_seed(image_seed(seed, 0)) for seed in (5, 6)]
    for row, prompt in enumerate(PROMPTS):
        told = model.code_logits(_states(model, prompt, codes[row]))[0]
        without = model.code_logits(_states(model, "", codes[row]))[0]
        if unconditional == "noise":
            parts = [torch.randn(side * side, 32, generator=noise[row]) for side in SIDES]
            without = model.code_logits(torch.cat(parts)[None])[0]
        expected = without + scale * (told - without)
        torch.testing.assert_close(drawn[row], expected, rtol=1e-4, atol=1e-3)


def _states(model, prompt, codes):
    row = model.sequence.drawing_prompts([prompt])
    cells = model.cells(model.tokenizer.shown(codes[None]))
    inputs = torch.cat([model.language.model.embed_tokens(row.ids), cells], dim=1)
    return model.language.model(inputs_embeds=inputs).last_hidden_state[:, -P:]


def greedy(model, prompts, **settings):
    """Codes, and the logits that each row chose them by."""
    heard = []

    def choose(logits, uniforms):
        heard.append(logits.clone())
        return logits.argmax(dim=-1)

    settings = {"seeds": list(range(len(prompts))), "num_images": 1, **settings}
    codes = draw_scales(model, prompts, choose=[choose], **settings)
    return codes, torch.cat([one.unflatten(0, (len(prompts), -1)) for one in heard], dim=1)


@torch.no_grad()
def test_a_ramp_of_guidance_goes_from_scale_to_scale(model):
    codes, drawn = greedy(model, PROMPTS, guidance=Guidance(3.0, 1.0))
    weights = torch.tensor([1.0] + [2.0] * 4 + [3.0] * 16)[:, None]
    for row, prompt in enumerate(PROMPTS):
        told = model.code_logits(_states(model, prompt, codes[row]))[0]
        without = model.code_logits(_states(model, "", codes[row]))[0]
        expected = without + weights * (told - without)
        torch.testing.assert_close(drawn[row], expected, rtol=1e-4, atol=1e-3)
    heard = []
    model.generate_images(PROMPTS[0], progress=lambda *at: heard.append(at))
    assert heard == [(1, 21), (5, 21), (21, 21)]


@torch.no_grad()
@pytest.mark.parametrize("unconditional", ["prompt", "noise"])
def test_rows_of_unlike_guidance_are_drawn_as_each_alone(unconditional):
    model = tiny.outspoken(tiny.vargpt(unconditional=unconditional, max_length=256))
    prompts = [*PROMPTS, "a star"]
    scales = [2.5, 1.0, 4.0]
    codes, drawn = greedy(model, prompts, guidance=Guidance(scales), seeds=[7, 8, 9])
    for row, prompt in enumerate(prompts):
        alone = greedy(model, [prompt], guidance=Guidance(scales[row]), seeds=[7 + row])
        assert torch.equal(codes[row], alone[0][0])
        torch.testing.assert_close(drawn[row], alone[1][0], rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_logits_of_a_second_frame_are_those_of_a_full_forward(model):
    """The language model has seen the first frame; decoder and running sum begin anew."""
    codes, drawn = greedy(
        model, PROMPTS[:1], guidance=Guidance(1.0), num_images=2, start=VIDEO_START
    )
    row = model.sequence.drawing_prompts(PROMPTS[:1], start=VIDEO_START)
    frames = codes.view(2, P, 1)
    cells = model.cells(model.tokenizer.shown(frames)).flatten(0, 1)[None]
    inputs = torch.cat([model.language.model.embed_tokens(row.ids), cells], dim=1)
    hidden = model.language.model(inputs_embeds=inputs).last_hidden_state[0, -2 * P :]
    expected = model.code_logits(hidden.view(2, P, -1)).flatten(0, 1)
    torch.testing.assert_close(drawn[0], expected, rtol=1e-4, atol=1e-3)


def test_no_words_change_what_noise_moves_away_from():
    model = tiny.vargpt(unconditional="noise", max_length=256)
    with pytest.raises(
        ConfigError, match="negative_prompt is 'two squares', but this model's guidance"
    ):
        model.generate_images("a star", negative_prompt="two squares")
    assert model.generate_images("a star", negative_prompt=" ").shape == (1, 3, 16, 16)


@torch.no_grad()
def test_noise_is_of_other_numbers_than_codes_are_drawn_at():
    """Of one seed both would be one stream: what is chosen would hang on what is moved away from."""
    seeds = [5]
    (generator,) = [torch.Generator().manual_seed(image_seed(5, 0))]
    of_noise = torch.rand(P, generator=generator, dtype=torch.float64)
    assert not torch.isclose(
        row_uniforms(seeds, P, torch.device("cpu"))[0].double(), of_noise
    ).any()


def test_a_picture_that_does_not_fit_is_refused(model):
    short = tiny.vargpt(max_length=24)
    with pytest.raises(DataError, match="takes 13 positions and what follows 21, but the language"):
        short.generate_images(PROMPTS[1])


def test_more_conditions_than_one_are_refused():
    with pytest.raises(
        ConfigError, match="decoder.num_conditions is 3, but VARGPT tells its decoder the same"
    ):
        Vargpt.start(
            tiny.over_scales(), tiny.language(), tiny.picture_reader(),
            tiny.scale_decoder(num_conditions=3), tiny.PROMPT,
        )  # fmt: skip


@pytest.mark.parametrize("kept", [1, 3, 5, 21])
def test_given_codes_stay_and_the_rest_goes_on_from_them(model, kept):
    settings = {"guidance": Guidance(2.0), "seeds": [3], "num_images": 1}
    choose = [lambda logits, uniforms: logits.argmax(dim=-1)]
    whole = draw_scales(model, PROMPTS[:1], choose=choose, **settings)
    again = draw_scales(model, PROMPTS[:1], choose=choose, given_codes=whole[:, :kept], **settings)
    assert torch.equal(again, whole)
    other = (whole[:, :kept] + 5) % 24
    found = draw_scales(model, PROMPTS[:1], choose=choose, given_codes=other, **settings)
    assert torch.equal(found[:, :kept], other)


def test_frames_of_a_clip_follow_one_another(model):
    clip = model.generate_videos(PROMPTS, num_frames=2, seed=[1, 2], guidance_scale=2.0)
    assert clip.shape == (2, 2, 3, 16, 16)
    first = model.generate_videos(PROMPTS[0], num_frames=2, seed=[1], guidance_scale=2.0)
    torch.testing.assert_close(first, clip[:1])
    again = model.generate_videos(
        PROMPTS[0],
        num_frames=2,
        seed=[1],
        guidance_scale=2.0,
        first_frames=to_float(tiny.images(1)),
    )
    codes = model.tokenizer.encode(to_float(tiny.images(1)))
    torch.testing.assert_close(again[0, :1], model.tokenizer.decode(codes).clamp(-1, 1))


def test_examples_of_drawings_in_a_chat_are_cells(model):
    """A picture in the assistant's own turn is one that it drew."""
    chat = chat_segments(
        ["draw a star", "<image>", "and what is this ? <image>"], [0, 1], bare=False
    )
    layout = model.sequence.answer_prompts([chat])
    assert layout.span_drawn.tolist() == [True, False]
    text = ["draw a star", "<image>", "and what is this ? <image>"]
    assert isinstance(model.generate_text(to_float(tiny.images(2)), text, max_new_tokens=3), str)


@pytest.mark.parametrize(("side", "expected"), [(24, 24), (12, 16)])
def test_pictures_are_read_at_the_size_that_the_encoder_sees(side, expected):
    """What shows a model pictures asks it for this size; nothing that the encoder could see is lost before it."""
    reader = tiny.picture_reader(image_size=side)
    parts = tiny.over_scales(), tiny.language(), reader, tiny.scale_decoder(), tiny.PROMPT
    model = Vargpt.start(*parts)
    assert model.reading_size == expected
    assert tiny.vila_u().reading_size == tiny.SIDE
    args = SimpleNamespace(fit="squash", quirks=None)
    assert Conversation(model, args).size == expected
