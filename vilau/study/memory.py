"""Memory that a process has freed and will soon ask for again."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of glibc's settings (malloc.h)."""
KEPT_BYTES = 2**30


def keep_freed_memory() -> bool:
    """Let the C library keep up to 1 GiB of freed memory for the next request; tell whether it does.

    By default glibc hands large blocks back to the kernel, which fills the same pages with zeros again in the next
    step: of a small model's training step on a CPU that takes a twentieth to a fifth. Other C libraries are left as
    they are. Not for processes that load large weights only to move them to another device.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return all(mallopt(name, KEPT_BYTES) == 1 for name in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD))
