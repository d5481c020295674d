"""TextVQA with OCR tokens in the question, as LLaVA asks it: worth about ten points, so never mixed in unsaid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vilau.data.published.images import read_textvqa
from vilau.data.published.questions import SHORT, PublishedQuestion, fields, read_list
from vilau.errors import DataError

OCR_FILE = "TextVQA_Rosetta_OCR_v0.2_val.json"
"""TextVQA's own file of tokens; the questions' file has none."""
OCR_REMARK = "with OCR tokens in the prompt"


def with_tokens(prompt: str, tokens: Sequence[str]) -> str:
    """Return a prompt with LLaVA's line of OCR tokens behind the question, before the published ending."""
    question = prompt.removesuffix(SHORT)
    return f"{question}\nReference OCR token: {', '.join(tokens)}{prompt[len(question) :]}"


def read_textvqa_with_tokens(folder: Path) -> list[PublishedQuestion]:
    """TextVQA's questions with the tokens of ``OCR_FILE``: {data: [{image_id, ocr_tokens}]}.

    Raises:
        DataError: a file is broken, or a question's picture has no tokens there.
    """
    path = folder / OCR_FILE
    held = {}
    for row in read_list(path, "data"):
        image, tokens = fields(row, ("image_id", "ocr_tokens"), path)
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise DataError(
                f"{path}, picture {image} has the ocr_tokens {str(tokens)[:60]}; they must be a list of texts. Put "
                "the published file there."
            )
        held[str(image)] = tokens
    found = []
    for question in read_textvqa(folder):
        picture = question.media[0]
        assert isinstance(picture, Path)
        if picture.stem not in held:
            raise DataError(
                f"{path} has no tokens of picture {picture.stem}, which question {question.row['question_id']} is "
                "about; put the published pair there."
            )
        tokens = held[picture.stem]
        row = {**question.row, "ocr_tokens": tokens}
        found.append(replace(question, prompt=with_tokens(question.prompt, tokens), row=row))
    return found
