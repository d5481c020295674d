"""Which form of data a path holds."""

from __future__ import annotations

import json
from pathlib import Path

from vilau.data.conversations import conversation_source
from vilau.data.folders import folder_source
from vilau.data.items import (
    IMAGE_FIELDS,
    TEXT_FIELDS,
    Item,
    Source,
    StoredByLitdata,
    StoredInShards,
    clean_texts,
    first_field,
    litdata_reader,
)
from vilau.data.shards import INDEX, MANIFEST, ShardSet, check_kind
from vilau.data.tables import TABLE_SUFFIXES, table_source
from vilau.data.tars import expand, tar_source
from vilau.errors import DataError

PAIRS = "image_text"
"""Images with captions."""
CONVERSATIONS = "instructions"
"""Questions and answers, about an image or none."""


def find_source(path: str, *, kind: str = PAIRS, image_folder: str | None = None) -> Source:
    """Look at ``path`` and list what it holds.

    Args:
        path: a folder, a file, or a pattern of tar files.
        kind: ``PAIRS`` or ``CONVERSATIONS``.
        image_folder: where the image paths of a table or a conversation file begin.

    Raises:
        DataError: the path is missing, empty, of an unknown form or damaged.
    """
    try:
        return _found(path, kind, image_folder)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); allow reading it, or give another path."
        ) from error


def _found(path: str, kind: str, image_folder: str | None) -> Source:
    place = Path(path).expanduser()
    folder = Path(image_folder).expanduser() if image_folder else None
    if folder is not None and not folder.is_dir():
        raise DataError(f"image folder {folder} does not exist; write the folder of the images.")
    if any(mark in path for mark in "{*?") and not place.exists():
        return tar_source(expand(str(place)))
    if not place.exists():
        raise DataError(
            f"{place} does not exist; write the path of a folder or file of images with captions."
        )
    if place.is_dir():
        return _folder(place, kind, folder)
    return _file(place, kind, folder)


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
    return tar_source(tars) if tars else folder_source(place)


def _file(place: Path, kind: str, image_folder: Path | None) -> Source:
    suffix = place.suffix.lower()
    if kind == CONVERSATIONS and suffix in (".json", ".jsonl"):
        return conversation_source(place, image_folder)
    if kind == PAIRS and suffix in TABLE_SUFFIXES:
        return table_source(place, image_folder)
    if kind == PAIRS and suffix == ".tar":
        return tar_source([place])
    forms = ".json or .jsonl" if kind == CONVERSATIONS else f"{', '.join(TABLE_SUFFIXES)} or .tar"
    raise DataError(
        f"{place} is a {suffix or 'nameless'} file, whose form is unknown; give a folder, or a file "
        f"that ends in {forms}."
    )


def _shard_source(place: Path, kind: str) -> Source:
    shards = ShardSet(place)
    check_kind(shards, kind)
    source = Source(f"shards in {place}", files=[place / MANIFEST])
    for index in range(len(shards)):
        (record,) = shards.read([index])
        stored = StoredInShards(str(place), index) if record.image else None
        source.items.append(Item(f"{place} sample {index}", record.texts, stored, record.scene))
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
        name, texts = f"{place} sample {index}", clean_texts(reader[index][text_field])
        if texts:
            stored = StoredByLitdata(str(place), index, image_field)
            source.items.append(Item(name, texts, stored))
        else:
            source.unpaired.append((name, "its caption is empty"))
    return source
