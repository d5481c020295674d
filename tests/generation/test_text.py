import pytest

from tests.models import tiny
from vilau.generation.text import TextStream, decode_tokens
from vilau.models.language import text_tokenizer

BYTES = {0: "<s>", 1: "\u2581a", 2: "<0xC3>", 3: "<0xA9>", 4: "b", 5: "<0x7A>", 6: "<0xE4>"}


class ByteTokenizer:
    """As much of a SentencePiece tokenizer as decoding asks for."""

    def convert_ids_to_tokens(self, ids, skip_special_tokens):
        assert skip_special_tokens
        return [BYTES[i] for i in ids if i]

    def decode(self, ids, skip_special_tokens):
        return "".join(self.convert_ids_to_tokens(ids, skip_special_tokens)).replace("\u2581", " ")


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([0, 1, 4], " ab"),
        ([1, 2, 3, 4], " a\u00e9b"),
        ([1, 2, 5, 3, 4], " a\ufffdz\ufffdb"),  # good bytes beside bad ones stay
        ([6, 3, 1], "\ufffd\ufffd a"),
    ],
)
def test_single_bytes_make_characters_or_stand_for_themselves(ids, text):
    assert decode_tokens(ByteTokenizer(), ids) == text


def test_other_tokenizers_decode_as_they_do():
    words = text_tokenizer(tiny.language())
    ids = words(" a red  circle", add_special_tokens=False)["input_ids"]
    assert decode_tokens(words, [*ids, words.eos_token_id]) == " a red  circle"


def test_pieces_join_to_the_final_text():
    pieces = []
    stream = TextStream(pieces.append)
    for text in [" ", " a", " a \ufffd", " a \u00e9", " a \u00e9 \n", " a \u00e9 \nb\ufffd"]:
        stream.update(text)
    assert pieces == ["a", " \u00e9", " \nb"]  # neither a space nor half a character too early
    stream.finish("a \u00e9 \nb\ufffd")
    assert "".join(pieces) == "a \u00e9 \nb\ufffd"
