"""The hidden folder in which a set comes into being: what is finished there survives a kill."""

from __future__ import annotations

import glob
import json
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from vilau.data.cache import disk_errors
from vilau.data.chunks import write_whole
from vilau.errors import DataError

LISTING = "listing.json"


class Workplace:
    """Folder ``.<name>.preparing-<mark>`` beside the set that is being prepared.

    ``units/<n>.json`` is a listed piece of the source, ``listing.json`` marks that all are listed and
    joined, ``parts/<n>.json`` marks that the chunks ``set/chunk-<n>-*.bin`` are complete. Each of these
    files appears whole or not at all, so whoever is killed leaves what the next run goes on from.

    Use as a context manager; one process at a time has it. It is deleted by ``deliver``, and when
    nothing in it was finished yet.

    Args:
        folder: the set to be.
        mark: identifies source and settings; work on others has a workplace of its own.

    Raises:
        DataError: another process is at work, or the folder cannot be written.
    """

    def __init__(self, folder: Path, mark: str) -> None:
        self.folder = folder
        self.path = workplace_of(folder, mark)
        self.set, self.units, self.parts = (self.path / n for n in ("set", "units", "parts"))
        self._lock = FileLock(self.path / "lock", timeout=0)

    def __enter__(self) -> Self:
        with disk_errors(self.folder):
            for folder in (self.set, self.units, self.parts):
                folder.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire()
            except Timeout as error:
                raise DataError(
                    f"Another process is preparing {self.folder}; wait until it is done."
                ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        worthless = kind is not None and not self.holds_work()
        self._lock.release()
        if worthless:
            shutil.rmtree(self.path, ignore_errors=True)

    def holds_work(self) -> bool:
        """Whether anything is finished."""
        records = (folder.glob("[0-9]*.json") for folder in (self.units, self.parts))
        return (self.path / LISTING).exists() or any(map(any, records))

    def finished(self, folder: Path) -> set[int]:
        """Numbers of the records in ``units`` or ``parts``."""
        return {int(path.stem) for path in folder.glob("[0-9]*.json")}

    def record(self, folder: Path, number: int) -> dict[str, Any]:
        """Content of a record in ``units`` or ``parts``."""
        content: dict[str, Any] = json.loads(record_file(folder, number).read_bytes())
        return content

    def deliver(self) -> None:
        """Give the set its name, and delete what this and other runs left of it.

        Raises:
            DataError: somebody else brought the folder into being.
        """
        with disk_errors(self.folder):
            os.replace(self.set, self.folder)
        self._lock.release()
        begins = glob.escape(f".{self.folder.name}.preparing-")
        for left in self.folder.parent.glob(f"{begins}*"):
            shutil.rmtree(left, ignore_errors=True)


def workplace_of(folder: Path, mark: str) -> Path:
    """Where ``folder`` is prepared from the source and settings that ``mark`` stands for."""
    return folder.parent / f".{folder.name}.preparing-{mark}"


def write_record(folder: Path, number: int, content: dict[str, Any]) -> None:
    """Write the record that marks a piece of work as finished."""
    write_whole(record_file(folder, number), plain_bytes(content))


def record_file(folder: Path, number: int) -> Path:
    """Where the record of a piece of work lies."""
    return folder / f"{number:06d}.json"


def plain_bytes(content: Any) -> bytes:
    """Return ``content`` as one line of JSON that ``json.loads`` reads back exactly.

    Names of files may hold bytes that are no UTF-8, which Python keeps as halves of surrogate pairs.
    """
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")
