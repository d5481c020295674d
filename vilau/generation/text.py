"""Token ids to text, whole and while it is written."""

import re
from collections.abc import Callable, Sequence
from typing import Any

UNFINISHED = "\ufffd"
"""What stands for a byte that is part of no character, or not of a whole one yet."""
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_LOOSE_BYTES = re.compile("[\udc80-\udcff]")


def decode_tokens(tokenizer: Any, ids: Sequence[int]) -> str:
    """Return the text of ``ids`` without special tokens.

    Tokens that are single bytes make characters as in SentencePiece, with ``UNFINISHED`` for each byte that
    makes none; transformers' own decoder would replace the good bytes beside it too.
    """
    tokens = tokenizer.convert_ids_to_tokens(ids, skip_special_tokens=True)
    if not any(_BYTE.fullmatch(token) for token in tokens):
        return tokenizer.decode(ids, skip_special_tokens=True)
    data = b"".join(
        bytes.fromhex(match[1])
        if (match := _BYTE.fullmatch(t))
        else t.replace("\u2581", " ").encode()
        for t in tokens
    )
    return _LOOSE_BYTES.sub(UNFINISHED, data.decode("utf-8", errors="surrogateescape"))


class TextStream:
    """Tells a listener each new piece of a text that is decoded anew, as a whole, after every token.

    The pieces join to the final text. What may still change waits: white space at the end, which the final
    text does not have, and bytes that the next token may complete to a character.
    """

    def __init__(self, listener: Callable[[str], None]) -> None:
        self.listener = listener
        self.told = ""

    def update(self, text: str) -> None:
        """Take the text so far, white space and unfinished characters included."""
        self._tell(text.lstrip().rstrip(UNFINISHED).rstrip())

    def finish(self, text: str) -> None:
        """Take the final text, without white space at its ends."""
        self._tell(text)

    def _tell(self, text: str) -> None:
        if len(text) > len(self.told) and text.startswith(self.told):
            self.listener(text[len(self.told) :])
            self.told = text
