"""Web documents of sentences and images, as MMC4 has them: ``text_list`` and ``image_info`` on each line."""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from os.path import isdir, isfile  # unlike Path.is_file, quiet about names that no file can have
from pathlib import Path
from typing import Any

from vilau.data.bundle import MARK
from vilau.data.sources.folders import files_below, suffix_of
from vilau.data.sources.items import IMAGE_SUFFIXES, Item, Source, clean_text
from vilau.data.sources.lines import JSONL, files_at, opened_lines
from vilau.data.sources.stored import Stored, StoredFile, StoredInTar, StoredMedia
from vilau.data.sources.tables import jsonl_rows
from vilau.errors import ConfigError, DataError

NO_IMAGE = "document without an image"


@dataclass(frozen=True)
class DocumentLimits:
    """Which images of a document are kept.

    Args:
        max_images: at most so many, the first in reading order.
        min_similarity: leave out those whose ``matched_sim`` is smaller; None: any.
    """

    max_images: int = 6
    min_similarity: float | None = None

    def check(self) -> None:
        """Raise ``ConfigError`` for numbers that make no sense."""
        if self.max_images < 1:
            raise ConfigError(f"max images is {self.max_images}; write at least 1.")
        if self.min_similarity is not None and not -1.0 <= self.min_similarity <= 1.0:
            raise ConfigError(
                f"min similarity is {self.min_similarity:g}; write a cosine from -1 to 1, e.g. 0.24."
            )

    def __str__(self) -> str:
        least = self.min_similarity
        similar = "" if least is None else f" of similarity {least:g} or more"
        return f"at most {self.max_images} images{similar}"


LIMITS = DocumentLimits()
"""The published limit, as a default argument."""


def document_source(
    path: str, image_folder: Path | None = None, limits: DocumentLimits = LIMITS
) -> Source:
    """A .jsonl or .jsonl.gz file of documents, a folder or a pattern of such.

    Images are looked for in ``image_folder``, by default the file's own: as files of that name, or as
    members of its tars; of the tar that is called like the .jsonl file, where there is one.

    Raises:
        ConfigError: a limit makes no sense.
        DataError: there is no such file.
    """
    limits.check()
    files = files_at(path, JSONL, "documents")
    many = f"{len(files)} files of documents from {files[0]} on"
    title = f"{many if len(files) > 1 else f'documents in {files[0]}'} ({limits})"
    units = [DocumentUnit(str(f), str(image_folder or f.parent), limits) for f in files]
    held = [path for place in sorted({unit.folder for unit in units}) for path in _held(place)]
    return Source(title, files=[*files, *held], units=list(units))


