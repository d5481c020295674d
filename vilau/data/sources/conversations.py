"""LLaVA-style conversations: ``[{"image": ..., "conversations": [{"from": ..., "value": ...}]}]``."""

from __future__ import annotations

import json
from os.path import isfile  # unlike Path.is_file, quiet about names that no file can have
from pathlib import Path
from typing import Any

from vilau.data.sources.items import Item, Source, whole_text
from vilau.data.sources.stored import StoredFile
from vilau.data.sources.tables import jsonl_rows
from vilau.errors import DataError

IMAGE_MARK = "<image>"
ASKS, ANSWERS = ("human", "user"), ("gpt", "assistant")


def conversation_source(path: Path, image_folder: Path | None = None) -> Source:
    """Read conversations about one image each, or about none.

    The image mark in the first turn is taken out: the image always comes first.

    Raises:
        DataError: the file is no list of conversations, a turn has an unknown role, a conversation
            has no answer, two turns of one speaker follow each other, or an image is missing.
    """
    source = Source(f"conversations in {path}", files=[path])
    folder = image_folder or path.parent
    for number, row in _rows(path):
        name = f"{path} conversation {number}"
        texts = _turns(name, row.get("conversations"))
        image = row.get("image")
        if image is None:
            source.items.append(Item(name, texts, None))
            continue
        if not isinstance(image, str):
            raise DataError(
                f"{name} has the image {str(image)[:60]}; write the path of one image file."
            )
        file = folder / image
        if isfile(file):
            source.items.append(Item(f"{file} ({name})", texts, StoredFile(str(file))))
            source.files.append(file)
        else:
            source.unpaired.append((name, f"its image {file} does not exist"))
    return source


def _rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text ({error}); save it as UTF-8.") from error
    if path.suffix.lower() == ".jsonl":
        rows = list(jsonl_rows(path, text.splitlines()))
    else:
        try:
            content = json.loads(text)
        except ValueError as error:
            raise DataError(
                f"{path} is no JSON ({error}); write a list of conversations."
            ) from error
        if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
            raise DataError(
                f"{path} holds no list of objects; write "
                '[{"image": "a.jpg", "conversations": [...]}, ...].'
            )
        rows = list(enumerate(content, start=1))
    if not rows:
        raise DataError(f"{path} holds no conversations; add some.")
    return rows


def _turns(name: str, turns: Any) -> tuple[str, ...]:
    """Questions and answers in turn, the first question without the image mark."""
    if not isinstance(turns, list):
        raise DataError(f"{name} has no list named conversations; add one with its turns.")
    texts: list[str] = []
    for turn in turns:
        role = turn.get("from") if isinstance(turn, dict) else None
        text = turn.get("value") if isinstance(turn, dict) else None
        if role not in ASKS + ANSWERS or not isinstance(text, str):
            raise DataError(
                f"{name} has a turn from {role!r}; write from: human or gpt, and a text in value."
            )
        if (role in ANSWERS) != (len(texts) % 2 == 1):
            raise DataError(
                f"{name} has the turn of {role!r} at place {len(texts) + 1}; write turns of human "
                "and gpt in turn, beginning with human."
            )
        texts.append(whole_text(text.replace(IMAGE_MARK, "")).strip())
    if len(texts) < 2:
        raise DataError(f"{name} has no gpt turn; add the answer the model should give.")
    return tuple(texts[: len(texts) // 2 * 2])
