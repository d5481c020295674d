"""Batches that went wrong, in files that anyone may open: tensors, numbers and strings alone.

A typed batch of `vilau.types` becomes a dictionary with its class's name, and back. Nothing in the
file is code: it is read with ``weights_only=True``.
"""

import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vilau import types
from vilau.errors import DataError

KIND = "kind"
"""The key under which a typed batch keeps the name of its class."""
TUPLE = "tuple"


def to_plain(value: Any) -> Any:
    """Turn a batch into tensors on the CPU, numbers, strings, lists and dictionaries.

    Functions are left out (None): nothing in the file is code. What is none of all these is kept as
    its ``repr``, to look at.
    """
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if is_dataclass(value) and not isinstance(value, type):
        content = {item.name: to_plain(getattr(value, item.name)) for item in fields(value)}
        return {KIND: type(value).__name__, **content}
    if isinstance(value, Mapping):
        return {str(key): to_plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple):
        return {KIND: TUPLE, "items": [to_plain(entry) for entry in value]}
    if isinstance(value, list):
        return [to_plain(entry) for entry in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return None if callable(value) else repr(value)


def from_plain(value: Any) -> Any:
    """Undo `to_plain`: dictionaries that name a class of `vilau.types` become that class again.

    Raises:
        DataError: a dictionary names another class.
    """
    if isinstance(value, list):
        return [from_plain(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    content = {key: from_plain(entry) for key, entry in value.items() if key != KIND}
    kind = value.get(KIND)
    if kind is None:
        return content
    if kind == TUPLE:
        return tuple(content["items"])
    made = getattr(types, str(kind), None)
    if not (isinstance(made, type) and is_dataclass(made)):
        raise DataError(
            f"The saved batch is of the kind {kind!r}, which vilau.types does not hold; read it with "
            "torch.load(file, weights_only=True), which gives its tensors by name."
        )
    return made(**content)


def save_step(path: str | Path, step: Mapping[str, Any]) -> None:
    """Write what is known of a step (its ``batches`` among it); the file is whole or not there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    torch.save(to_plain(step), partial)
    os.replace(partial, path)


def load_step(path: str | Path) -> dict[str, Any]:
    """Read what `save_step` wrote; its ``batches`` are typed batches again.

    Raises:
        DataError: the file is missing or no such file.
    """
    if not Path(path).is_file():
        raise DataError(f"{path} does not exist; give a file of a run's folder health/.")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # UnpicklingError and whatever else broken bytes cause
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}); give a file of a run's folder health/."
        ) from error
    if not isinstance(found, dict) or "batches" not in found:
        raise DataError(
            f"{path} holds no saved step (no 'batches'); give a file of a run's folder health/."
        )
    return dict(from_plain(found))
