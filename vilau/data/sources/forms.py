"""Which form of data a path holds."""

from __future__ import annotations

import json
import os
from pathlib import Path

from vilau.data.shards import INDEX, MANIFEST, ShardSet, check_kind
from vilau.data.sources.class_folders import captioned_class_source, class_source
from vilau.data.sources.clips import clip_source
from vilau.data.sources.conversations import caption_source, conversation_source
from vilau.data.sources.documents import LIMITS, DocumentLimits, document_source
from vilau.data.sources.folders import folder_source
from vilau.data.sources.items import (
    IMAGE_FIELDS,
    TEXT_FIELDS,
    Item,
    Source,
    clean_texts,
    first_field,
)
from vilau.data.sources.parquet import PARQUET
from vilau.data.sources.side import is_side_file
from vilau.data.sources.stored import StoredByLitdata, StoredInShards, litdata_reader
from vilau.data.sources.tables import TABLE_SUFFIXES, parquet_source, table_source
from vilau.data.sources.tars import expand, tar_source
from vilau.data.sources.texts import text_source
from vilau.errors import DataError

PAIRS = "image_text"
"""Images with captions."""
CONVERSATIONS = "instructions"
"""Questions and answers, about images, clips or none."""
CLASSES = "classes"
"""Images in one folder per class; the texts are the class's name and folder."""
VIDEOS = "videos"
"""Clips with captions."""
INTERLEAVED = "interleaved"
"""Web documents of images and sentences."""
TEXTS = "texts"
"""Text alone."""
ONE = {
    PAIRS: "image with a caption",
    CONVERSATIONS: "conversation",
    CLASSES: "image with a class",
    VIDEOS: "video with a caption",
    INTERLEAVED: "document with an image",
    TEXTS: "text",
}
"""What people call one sample of each kind."""


def find_source(
    path: str,
    *,
    kind: str = PAIRS,
    image_folder: str | None = None,
    video_folder: str | None = None,
    limits: DocumentLimits = LIMITS,
) -> Source:
    """Look at ``path`` and list what it holds, or the pieces in which it can be listed.

    Args:
        path: a folder, a file, or a pattern of files.
        kind: ``PAIRS``, ``CONVERSATIONS``, ``CLASSES``, ``VIDEOS``, ``INTERLEAVED`` or ``TEXTS``.
        image_folder: where the image paths of a table, a conversation file or web documents begin.
        video_folder: where the paths of videos begin.
        limits: which images of web documents are kept.

    Raises:
        DataError: the path is missing, empty, of an unknown form or damaged.
    """
    try:
        folders = _existing(image_folder, "image"), _existing(video_folder, "video")
        place = Path(os.path.abspath(Path(path).expanduser()))
        if kind in (VIDEOS, INTERLEAVED, TEXTS) and not (place / MANIFEST).exists():
            return _documents(str(place), kind, folders, limits)
        return _found(path, kind, folders)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); allow reading it, or give another path."
        ) from error


Folders = tuple[Path | None, Path | None]
"""Of images and of videos."""


def _existing(folder: str | None, what: str) -> Path | None:
    place = Path(folder).expanduser() if folder else None
    if place is not None and not place.is_dir():
        raise DataError(f"{what} folder {place} does not exist; write the folder of the {what}s.")
    return place


def _documents(path: str, kind: str, folders: Folders, limits: DocumentLimits) -> Source:
    """A source of one of the kinds that have one form each."""
    if not any(mark in path for mark in "{*?") and not os.path.exists(path):
        raise DataError(f"{path} does not exist; write the path of a file or folder of {kind}.")
    if kind == VIDEOS:
        return clip_source(path, folders[1])
    if kind == INTERLEAVED:
        return document_source(path, folders[0], limits)
    return text_source(path)


def _found(path: str, kind: str, folders: Folders) -> Source:
    place = Path(os.path.abspath(Path(path).expanduser()))
    if any(mark in path for mark in "{*?") and not place.exists():
        return _pattern(str(place), kind)
    if not place.exists():
        raise DataError(
            f"{place} does not exist; write the path of a folder or file of images with captions."
        )
    if kind == CLASSES and not (place / MANIFEST).exists():
        return class_source(place, key="the data path")
    if place.is_dir():
        return _folder(place, kind, folders[0])
    return _file(place, kind, folders)


