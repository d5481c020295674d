"""Liquid's release: a Gemma in transformers' layout, its tokenizer and its image tokenizer (reference B2, B3, B5)."""

import pytest
import torch
from transformers import GemmaConfig, GemmaForCausalLM

import vilau
from tests.models import tiny
from vilau.costs import counts
from vilau.data.forms import conversation, filming_document, reading_document
from vilau.errors import CheckpointError, ConfigError, DataError
from vilau.layers.pixels import to_float
from vilau.models.language import build_language_model, start_language_model
from vilau.models.liquid.config import TokenizerConfig
from vilau.models.liquid.layout import TO_CAPTION, TO_DRAW
from vilau.models.liquid.model import Liquid
from vilau.models.liquid.tokenizer import VQGAN
from vilau.models.sequence.config import PromptConfig
from vilau.models.sizes import WORLD_TOKENIZER, LanguageConfig
from vilau.models.tokenizers import load_tokenizer
from vilau.models.vila_u.model import VilaU
from vilau.types import Document, ImageSegment, MultimodalBatch, TextSegment, VideoSegment

NAMES = ["<boi>", "<eoi>", "<unconditional>", "<start_of_turn>", "<end_of_turn>"]
PUBLISHED = PromptConfig(system="", form="published", null="learned", null_token="<unconditional>")


def gemma(rows, **changes):
    torch.manual_seed(0)
    settings = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12,
        "intermediate_size": 48, "vocab_size": rows, "max_position_embeddings": 256,
    }  # fmt: skip
    made = GemmaForCausalLM(GemmaConfig(**{**settings, **changes})).eval()
    with torch.no_grad():
        made.model.embed_tokens.weight.mul_(3)
    return made


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A folder as published, its parts tiny and random, and the Gemma in it."""
    folder = tmp_path_factory.mktemp("Liquid")
    words = load_tokenizer(WORLD_TOKENIZER)
    words.add_tokens(NAMES, special_tokens=True)
    words.save_pretrained(folder)
    made = gemma(len(words) + 24)
    made.save_pretrained(folder)
    tiny.vqgan().save(folder / "image_tokenizer")
    return folder, made, words


@pytest.fixture(scope="module")
def model(release):
    return vilau.load(release[0])


def ids(words, text):
    return words(text, add_special_tokens=False)["input_ids"]


def test_what_is_read(release, model):
    folder, made, words = release
    assert isinstance(model, Liquid)
    assert model.code_offset == len(words) == made.config.vocab_size - 24
    assert model.language_config.architecture == "gemma"
    assert model.prompt.null_words == "<unconditional>"
    for name, tensor in made.state_dict().items():
        assert torch.equal(model.language.state_dict()[name], tensor)
    assert model.language.lm_head.weight is model.language.model.embed_tokens.weight
    assert vilau.load_tokenizer(folder).identity() == model.tokenizer.identity()


@torch.no_grad()
def test_drawing_is_that_of_the_release(release, model):
    """Both prompts through Gemma itself, the codes' logits guided, the likeliest taken (reference B5)."""
    _, made, words = release
    wish = [words.bos_token_id, *ids(words, "a red circle" + TO_DRAW)]
    null = [words.bos_token_id, words.convert_tokens_to_ids("<unconditional>")]
    rows = [[*row, words.convert_tokens_to_ids("<boi>")] for row in (wish, null)]
    drawn = []
    for _ in range(16):
        logits = [
            made(input_ids=torch.tensor([row])).logits[0, -1, model.code_offset :] for row in rows
        ]
        code = int((logits[1] + 4.0 * (logits[0] - logits[1])).argmax())
        drawn.append(code)
        rows = [[*row, model.code_offset + code] for row in rows]
    expected = model.tokenizer.decode(torch.tensor(drawn)[None, :, None]).clamp(-1, 1)
    found = model.generate_images("a red circle", guidance_scale=4.0, temperature=0.0)
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_answering_is_that_of_the_release(release, model):
    _, made, words = release
    image = to_float(tiny.images(1))
    codes = (model.tokenizer.encode(image)[0, :, 0] + model.code_offset).tolist()
    boi, eoi = words.convert_tokens_to_ids(["<boi>", "<eoi>"])
    row = [words.bos_token_id, *ids(words, "<start_of_turn>user\n"), boi, *codes, eoi]
    row += ids(words, "\nwhat shape is it")
    row += ids(words, "<end_of_turn>\n<start_of_turn>model\n")
    written = []
    for _ in range(5):
        logits = made(input_ids=torch.tensor([row])).logits[0, -1, : model.code_offset]
        written.append(int(logits.argmax()))
        row = [*row, written[-1]]
    expected = words.decode(written, skip_special_tokens=True).strip()
    assert model.generate_text(image, "what shape is it", max_new_tokens=5) == expected


