"""Where prepared data sets live, and how several processes share one without writing it twice."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from vilau.errors import DiskError

_FORBIDDEN = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT,
    errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.EIO,
}  # fmt: skip
"""Errors of a disk on which a folder cannot be written, however much space there is."""


def cache_folder() -> Path:
    """Folder of all prepared data sets: ``$VILAU_CACHE``, else ``~/.cache/vilau``."""
    return Path(os.environ.get("VILAU_CACHE") or Path.home() / ".cache" / "vilau").expanduser()


def short_hash(value: Any) -> str:
    """First 12 hex digits of the SHA-256 of ``value`` written as JSON with sorted keys."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def written_once(folder: Path, write: Callable[[], object], *, marker: str) -> Path:
    """Return ``folder``, calling ``write`` first if ``folder/marker`` does not exist yet.

    Processes that need the same folder wait for the first one (an advisory file lock, which the
    operating system frees when a process is killed). ``write`` must bring the folder into being in
    one step, so that the marker never stands in a half-written one.

    Raises:
        DiskError: the cache folder cannot be written.
    """
    if (folder / marker).exists():
        return folder
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not (folder / marker).exists():
                write()
    return folder


def temporary_folder(folder: Path) -> Path:
    """A hidden sibling of ``folder`` to write into before the final rename, named by process.

    What killed processes of this machine left of the same folder is deleted first.
    """
    prefix = f".{folder.name}.writing-{socket.gethostname()}-"
    for leftover in folder.parent.glob(f"{glob.escape(prefix)}*"):
        process = leftover.name.removeprefix(prefix)
        if process.isdigit() and (int(process) == os.getpid() or not _is_running(int(process))):
            shutil.rmtree(leftover, ignore_errors=True)
    return folder.parent / f"{prefix}{os.getpid()}"


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn the disk's own errors (full, read-only, forbidden) into one-sentence ``DiskError``."""
    try:
        yield
    except OSError as error:
        cached = folder.absolute().is_relative_to(cache_folder().absolute())
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            other = "set the variable VILAU_CACHE to" if cached else "choose"
            raise DiskError(
                f"The disk filled up while writing {folder}; nothing half-written is kept: free space there, or "
                f"{other} another place."
            ) from error
        if error.errno in _FORBIDDEN:
            other = "set the variable VILAU_CACHE to" if cached else "choose"
            raise DiskError(
                f"{folder} cannot be written ({error.strerror}); {other} a folder you may write to."
            ) from error
        raise
