"""A short mark of all that decides what batches hold, so that a run is resumed over the data it began with."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from vilau.data.shards import ShardSet


def mark_of(*parts: Any) -> str | None:
    """Return 12 hex digits over the settings of ``parts`` and the sets they read; None where these cannot be told.

    Settings are what dataclasses hold, and what other objects return from a method ``told``: numbers, texts, arrays,
    and containers of them. A set counts by its samples, wherever it lies. Equal on every machine, and after a field
    that stands at its default was added.
    """
    try:
        told = json.dumps([_told(part) for part in parts], allow_nan=True)
    except TypeError:  # a function of the user's own, which may read anything
        return None
    return _hex(told.encode())


def _told(value: Any) -> Any:
    if isinstance(value, np.number | np.bool_):
        value = value.item()
    if isinstance(value, float) and value.is_integer():  # YAML's 1 and 1.0
        return int(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray):
        return [str(value.dtype), list(value.shape), _hex(np.ascontiguousarray(value).tobytes())]
    if isinstance(value, ShardSet):
        return [value.manifest.kind, *(chunk.sha256 for chunk in value.manifest.chunks)]
    if callable(tell := getattr(value, "told", None)):
        return [type(value).__name__, _told(tell())]
    if isinstance(value, Mapping):
        return [[_told(key), _told(item)] for key, item in value.items()]
    if isinstance(value, tuple | list):
        return [_told(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [type(value).__name__, *_fields(value)]
    raise TypeError


def _fields(value: Any) -> list[Any]:
    """The fields that do not stand at their default, with their names."""
    told = []
    for one in dataclasses.fields(value):
        held = _told(getattr(value, one.name))
        if one.default is not dataclasses.MISSING and held == _told(one.default):
            continue
        if one.default_factory is not dataclasses.MISSING and held == _told(one.default_factory()):
            continue
        told.append([one.name, held])
    return told


def _hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]