@dataclass(frozen=True)
class DocumentUnit:
    """One file of documents."""

    path: str
    folder: str
    limits: DocumentLimits

    def listed(self, columns: Sequence[str]) -> Source:
        """List the documents that have an image left.

        Raises:
            DataError: a line is no document.
        """
        source, path = Source(self.path), Path(self.path)
        left_out, images_left_out = Counter[str](), Counter[str]()
        with opened_lines(path) as lines:
            for number, row in jsonl_rows(path, lines):
                name = f"{path}:{number}"
                sentences, images = _sentences(name, row), _images(name, row)
                found = self._found(name, sentences, images, source, images_left_out)
                if not found:
                    left_out[NO_IMAGE] += 1
                    continue
                texts = (_marked(sentences, [at for at, _ in found]),)
                media = StoredMedia(tuple(stored for _, stored in found), spare=True)
                there = {column: row[column] for column in columns if column in row}
                source.items.append(Item(name, texts, media, columns=there))
        source.left_out, source.images_left_out = dict(left_out), dict(images_left_out)
        return source

    def _found(
        self,
        name: str,
        sentences: Sequence[str],
        images: Sequence[Mapping[str, Any]],
        source: Source,
        left_out: Counter[str],
    ) -> list[tuple[int, Stored]]:
        """The images that are kept, in reading order: the sentence each stands before, and its place."""
        kept: list[tuple[int, Stored]] = []
        least, most = self.limits.min_similarity, self.limits.max_images
        for number, image in enumerate(images, start=1):
            at = image.get("matched_text_index")
            if not isinstance(at, int) or isinstance(at, bool) or not 0 <= at < len(sentences):
                raise DataError(
                    f"{name} has matched_text_index {at!r} for image {number}; write the index of a sentence "
                    f"of its text_list, from 0 to {len(sentences) - 1}."
                )
            if least is not None and _similarity(name, number, image) < least:
                left_out[f"similarity below {least:g}"] += 1
                continue
            stored = self._place(name, number, image)
            if stored is None:
                reason = f"its image {image['image_name']} is neither in {self.folder} nor in a tar there"
                source.lost.append((name, reason))
            elif not any(sentences[at:]):
                left_out["no text follows"] += 1
            else:
                kept.append((at, stored))
        kept.sort(key=lambda pair: pair[0])
        if len(kept) > most:
            left_out[f"beyond {most} in a document"] += len(kept) - most
        return kept[:most]

    def _place(self, name: str, number: int, image: Mapping[str, Any]) -> Stored | None:
        file = image.get("image_name")
        if not isinstance(file, str) or not file.strip():
            raise DataError(
                f"{name} has no image_name for image {number}; download the images and write the name of each "
                "one's file."
            )
        path = Path(self.folder) / file
        if isfile(path):
            return StoredFile(str(path))
        return self._in_tars.get(file)

    @cached_property
    def _in_tars(self) -> dict[str, StoredInTar]:
        return _members(_tars(Path(self.folder), Path(self.path).name.split(".")[0]))


def _held(folder: str) -> list[Path]:
    """Images of a folder, and tars of such."""
    if not isdir(folder):
        return []
    suffixes = (*IMAGE_SUFFIXES, ".tar")
    return [Path(path) for path in files_below(folder) if suffix_of(path) in suffixes]


def _tars(folder: Path, stem: str) -> tuple[tuple[str, int], ...]:
    """The tar that belongs to a file of documents, or all of the folder, with their times."""
    own = folder / f"{stem}.tar"
    tars = [own] if own.is_file() else sorted(folder.glob("*.tar"))
    return tuple((str(tar), tar.stat().st_mtime_ns) for tar in tars)


@lru_cache(maxsize=2)
def _members(tars: tuple[tuple[str, int], ...]) -> dict[str, StoredInTar]:
    """Files in tars by their names, without the folders they lie in; raises ``DataError``.

    Kept for the next file of documents, which may be of the same tars; until their times change.
    """
    found = {}
    for path, _ in tars:
        try:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    if member.isfile():
                        place = StoredInTar(path, member.offset_data, member.size)
                        found[member.name.rpartition("/")[2]] = place
        except (tarfile.TarError, OSError) as error:
            raise DataError(
                f"{path} is no whole, uncompressed tar file ({error}); unpack it or fetch it again."
            ) from error
    return found


def _sentences(name: str, row: Mapping[str, Any]) -> list[str]:
    found = row.get("text_list")
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise DataError(
            f"{name} has no text_list; write the document's sentences as a list of texts."
        )
    return [clean_text(text.replace(MARK, " ")) for text in found]


def _images(name: str, row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = row.get("image_info")
    if not isinstance(found, list) or not all(isinstance(image, dict) for image in found):
        raise DataError(
            f"{name} has no image_info; write a list of objects with image_name and matched_text_index."
        )
    return found


def _similarity(name: str, number: int, image: Mapping[str, Any]) -> float:
    found = image.get("matched_sim")
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise DataError(
            f"{name} has matched_sim {found!r} for image {number}, but a least similarity is asked for; add "
            "it, or leave out --min-similarity."
        )
    return float(found)


def _marked(sentences: Sequence[str], places: Sequence[int]) -> str:
    """The document as one text, a mark before each sentence that an image stands before."""
    count = Counter(places)
    words = [word for at, text in enumerate(sentences) for word in (*[MARK] * count[at], text)]
    return " ".join(word for word in words if word)
