"""Where a run ran: versions, machine, commit; and the sentences for a full or closed disk."""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from vilau.errors import VilauError

SHOWN = ("vilau", "torch", "lightning", "torchmetrics", "transformers", "litdata", "numpy")
"""Packages whose versions stand in ``metrics.json`` and the report; the full list is in
``environment.txt``."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_TEXT = re.compile(r"No space left on device|Disk quota exceeded|File too large")


def versions() -> dict[str, str]:
    """Return the versions of Python and the packages that decide numbers."""
    found = {"python": platform.python_version()}
    for name in SHOWN:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def environment_text() -> str:
    """Return machine, commit and every installed package with its version."""
    packages = sorted(
        f"{dist.metadata['Name']}=={dist.version}" for dist in metadata.distributions()
    )
    lines = [
        f"python {sys.version}",
        f"platform {platform.platform()}",
        f"cores {available_cores()}",
        f"commit {_commit()}",
        "",
        *dict.fromkeys(packages),
    ]
    return "\n".join(lines) + "\n"


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def disk_error(error: BaseException, folder: Path) -> VilauError | None:
    """Return the sentence for a full or write-protected disk behind ``error``, else None."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
    for cause in seen:
        if isinstance(cause, VilauError):
            return None
        full = isinstance(cause, OSError) and cause.errno in _FULL
        # safetensors and torch report the operating system's words in exceptions of their own.
        if full or _FULL_TEXT.search(str(cause)):
            free = shutil.disk_usage(folder if folder.exists() else Path.cwd()).free / 2**20
            return VilauError(
                f"{folder}: the disk is full ({free:.0f} MiB free); free some space and start again,"
                " the run goes on from its last checkpoint."
            )
        if isinstance(cause, PermissionError) and cause.filename:
            return VilauError(
                f"{cause.filename}: no permission; make it accessible or name another folder."
            )
    return None


def _commit() -> str:
    """Return the commit of the working folder, marked where files differ from it."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