def _pattern(pattern: str, kind: str) -> Source:
    if kind != PAIRS:
        raise DataError(f"{pattern} is a pattern, but a path is needed; give one file or folder.")
    paths = expand(pattern)
    if all(path.suffix.lower() == PARQUET for path in paths):
        return parquet_source(paths)
    return tar_source(paths)


def _folder(place: Path, kind: str, image_folder: Path | None) -> Source:
    if (place / MANIFEST).exists():
        return _shard_source(place, kind)
    if (place / INDEX).exists():
        return _litdata_source(place)
    if kind == CONVERSATIONS:
        raise DataError(f"{place} is a folder; give the .json or .jsonl file of the conversations.")
    for suffix in TABLE_SUFFIXES:
        if (place / f"metadata{suffix}").exists():
            return table_source(place / f"metadata{suffix}", image_folder)
    tars = sorted(place.glob("*.tar"))
    if tars:
        return tar_source(tars)
    # The hub lays the tables of a data set in folder `data`; img2dataset writes some that hold no images.
    for folder in (place, place / "data"):
        tables = [path for path in sorted(folder.glob(f"*{PARQUET}")) if not is_side_file(path)]
        if tables:
            return parquet_source(tables)
    return captioned_class_source(place) or folder_source(place)


def _file(place: Path, kind: str, folders: Folders) -> Source:
    suffix = place.suffix.lower()
    if kind == CONVERSATIONS and suffix in (".json", ".jsonl"):
        return conversation_source(place, *folders)
    if kind == PAIRS and suffix in TABLE_SUFFIXES:
        return table_source(place, folders[0])
    if kind == PAIRS and suffix == ".json":
        return caption_source(place, folders[0])
    if kind == PAIRS and suffix == ".tar":
        return tar_source([place])
    pairs = f"{', '.join(TABLE_SUFFIXES)}, .json or .tar"
    forms = ".json or .jsonl" if kind == CONVERSATIONS else pairs
    raise DataError(
        f"{place} is a {suffix or 'nameless'} file, whose form is unknown; give a folder, or a file "
        f"that ends in {forms}."
    )


def _shard_source(place: Path, kind: str) -> Source:
    shards = ShardSet(place)
    check_kind(shards, kind)
    source = Source(f"shards in {place}", files=[place / MANIFEST])
    for index, head in enumerate(shards.heads()):
        stored = StoredInShards(str(place), index) if head.has_image else None
        source.items.append(Item(f"{place} sample {index}", head.texts, stored, head.scene))
    return source


def _litdata_source(place: Path) -> Source:
    """A folder that litdata's own tools wrote, with an image and a text in each sample."""
    try:
        config = json.loads((place / INDEX).read_text())["config"]
        formats = [str(name).split(":")[0] for name in config["data_format"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{place / INDEX} is no litdata index ({error!r}); write the folder again."
        ) from error
    if "pickle" in formats:
        raise DataError(
            f"{place} stores pickled objects, which can run code when they are read; write images "
            "and texts as bytes, str or PIL images instead."
        )
    reader = litdata_reader(str(place))
    first = reader[0]
    names = list(first) if isinstance(first, dict) else []
    image_field, text_field = first_field(names, IMAGE_FIELDS), first_field(names, TEXT_FIELDS)
    if image_field is None or text_field is None:
        raise DataError(
            f"{place} holds samples with the fields {', '.join(names) or 'of no dict'}; it needs "
            f"an image ({', '.join(IMAGE_FIELDS)}) and a text ({', '.join(TEXT_FIELDS)})."
        )
    source = Source(
        f"litdata folder {place} (images from field {image_field}, captions from {text_field})",
        files=[place / INDEX],
    )
    for index in range(len(reader)):
        texts = clean_texts(reader[index][text_field])
        stored = StoredByLitdata(str(place), index, image_field)
        source.items.append(Item(f"{place} sample {index}", texts, stored))
    return source