def spelt(model, document):
    """A document's tokens, codes as ``@``, what bears loss behind a ``!``."""
    row = model.sequence._row(document)
    places = {n for span in row.spans for n in range(span.start, span.end)}
    drawn = {n for span in row.spans for n in range(span.start, span.end) if span.target}
    out = []
    for n, token in enumerate(row.ids):
        name = "@" if n in places else model.words.convert_ids_to_tokens(token)
        out.append(f"!{name}" if row.targets[n] or n in drawn else name)
    return "".join(out).replace("@" * 16, "@").replace("!@" * 16, "!@")


def test_documents_read_as_in_the_release(model):
    words = model.words
    bos, eos = words.bos_token, words.eos_token
    pieces = lambda text: "".join(words.convert_ids_to_tokens(ids(words, text)))  # noqa: E731
    marked = lambda text: "".join("!" + t for t in words.convert_ids_to_tokens(ids(words, text)))  # noqa: E731
    star, picture = TextSegment("a star"), ImageSegment(0)
    drawn, said = ImageSegment(0, target=True), TextSegment("a star", target=True)
    expected = {
        Document((star, drawn)): f"{bos}{pieces('a star' + TO_DRAW)}<boi>!@!<eoi>!{eos}",
        Document(
            (TextSegment("<unconditional>"), drawn)
        ): f"{bos}<unconditional><boi>!@!<eoi>!{eos}",
        reading_document(
            0, "a star"
        ): f"{bos}<boi>@<eoi>{pieces(TO_CAPTION)}{marked('a star')}!{eos}",
        Document((said,), chat=False): f"{bos}{marked('a star')}",
        Document((picture, star, said)): (
            f"{bos}<start_of_turn>{pieces('user')}{pieces(chr(10))}<boi>@<eoi>{pieces(chr(10) + 'a star')}"
            f"<end_of_turn>{pieces(chr(10))}<start_of_turn>{pieces('model')}{pieces(chr(10))}{marked('a star')}"
            "!<end_of_turn>"
        ),
    }
    for document, text in expected.items():
        assert spelt(model, document) == text
    texts = Document((star, star, said), chat=False)
    assert (
        spelt(model, texts)
        == f"{bos}{pieces('a star')}{pieces(' ')}{pieces('a star')}{marked(' a star')}"
    )
    masked = Document((picture, said), masked=True)
    assert "!" not in spelt(model, masked)
    two = Document((star, said, star, drawn))
    assert spelt(model, two).count("<start_of_turn>") == 4
    assert spelt(model, two).endswith("<boi>!@!<eoi>!<end_of_turn>")


@torch.no_grad()
def test_an_answer_ends_with_its_turn_or_the_sequence(release, monkeypatch):
    """What ends it is not published."""
    opened = vilau.load(release[0])
    star, ends = ids(opened.words, "star"), opened.sequence.ends
    assert ends == tuple(
        opened.words.convert_tokens_to_ids(["<end_of_turn>", opened.words.eos_token])
    )
    for end in ends:
        said = iter([*star, end, *star, *star])

        def logits(hidden, said=said):
            row = torch.zeros(len(hidden), len(opened.words))
            row[:, next(said)] = 1
            return row

        monkeypatch.setattr(opened, "word_logits", logits)
        assert opened.generate_text(None, "what", max_new_tokens=9) == "star"


def test_a_release_is_no_start(release):
    folder = str(release[0])
    language = LanguageConfig(pretrained=folder, tokenizer=folder)
    with pytest.raises(
        ConfigError, match="24 rows that are no words.*a Liquid already; go on from it"
    ):
        Liquid.start(tiny.vqgan(), language, PUBLISHED)


@pytest.mark.parametrize("name", ["", "a", "<im_start>", "<two words>"])
def test_a_null_token_that_is_none_is_one_sentence(name):
    with pytest.raises(
        ConfigError, match="prompt.null_token is .*in angle brackets, such as <null>"
    ):
        PromptConfig(null="learned", null_token=name)


def test_a_text_cannot_spell_its_marks(model):
    row = spelt(model, Document((TextSegment("a <boi> star"), ImageSegment(0, target=True))))
    assert row.count("<boi>") == 1


def test_a_clip_is_its_frames_and_none_is_drawn(model):
    for film in (filming_document((0, 1), "a star"), conversation((0, 1), ["what", "it"])):
        if film.segments[-1].target and isinstance(film.segments[-1], VideoSegment):
            with pytest.raises(DataError, match="a clip is to be drawn, but Liquid's release"):
                model.losses(MultimodalBatch(tiny.images(2), [film]))
    film = Document((VideoSegment((0, 1)), TextSegment("what"), TextSegment("it", target=True)))
    assert "".join(spelt(model, film).split()).count("<boi>@<eoi>") == 2
    with pytest.raises(DataError, match="a clip is to be drawn, but Liquid's release has no token"):
        model.generate_videos("a star", num_frames=2)


def test_training_goes_on_from_the_release(release, model):
    terms = model.losses(MultimodalBatch(tiny.images(2), [tiny.drawing(0), tiny.caption(1)]))
    assert terms.counts["visual"] == 16
    assert all(torch.isfinite(t) for t in terms.sums.values())


