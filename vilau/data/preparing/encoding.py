"""From a place that holds images to the bytes that are stored: read, measured and decoded whole."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vilau.data.bundle import Medium, is_bundle, pack, unpack, without_marks
from vilau.data.media.images import encode_image, header_of, resize_short_side, storable
from vilau.data.preparing.filters import Filters
from vilau.data.sources.items import Item
from vilau.data.sources.stored import Stored, StoredClip, StoredMedia
from vilau.errors import DataError


@dataclass(frozen=True)
class PartSettings:
    """All that decides what the chunks of a part hold, beside the samples."""

    image_size: int | None
    chunk_bytes: int
    filters: Filters
    num_frames: int


@dataclass(frozen=True, slots=True)
class Encoded:
    """The image field of a sample as it is stored, or why it is not."""

    data: bytes = b""
    problem: str = ""
    """Why it cannot be read."""
    left_out_by: str = ""
    """The filter that does not let it pass."""
    animated: bool = False
    note: str = ""
    """What of a clip could not be read, where the rest is used."""
    texts: tuple[str, ...] | None = None
    """The texts of a document without the marks of ``lost`` and ``without`` images; None: the item's own."""
    lost: tuple[tuple[str, str], ...] = ()
    """Images that a document does without since they cannot be read: name and reason."""
    without: tuple[str, ...] = ()
    """For each image that a filter took out of a document, the filter."""


def encode(item: Item, settings: PartSettings) -> Encoded:
    """Read the images of an item, measure them and decode them whole."""
    if item.image is None:
        return Encoded()
    if isinstance(item.image, StoredMedia):
        return _document(item, item.image, settings)
    medium, told = _read(item.image, settings)
    return replace(told, data=medium if isinstance(medium, bytes) else pack([medium]))


def _read(stored: Stored, settings: PartSettings) -> tuple[Medium, Encoded]:
    """Read an image, a clip, or the field of a sample that was stored before; the rest tells of it."""
    try:
        if isinstance(stored, StoredClip):
            return _clip(stored, settings)
        data = stored.read()
        if is_bundle(data):
            return _again(data, settings)
        header = header_of(data)
        left_out_by = settings.filters.by_size(header.width, header.height)
        if left_out_by:
            return b"", Encoded(left_out_by=left_out_by)
        stored_as = storable(data, image_size=settings.image_size)
        return stored_as, Encoded(animated=header.animated)
    except (DataError, OSError) as error:
        return b"", Encoded(problem=str(error))


def _clip(stored: StoredClip, settings: PartSettings) -> tuple[Medium, Encoded]:
    # Imported here: it brings torch along, which workers that read images alone do without.
    from vilau.data.media.video import read_clip

    try:
        clip = read_clip(stored.path, num_frames=settings.num_frames)
    except (DataError, OSError):
        raise
    except Exception as error:  # decoders raise many types for broken bytes
        raise DataError(
            f"{stored.path} cannot be decoded ({type(error).__name__}: {error})"
        ) from error
    left_out_by = settings.filters.by_size(*clip.frames[0].size)
    if left_out_by:
        return b"", Encoded(left_out_by=left_out_by)
    size = settings.image_size
    frames = (
        frame if size is None or min(frame.size) <= size else resize_short_side(frame, size)
        for frame in clip.frames
    )
    return tuple(map(encode_image, frames)), Encoded(note=clip.note)


def _again(bundle: bytes, settings: PartSettings) -> tuple[Medium, Encoded]:
    """A bundle from other shards, its images checked and shrunk."""
    media = unpack(bundle)
    for medium in media:
        header = header_of(medium if isinstance(medium, bytes) else medium[0])
        left_out_by = settings.filters.by_size(header.width, header.height)
        if left_out_by:
            return b"", Encoded(left_out_by=left_out_by)

    def stored(data: bytes) -> bytes:
        return storable(data, image_size=settings.image_size)

    return pack(
        [stored(m) if isinstance(m, bytes) else tuple(map(stored, m)) for m in media]
    ), Encoded()


def _document(item: Item, places: StoredMedia, settings: PartSettings) -> Encoded:
    """Read the images and clips of a document; what it can spare may be missing afterwards."""
    media: list[Medium] = []
    gone: set[int] = set()
    lost, without, notes, animated = list[tuple[str, str]](), list[str](), list[str](), False
    for number, place in enumerate(places.parts):
        medium, told = _read(place, settings)
        if not places.spare and (told.problem or told.left_out_by):
            return told
        if told.problem:
            lost.append((f"{item.name} image {number + 1}", told.problem))
        elif told.left_out_by:
            without.append(told.left_out_by)
        else:
            media.append(medium)
            animated |= told.animated
            notes += [told.note] if told.note else []
            continue
        gone.add(number)
    if not media:
        return Encoded(problem=lost[0][1]) if lost else Encoded(left_out_by=without[0])
    return Encoded(
        pack(media),
        animated=animated,
        note=" ".join(notes),
        texts=without_marks(item.texts, gone) if gone else None,
        lost=tuple(lost),
        without=tuple(without),
    )
