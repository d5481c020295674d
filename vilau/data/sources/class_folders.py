"""One folder of images per class, as ImageNet is stored, and what the classes are called."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from vilau.data.sources.folders import (
    CAPTION_SUFFIX,
    CLASS_NAMES,
    UNIT_IMAGES,
    files_below,
    suffix_of,
)
from vilau.data.sources.items import IMAGE_SUFFIXES, Item, Source
from vilau.data.sources.stored import StoredFile
from vilau.errors import DataError

NAME_FILES = (CLASS_NAMES, "LOC_synset_mapping.txt", "synset_words.txt")
"""Files with one line ``folder name`` for each class; the first is ours, the others ImageNet's."""
INDEX_FILE = "imagenet_class_index.json"
"""``{"0": ["n01440764", "tench"], ...}``, as Keras writes it."""
LEVELS_UP = 3
"""So far above the class folders a file of names may lie: ``ILSVRC/Data/CLS-LOC/val``."""
CAPTION = "a photo of a {}."
"""Caption of an image of which only the class is known."""
_WORDNET = re.compile(r"n\d{8}")


def class_source(folder: Path, *, key: str = "data.zero_shot") -> Source:
    """Images in one folder per class; the texts of an item are its class's name and folder.

    Names are looked up in ``classes.txt`` or ImageNet's own files, in the folder or above it; else
    folders named like WordNet's ``n01440764`` have the names that timm ships; else a folder's name is
    its class's.

    Raises:
        DataError: the folder is missing, has no folders with images, or a file of names is broken.
    """
    if not folder.is_dir():
        raise DataError(f"{key} names {folder}, which does not exist; write a folder path.")
    inner = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    names, origin = class_names(folder, [path.name for path in inner])
    source = Source(f"class folders in {folder} (classes named by {origin})")
    named_by = _names_file(folder)
    source.files = [named_by] if named_by else []
    for path in inner:
        found = files_below(str(path))
        images = [image for image in found if suffix_of(image) in IMAGE_SUFFIXES]
        source.units += [
            ClassUnit(tuple(images[start : start + UNIT_IMAGES]), (names[path.name], path.name))
            for start in range(0, len(images), UNIT_IMAGES)
        ]
        source.files += [Path(image) for image in images]
    if not source.units:
        raise DataError(
            f"{key} names {folder}, which holds no class folders with images; put the images of each "
            "class into a folder named after it."
        )
    return source


def captioned_class_source(folder: Path) -> Source | None:
    """ImageNet as image-text pairs, with ``CAPTION`` over the class's name; None for other folders.

    ImageNet's are known by ``classes.txt`` or by the names of all folders, and by images that have no
    captions beside them.
    """
    inner = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
    wordnet = bool(inner) and all(_WORDNET.fullmatch(path.name) for path in inner)
    if not inner or not (wordnet or (folder / CLASS_NAMES).exists()):
        return None
    if any(suffix_of(path) == CAPTION_SUFFIX for path in files_below(str(inner[0]))):
        return None
    source = class_source(folder, key="the data path")
    source.title = f"{source.title} with the caption '{CAPTION}'"
    source.units = [
        ClassUnit(unit.images, (CAPTION.format(unit.texts[0]),))
        for unit in source.units
        if isinstance(unit, ClassUnit)
    ]
    return source


@dataclass(frozen=True)
class ClassUnit:
    """Some images of one class."""

    images: tuple[str, ...]
    texts: tuple[str, ...]

    def listed(self, columns: Sequence[str]) -> Source:
        """List them; there are no columns."""
        items = [Item(path, self.texts, StoredFile(path)) for path in self.images]
        return Source("images of a class", items=items)


def class_names(folder: Path, classes: Sequence[str]) -> tuple[dict[str, str], str]:
    """Name of each class folder, and where the names come from; see ``class_source``.

    Raises:
        DataError: a file of names is broken, or names a folder twice.
    """
    file = _names_file(folder)
    found = _read_names(file) if file else {}
    if file and not found.keys() & set(classes) and file.parent != folder:
        file, found = None, {}  # a list of other folders
    origin = str(file) if file else "their folders"
    unnamed = [name for name in classes if name not in found]
    if unnamed and all(_WORDNET.fullmatch(name) for name in unnamed):
        known = {name: _wordnet_name(name) for name in unnamed}
        found |= {name: word for name, word in known.items() if word}
        origin = f"{file} and timm's list of WordNet" if file else "timm's list of WordNet"
    return {name: found.get(name, name.replace("_", " ")) for name in classes}, origin


def _names_file(folder: Path) -> Path | None:
    places = [folder, *folder.absolute().parents[:LEVELS_UP]]
    files = (place / name for name in (*NAME_FILES, INDEX_FILE) for place in places)
    return next((file for file in files if file.is_file()), None)


def _read_names(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json":
            pairs = [(folder, name.replace("_", " ")) for folder, name in json.loads(text).values()]
        else:
            lines = (line.split(maxsplit=1) for line in text.splitlines())
            pairs = [(line[0], line[1].split(",")[0].strip()) for line in lines if len(line) == 2]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text ({error}); save it as UTF-8.") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f'{path} is no list of classes ({error}); write {{"0": ["n01440764", "tench"], ...}}.'
        ) from error
    names: dict[str, str] = {}
    for folder, name in pairs:
        if names.setdefault(folder, name) != name:
            raise DataError(
                f"{path} names the class {folder} twice, as {names[folder]!r} and {name!r}; keep one "
                "of the lines."
            )
    return names


def _wordnet_name(synset: str) -> str:
    """First of WordNet's names of a synset; empty where timm knows none."""
    try:
        names = _wordnet().label_name_to_description(synset, detailed=False)
    except KeyError:
        return ""
    return str(names).split(",")[0].strip()


@lru_cache(maxsize=1)
def _wordnet() -> Any:
    # Imported here: only folders with WordNet's names need it, and it brings torch along.
    from timm.data import ImageNetInfo

    return ImageNetInfo()
