"""The words around what is said and shown; free of torch."""

import re
from dataclasses import dataclass

from vilau.errors import ConfigError
from vilau.models.sizes import SPECIAL_TOKENS

PROMPT_FORMS = ("plain", "published")
NULLS = ("prompt", "learned")
NULL_TOKEN = "<null>"
"""Stands in the place of a dropped caption where ``PromptConfig.null`` is ``learned``."""


@dataclass
class PromptConfig:
    """The words around a turn (Vicuna v1, as published)."""

    system: str = (
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
    )
    user: str = "USER:"
    assistant: str = "ASSISTANT:"
    form: str = "plain"
    """How a turn becomes tokens. ``published``: the strings of the family's release (in VILA-U's an image to be read
    stands bare in a prompt, with a line break after it, and so does each frame of a clip, in training as in prompts;
    Liquid's have none of the words above). ``plain``: every piece by itself, images always between their tokens, no
    line breaks and no lone spaces (shorter, for small models)."""
    null: str = "prompt"
    """What a dropped caption leaves, in training as in the unconditional rows of guidance. ``prompt``: a turn
    without words. ``learned``: one position with a trained vector of its own, the token ``null_token``."""
    null_token: str = NULL_TOKEN
    """Liquid's release has ``<unconditional>``."""

    def __post_init__(self) -> None:
        if self.form not in PROMPT_FORMS:
            raise ConfigError(f"prompt.form is {self.form!r}; write plain or published.")
        if self.null not in NULLS:
            raise ConfigError(f"prompt.null is {self.null!r}; write prompt or learned.")
        if not re.fullmatch(r"<[^<>\s]+>", self.null_token) or self.null_token in SPECIAL_TOKENS:
            raise ConfigError(
                f"prompt.null_token is {self.null_token!r}; write a token of its own in angle brackets, such as "
                f"{NULL_TOKEN}."
            )

    @property
    def null_words(self) -> str:
        """The text of a dropped caption."""
        return self.null_token if self.null == "learned" else ""
