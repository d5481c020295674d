"""Weights of other people's networks: where they lie, and reading them without running what they hold."""

import os
from pathlib import Path

import torch
from torch import Tensor

from vilau.errors import CheckpointError


def find_weights(file: str, given: str | None, *, what: str, origin: str, instead: str) -> Path:
    """Return where a weights file lies: ``given``, or ``file`` in torch's hub cache.

    Args:
        file: the file's published name.
        given: a path of the user's own; None: the hub cache.
        what: whose weights they are, e.g. ``The Inception weights of FID``.
        origin: where the file comes from, e.g. ``torch-fidelity's release v0.2.0``.
        instead: what to write to do without it.

    Raises:
        CheckpointError: there is no such file; one sentence with all of the above.
    """
    hub = Path(torch.hub.get_dir()) / "checkpoints" / file
    path = hub if given is None else Path(os.path.expanduser(given))
    if not path.is_file():
        raise CheckpointError(f"{what} are missing: put {file} ({origin}) at {path}, or {instead}.")
    return path


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dictionary of tensors alone.

    Raises:
        CheckpointError: the file is broken, or holds more than tensors.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # UnpicklingError and whatever else broken bytes cause
        raise CheckpointError(
            f"{path} cannot be read as weights ({type(error).__name__}); download it again."
        ) from error
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise CheckpointError(
            f"{path} holds no state dictionary (names and tensors); download it again."
        )
    return found
