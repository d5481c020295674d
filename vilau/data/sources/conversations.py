"""LLaVA-style conversations: ``[{"image": ..., "conversations": [{"from": ..., "value": ...}]}]``."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from os.path import isfile  # unlike Path.is_file, quiet about names that no file can have
from pathlib import Path
from typing import Any

from vilau.data.bundle import MARK
from vilau.data.sources.clips import require_player
from vilau.data.sources.items import Item, Source, whole_text
from vilau.data.sources.stored import Stored, StoredClip, StoredFile, StoredMedia
from vilau.data.sources.tables import jsonl_rows
from vilau.errors import DataError

IMAGE_MARK, VIDEO_MARK = "<image>", "<video>"
ASKS, ANSWERS = ("human", "user"), ("gpt", "assistant")
IMAGE_KEYS, VIDEO_KEYS = ("image", "images"), ("video", "videos")
_IMAGE, _EITHER = re.compile(IMAGE_MARK), re.compile(f"{IMAGE_MARK}|{VIDEO_MARK}")


def conversation_source(
    path: Path, image_folder: Path | None = None, video_folder: Path | None = None
) -> Source:
    """Read conversations about images or videos, or about none.

    ``image`` and ``video`` name a file each, or a list of files; the marks ``<image>`` and ``<video>`` in the
    turns say where each stands, and one in an answer is what the model must draw. A lone file that no mark
    places, or whose mark leads the first turn, stands first. Paths are relative to ``image_folder`` and
    ``video_folder``, by default the file's own folder (ShareGPT4V's begin in its folder ``data``).

    Raises:
        DataError: the file is no list of conversations, a turn has an unknown role, a conversation
            has no answer, two turns of one speaker follow each other, marks and files differ in number, an
            image or video is missing, or PyAV is needed and missing.
    """
    source = Source(f"conversations in {path}", files=[path])
    folders = (image_folder or path.parent, video_folder or path.parent)
    several = 0
    for number, row in _rows(path):
        name = f"{path} conversation {number}"
        turns = _turns(name, row.get("conversations"))
        images = [folders[0] / file for file in _named(name, row, IMAGE_KEYS, "image")]
        videos = [folders[1] / file for file in _named(name, row, VIDEO_KEYS, "video")]
        gone = [file for file in images if not isfile(file)]
        gone += [file for file in videos if not os.path.exists(file)]
        if gone:
            what = "video" if gone[0] in videos else "image"
            source.unpaired.append((name, f"its {what} {gone[0]} does not exist"))
            continue
        item = _item(name, turns, images, videos)
        several += isinstance(item.image, StoredMedia)
        source.items.append(item)
        source.files += [*images, *videos]
    if several:
        source.title += f" ({several} of them with several images, with one inside, or with a clip)"
    require_player(Path(file) for file in _clips(source))
    return source


def caption_source(path: Path, image_folder: Path | None = None) -> Source:
    """Read conversations of one question about one image as pairs, the answer being the caption (ShareGPT4V).

    All other conversations are listed as unpaired.

    Raises:
        DataError: as ``conversation_source``; or not one conversation describes an image.
    """
    told = conversation_source(path, image_folder)
    source = Source(f"descriptions in {path}", files=told.files, unpaired=told.unpaired)
    for item in told.items:
        image = _asked_about(item)
        if image is not None:
            source.items.append(Item(item.name, item.texts[1:], image))
        else:
            source.unpaired.append((item.name, "it is not one question about one image"))
    if not source.items:
        raise DataError(
            f"{path} has no conversation of one question about one image, whose answer would be its caption; prepare "
            "it with --instructions."
        )
    return source


def _asked_about(item: Item) -> StoredFile | None:
    """The image of a conversation that is one question about one image."""
    image = item.image
    if isinstance(image, StoredMedia) and len(image.parts) == 1 and MARK in item.texts[0]:
        image = image.parts[0]  # its mark stands behind the question or within it
    return image if isinstance(image, StoredFile) and len(item.texts) == 2 else None


def _clips(source: Source) -> list[str]:
    """Paths of all videos."""
    bundles = (item.image for item in source.items if isinstance(item.image, StoredMedia))
    return [part.path for media in bundles for part in media.parts if isinstance(part, StoredClip)]


def _named(name: str, row: dict[str, Any], keys: tuple[str, str], what: str) -> list[str]:
    """Files that a row names: none, one or a list of them."""
    given = [key for key in keys if row.get(key) is not None]
    if not given:
        return []
    files = row[given[0]]
    files = files if isinstance(files, list) else [files]
    if len(given) > 1 or not all(isinstance(file, str) for file in files):
        found = " and ".join(given) if len(given) > 1 else str(row[given[0]])[:60]
        raise DataError(
            f"{name} has the {what} {found}; write the path of one {what} file or a list of paths in {keys[0]}."
        )
    return files


def _item(name: str, turns: list[str], images: list[Path], videos: list[Path]) -> Item:
    """A conversation with its files where its marks are."""
    # In a conversation about no video, <video> is a word like others.
    pattern = _EITHER if videos else _IMAGE
    marks = [mark for turn in turns for mark in pattern.findall(turn)]
    if not images and videos:  # many sets of videos write <image> for them
        marks = [VIDEO_MARK] * len(marks)
    many, wanted = len(images) + len(videos), (marks.count(IMAGE_MARK), marks.count(VIDEO_MARK))
    if wanted != (len(images), len(videos)) and (marks or many > 1):
        raise DataError(
            f"{name} has {wanted[0]} {IMAGE_MARK} and {wanted[1]} {VIDEO_MARK} marks for {len(images)} images and "
            f"{len(videos)} videos; write one mark for each where it stands, or none for a single one, which then "
            "comes first."
        )
    leads = not marks or pattern.match(turns[0].lstrip()) is not None
    if not many or (leads and len(images) == many == 1):
        texts = tuple(whole_text(pattern.sub("", turn)).strip() for turn in turns)
        if not many:
            return Item(name, texts, None)
        return Item(f"{images[0]} ({name})", texts, StoredFile(str(images[0])))
    left: dict[str, Iterator[Stored]] = {
        IMAGE_MARK: iter([StoredFile(str(file)) for file in images]),
        VIDEO_MARK: iter([StoredClip(str(file)) for file in videos]),
    }
    marked = [pattern.sub(MARK, whole_text(turn.replace(MARK, " "))).strip() for turn in turns]
    if not marks:
        marks, marked[0] = [VIDEO_MARK], f"{MARK}\n{marked[0]}"
    first = (images or videos)[0]
    parts = tuple(next(left[mark]) for mark in marks)
    return Item(f"{first} ({name})", tuple(marked), StoredMedia(parts))


def _rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text ({error}); save it as UTF-8.") from error
    if path.suffix.lower() == ".jsonl":
        rows = list(jsonl_rows(path, text.split("\n")))
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


def _turns(name: str, turns: Any) -> list[str]:
    """Questions and answers in turn, as they are written."""
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
        texts.append(text)
    if len(texts) < 2:
        raise DataError(f"{name} has no gpt turn; add the answer the model should give.")
    return texts[: len(texts) // 2 * 2]
