"""The kit's own small text tokenizer: byte-level BPE trained on whatever sentences it is given."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from vilau.errors import ConfigError

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<im_start>", "<im_end>", "<vi_start>", "<vi_end>")
"""Padding, sentence start and end, unknown, and the marks around images and clips."""


def train_tokenizer(corpus: Iterable[str], *, vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer that gives back any text exactly.

    Args:
        corpus: sentences; frequent words become single tokens.
        vocab_size: most tokens to learn, special ones and the 256 bytes included.

    Raises:
        ConfigError: there is no room for the special tokens and the bytes.
    """
    least = len(SPECIAL) + 256
    if vocab_size < least:
        raise ConfigError(f"vocab_size is {vocab_size}; write at least {least}.")
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=list(SPECIAL[4:]),
        clean_up_tokenization_spaces=False,
    )