def test_it_is_saved_as_ours(model, tmp_path):
    model.save(tmp_path)
    again = vilau.load(tmp_path)
    assert again.code_offset == model.code_offset
    settings = {"temperature": 0.0, "guidance_scale": 2.0}
    assert torch.equal(
        again.generate_images("a star", **settings), model.generate_images("a star", **settings)
    )


def test_without_its_image_tokenizer_it_is_one_sentence(tmp_path):
    gemma(60).save_pretrained(tmp_path)
    with pytest.raises(
        CheckpointError, match="a gemma.*vilau convert vqgan.ckpt .*image_tokenizer"
    ):
        vilau.load(tmp_path)


def test_rows_that_are_too_few_are_one_sentence(release, tmp_path):
    _, _, words = release
    words.save_pretrained(tmp_path)
    gemma(len(words) + 20).save_pretrained(tmp_path)
    tiny.vqgan().save(tmp_path / "image_tokenizer")
    with pytest.raises(
        CheckpointError, match=r"has \d+ rows, too few for the \d+ words .* and the 24 codes"
    ):
        vilau.load(tmp_path)


def test_words_without_the_marks_are_one_sentence(tmp_path):
    words = load_tokenizer(WORLD_TOKENIZER)
    words.save_pretrained(tmp_path)
    gemma(len(words) + 24).save_pretrained(tmp_path)
    tiny.vqgan().save(tmp_path / "image_tokenizer")
    with pytest.raises(
        CheckpointError,
        match="has no <boi>, but Liquid needs <boi>, <eoi>.*tokenizer files that it was trained with",
    ):
        vilau.load(tmp_path)


# ---------------------------------------------------------------- starting from Gemma


def test_liquid_starts_from_a_gemma_as_the_release_did(tmp_path):
    """Marks of its own, a learned null, codes behind all rows, the old ones kept."""
    words = load_tokenizer(WORLD_TOKENIZER)
    old = gemma(len(words))
    old.save_pretrained(tmp_path)
    language = LanguageConfig(pretrained=str(tmp_path), tokenizer=WORLD_TOKENIZER)
    torch.manual_seed(0)
    made = Liquid.start(tiny.vqgan(), language, PUBLISHED).eval()
    assert made.code_offset == len(words) + 5
    rows = made.language.model.embed_tokens.weight
    assert torch.equal(rows[: len(words)], old.model.embed_tokens.weight)
    assert rows.shape[0] == made.code_offset + 24
    assert made.generate_images("a star").shape == (1, 3, tiny.SIDE, tiny.SIDE)
    codes = torch.arange(24)[None, :, None]
    scaled = rows[made.code_offset :] * 32**0.5  # Gemma's embeddings are scaled where they are read
    torch.testing.assert_close(made.embed_codes(codes)[0], scaled)


def test_a_random_gemma_is_built_again_from_its_config():
    config = tiny.language(architecture="gemma", tie_embeddings=True)
    model, _, config = start_language_model(config)
    assert isinstance(model, GemmaForCausalLM)
    assert model.config.head_dim == 16
    again = build_language_model(config)
    again.load_state_dict(model.state_dict())


def test_a_vila_u_may_have_a_gemma_but_not_in_the_published_layout(tmp_path):
    made = tiny.vila_u(architecture="gemma")
    made.save(tmp_path / "ours")
    again = vilau.load(tmp_path / "ours")
    assert isinstance(again, VilaU)
    assert torch.equal(again.generate_images("a star"), made.generate_images("a star"))
    with pytest.raises(ConfigError, match="layout vila-u holds a LLaMA, .* is a gemma"):
        vilau.export(made, tmp_path / "published")


def test_settings_that_make_no_sense_are_one_sentence():
    with pytest.raises(ConfigError, match="architecture is 'gpt2'; write llama or gemma"):
        tiny.language(architecture="gpt2")
    with pytest.raises(
        ConfigError, match="attention is lean, which computes LLaMA's blocks, not gemma's"
    ):
        build_language_model(tiny.language(architecture="gemma", attention="lean", vocab_size=50))


@pytest.mark.parametrize(
    ("source", "parameters", "width"),
    [("google/gemma-7b", 8_537_680_896, 3072), ("meta-llama/Llama-3.2-1B", 1_235_814_400, 2048)],
)
def test_published_sizes(source, parameters, width):
    """With the release's image tokenizer and five tokens that its words have already."""
    with torch.device("meta"):
        language = LanguageConfig(pretrained=source, tokenizer=source)
        made = Liquid.start(VQGAN(TokenizerConfig()), language, PUBLISHED)
    found = sum(p.numel() for p in made.language.parameters())
    assert found == parameters + (5 + 8192) * width
    assert made.tokenizer.spec.num_positions == 1024
    body, logits = counts.language_model(made.language_config, 10)
    assert body.parameters + logits.parameters == found
