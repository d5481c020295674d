from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from vilau.data.text import SPECIAL, train_tokenizer
from vilau.errors import ConfigError
from vilau.world.language import vocabulary_corpus


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(vocabulary_corpus(3000), vocab_size=600)


@pytest.mark.parametrize(
    "text",
    [
        "a large striped red star on grass . the sign says stop",
        " leading, trailing  and  double spaces ",
        "Größe, 你好, 🦊, tab\tand\nnewline",
        "<odd> & ‘quotes’",
    ],
)
def test_any_text_comes_back_exactly(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_words_of_the_world_are_single_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "a picture of a small red star and a large blue circle on grass"
    assert len(tokenizer(text, add_special_tokens=False).input_ids) <= len(text.split()) + 1


def test_special_tokens_are_whole_and_apart(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = [tokenizer.convert_tokens_to_ids(token) for token in SPECIAL]
    assert sorted(ids) == list(range(len(SPECIAL)))
    assert (
        tokenizer(f"{SPECIAL[4]}red{SPECIAL[5]}", add_special_tokens=False).input_ids[0] == ids[4]
    )
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert len(tokenizer) <= 600


def test_training_is_deterministic_and_survives_saving(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    again = train_tokenizer(vocabulary_corpus(3000), vocab_size=600)
    assert again.get_vocab() == tokenizer.get_vocab()
    tokenizer.save_pretrained(tmp_path)
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    text = "two red stars"
    assert loaded(text).input_ids == tokenizer(text).input_ids


def test_a_vocabulary_without_room_for_the_bytes() -> None:
    with pytest.raises(ConfigError, match=r"vocab_size is 100; write at least 264"):
        train_tokenizer(["a"], vocab_size=100)
