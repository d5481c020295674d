"""What worker processes do in tests; a module of its own, for they import it and should be quick."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from vilau.data.preparing import parts
from vilau.data.sources.items import Source


@dataclass(frozen=True)
class DeadlyUnit:
    """Takes its worker along."""

    def listed(self, columns: Sequence[str]) -> Source:
        os._exit(7)


def wait_a_little(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def loads_torch(_: int) -> bool:
    """Whether a process that can write parts has loaded torch."""
    return parts.write_part is not None and "torch" in sys.modules
