"""Folders of images: captions beside them, and one folder per class."""

from __future__ import annotations

from pathlib import Path

from vilau.data.items import IMAGE_SUFFIXES, Item, Source, StoredFile, clean_texts
from vilau.errors import DataError

CAPTION_SUFFIX = ".txt"
CLASS_NAMES = "classes.txt"
LISTS = {CLASS_NAMES, "unreadable.txt", "readme.txt", "license.txt", "requirements.txt"}
"""Text files that are no captions."""


def folder_source(folder: Path) -> Source:
    """Images with ``name.txt`` beside ``name.jpg``, in the folder and all folders below it.

    Raises:
        DataError: there is no image at all.
    """
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and not _hidden(path, folder)
    )
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    captions = {
        path.with_suffix(""): path
        for path in files
        if path.suffix.lower() == CAPTION_SUFFIX and path.name.lower() not in LISTS
    }
    if not images and not captions:
        raise DataError(
            f"{folder} holds no images ({len(files)} other files); put images there with a caption "
            "beside each (a.jpg and a.txt), or a metadata.csv with the columns file_name and text."
        )
    source = Source(f"folder {folder} (a caption file beside each image)")
    source.files = [*images, *captions.values()]
    with_image = {path.with_suffix("") for path in images}
    for stem, caption in captions.items():
        if stem not in with_image:
            source.unpaired.append((str(caption), "the image it describes is missing"))
    for image in images:
        _add_image(source, image, captions.get(image.with_suffix("")))
    return source


def _add_image(source: Source, image: Path, caption: Path | None) -> None:
    if caption is None:
        missing = f"its caption {image.with_suffix(CAPTION_SUFFIX).name} is missing"
        source.unpaired.append((str(image), missing))
        return
    try:
        texts = clean_texts(caption.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, OSError) as error:
        source.unreadable.append((str(caption), f"the caption is no UTF-8 text ({error})"))
        return
    if texts:
        source.items.append(Item(str(image), texts, StoredFile(str(image))))
    else:
        source.unpaired.append((str(image), f"its caption {caption.name} is empty"))


def class_source(folder: Path) -> Source:
    """One folder of images per class (as ImageNet is stored); the texts of an item are its class's name
    and folder.

    ``classes.txt`` may name the classes, one line ``folder name`` each (as ImageNet's
    ``LOC_synset_mapping.txt``: what follows a comma is left out); else the folders' names are used.

    Raises:
        DataError: the folder is missing or has no folders with images.
    """
    if not folder.is_dir():
        raise DataError(
            f"data.zero_shot names {folder}, which does not exist; write a folder path."
        )
    names = _class_names(folder / CLASS_NAMES)
    source = Source(f"class folders in {folder}")
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        name = names.get(inner.name, inner.name.replace("_", " "))
        files = sorted(path for path in inner.rglob("*") if path.is_file())
        images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
        source.items += [
            Item(str(path), (name, inner.name), StoredFile(str(path))) for path in images
        ]
        source.files += images
    if not source.items:
        raise DataError(
            f"data.zero_shot names {folder}, which holds no class folders with images; put the "
            "images of each class into a folder named after it."
        )
    return source


def _class_names(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text ({error}); save it as UTF-8.") from error
    lines = (line.split(maxsplit=1) for line in text.splitlines())
    return {line[0]: line[1].split(",")[0].strip() for line in lines if len(line) == 2}


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)
