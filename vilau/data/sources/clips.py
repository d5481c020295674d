"""Videos with captions: a table such as OpenVid's, with a column of video files and one of captions."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from vilau.data.media.video import ANIMATIONS, import_av
from vilau.data.sources.items import (
    TEXT_FIELDS,
    VIDEO_FIELDS,
    Item,
    Source,
    clean_texts,
)
from vilau.data.sources.lines import files_at
from vilau.data.sources.stored import StoredClip
from vilau.data.sources.tables import TABLE_SUFFIXES, needed_field, table_rows
from vilau.errors import DataError


def clip_source(path: str, video_folder: Path | None = None) -> Source:
    """Read tables of videos and captions; other columns can be asked for by ``--where``.

    A video may be a file, an animation or a folder of frames. Its path is relative to ``video_folder``, by
    default the table's own folder. Which column of ``VIDEO_FIELDS`` and ``TEXT_FIELDS`` is used stands in
    the title.

    Raises:
        DataError: a table is empty, damaged or lacks a column, or PyAV is needed and missing.
    """
    files = files_at(path, TABLE_SUFFIXES, "table of videos")
    source = Source("", files=list(files))
    names = set()
    for file in files:
        rows = list(table_rows(file))
        if not rows:
            raise DataError(f"{file} holds no rows; give it a header line and one line per video.")
        columns = list(rows[0][1])
        video = needed_field(file, columns, VIDEO_FIELDS, "video files")
        text = needed_field(file, columns, TEXT_FIELDS, "captions")
        names.add(f"videos from column {video}, captions from {text}")
        folder = video_folder or file.parent
        for number, row in rows:
            where, name = f"{file}:{number}", row.get(video)
            if not isinstance(name, str) or not name.strip():
                source.unpaired.append((where, "no video file is named"))
                continue
            clip = folder / name.strip()
            if not os.path.exists(clip):
                source.unpaired.append((where, f"its video {clip} does not exist"))
                continue
            texts = clean_texts(row.get(text))
            shown = str(clip) if texts else f"{where} ({name})"
            source.items.append(Item(shown, texts, StoredClip(str(clip)), columns=row))
            source.files.append(clip)
    many = f"{len(files)} tables from {files[0]} on" if len(files) > 1 else f"table {files[0]}"
    source.title = f"{many} ({'; '.join(sorted(names))})"
    require_player(source.files[len(files) :])
    return source


def require_player(clips: Iterable[Path]) -> None:
    """Raise ``DataError`` where a clip needs PyAV and it is missing: once, not for every video."""
    for clip in clips:
        if clip.suffix.lower() not in ANIMATIONS and not clip.is_dir():
            import_av(str(clip))
            return
