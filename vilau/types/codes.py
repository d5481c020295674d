"""Stored codes: what a set tells of them, so that a model can see whether they are its own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CodedSet:
    """A set whose records hold codes in the place of images."""

    name: str
    """Where it lies."""
    tower: str
    """``VisualTokenizer.identity`` of the tower that encoded it."""
    encoded_by: str
    """That tower's folder, as whoever encoded the set named it."""
