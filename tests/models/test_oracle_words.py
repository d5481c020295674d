"""Words to ids as the release's tokenizer makes them, whatever the words: SentencePiece itself is asked."""

import random
import re

import pytest
import sentencepiece

import vilau
from tests.models.published import CHECKPOINT, needs_recordings
from vilau.models.sequence.prompts import Words
from vilau.models.sequence.rows import Row
from vilau.types import Document, TextSegment

pytestmark = needs_recordings
SPACE = "\u2581"
PIECES = (
    "a", "red", "cat", " ", "  ", "\n", "\t", "<im_start>", "<im_end>", "<vi_start>", "</s>", "<unk>",
    "USER:", " ASSISTANT: ", "é", "漢", ".", "!", "1",
)  # fmt: skip


class SlowTokenizer:
    """transformers 4.36's LlamaTokenizer with ``legacy: false``, without BOS.

    Special tokens are cut out; every stretch between them is encoded without a space of its own, but the
    whole text gets one, and one that a stretch begins with is kept by encoding it behind ``<unk>``.
    """

    def __init__(self, words):
        proto = pytest.importorskip("sentencepiece.sentencepiece_model_pb2").ModelProto()
        proto.ParseFromString((CHECKPOINT / "llm" / "tokenizer.model").read_bytes())
        proto.normalizer_spec.add_dummy_prefix = False
        self.pieces = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
        self.ids = {token: words.convert_tokens_to_ids(token) for token in words.all_special_tokens}

    def __call__(self, text):
        parts = re.split(
            "(" + "|".join(map(re.escape, self.ids)) + ")", SPACE + text.replace(SPACE, " ")
        )
        tokens = [token for part in parts if part for token in self._tokens(part)]
        if len(tokens) > 1 and tokens[0] == SPACE and tokens[1] in self.ids:
            tokens = tokens[1:]
        return [self.ids.get(token, self.pieces.piece_to_id(token)) for token in tokens]

    def _tokens(self, part):
        if part in self.ids:
            return [part]
        if not part.startswith((SPACE, " ")):
            return self.pieces.encode(part, out_type=str)
        unknown = len(self.pieces.encode("<unk>", out_type=str))
        return self.pieces.encode("<unk>" + part, out_type=str)[unknown:]


def test_any_words_become_the_ids_of_the_releases_tokenizer():
    model = vilau.load(CHECKPOINT)
    slow, dice = SlowTokenizer(model.words), random.Random(0)
    texts = ["".join(dice.choices(PIECES, k=dice.randint(1, 7))) for _ in range(400)]
    for text in texts:
        row = Row()
        model.sequence._write(row, [Words(text), Words("</s>")])
        assert row.ids == slow(text + "</s>"), repr(text)
        # What stands in a document is words alone, whatever they name.
        spelt = re.sub("<(?=(im_start|im_end|vi_start|/s|unk)>)", "< ", text)
        layout = model.sequence.lay_out([Document((TextSegment(text),), chat=False)])
        assert layout.ids[0].tolist() == [1, *slow(spelt + "</s>")], repr(text)
