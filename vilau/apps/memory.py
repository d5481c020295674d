"""Too little memory, told in a sentence that names the options of the verb."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from vilau.errors import ConfigError

DEVICE_FULL, CPU_FULL = "out of memory", "can't allocate memory"
"""What torch says of CUDA and MPS, and of the CPU; only CUDA has an error class for it."""


@contextmanager
def memory_told(args: argparse.Namespace) -> Iterator[None]:
    """Raise ``ConfigError`` where the work inside takes more memory than there is."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition(". ")[0].splitlines()[0] if str(error) else ""
        if DEVICE_FULL not in reason and CPU_FULL not in reason:
            raise
        given = vars(args)
        remedies = {
            "a smaller --batch-size": given.get("batch_size", 1) > 1,
            "--dtype bfloat16": given.get("dtype", "bfloat16") in (None, "float32"),
            "--device cpu": "device" in given and CPU_FULL not in reason,
        }
        helps = [remedy for remedy, fits in remedies.items() if fits]
        advice = f"write {' or '.join(helps)}" if helps else "take a machine with more"
        raise ConfigError(f"this takes more memory than there is ({reason}); {advice}.") from None
