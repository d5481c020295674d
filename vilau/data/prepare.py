"""Any data a user has, into shards."""

from __future__ import annotations

from pathlib import Path

from vilau.data.shards import ShardSet


def pairs_set(path: str) -> ShardSet:
    """Open shards."""
    return ShardSet(Path(path))
