"""Weight files of other makers: one file, safetensors or tensors alone out of a pickle."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vilau.errors import CheckpointError

SAFE = ".safetensors"
ENDINGS = (SAFE, ".bin", ".pt", ".pth")
_WRAPPERS = ("state_dict", "model")
"""Entries that training scripts keep the weights in, beside their own."""


def read_tensor_file(path: Path) -> dict[str, Tensor]:
    """Return the tensors of one file by name, on the CPU.

    A file that torch wrote is read with its restricted reader, which builds tensors alone. Raises
    ``CheckpointError`` for a missing or broken file, and for one that holds anything else.
    """
    if not path.is_file():
        raise CheckpointError(f"the weights {path} are missing; put the file there.")
    if path.suffix not in ENDINGS:
        raise CheckpointError(f"{path} is no file of weights; give one of {', '.join(ENDINGS)}.")
    try:
        if path.suffix == SAFE:
            return load_file(path)
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); copy the file again.") from None
    except Exception as error:  # noqa: BLE001 - UnpicklingError and whatever else broken bytes cause
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path} cannot be read as tensors alone ({reason}); give a {SAFE} file instead."
        ) from None
    for key in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(t, Tensor) for t in found.values()):
        raise CheckpointError(
            f"{path} holds a {type(found).__name__} that is not a mapping from names to tensors; give a "
            f"{SAFE} file instead."
        )
    return {name.removeprefix("module."): tensor for name, tensor in found.items()}
