"""Codes in the place of images: what a set says of them, and how they lie in a record.

A record of such a set has the codes of its image where others have the encoded image: ``(P, D)`` little-endian
unsigned numbers, row by row.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vilau.errors import DataError

CODES = "codes"
"""Key of the manifest's ``spec`` that holds a ``Coding``."""


@dataclass(frozen=True)
class Coding:
    """What the codes of a set are of."""

    tower: str
    """Identity of the tower that encoded: 12 hex digits over all that decides its codes."""
    encoded_by: str
    """That tower's folder, as it was named."""
    dtype: str
    """Number format of the weights that encoded, such as ``float32``."""
    positions: int
    """P."""
    depth: int
    """D."""
    codebook_size: int
    """K."""
    image_size: int
    """Side in pixels of the squares that were cut out of the middle and encoded."""

    @staticmethod
    def of(spec: dict[str, Any], folder: Path) -> Coding | None:
        """Read the description in a manifest's ``spec``; None where the set holds images.

        Raises:
            DataError: the description is damaged.
        """
        if CODES not in spec:
            return None
        try:
            return Coding(**spec[CODES])
        except TypeError as error:
            raise DataError(
                f"the manifest of {folder} is damaged: it does not say what its codes are of ({error}); "
                f"delete {folder} and write it again."
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """Return what ``of`` reads, to stand under ``CODES``."""
        return asdict(self)

    @property
    def number(self) -> np.dtype[Any]:
        """How a code is stored: uint16, or uint32 where the codebook is larger."""
        return np.dtype("<u2" if self.codebook_size <= 1 << 16 else "<u4")

    @property
    def shape(self) -> str:
        """The shape of an image's codes, for people."""
        return f"{self.positions} positions x {self.depth} depths"

    @property
    def title(self) -> str:
        """What the codes are of, for people."""
        return (
            f"{self.shape} of {self.codebook_size} codes ({self.number.name}) of the middle {self.image_size} x "
            f"{self.image_size} pixels; tower {self.tower} ({self.encoded_by}) in {self.dtype}"
        )

    def pack(self, codes: np.ndarray) -> bytes:
        """Return codes ``(P, D)`` of any integer type as they are stored.

        Raises:
            DataError: they have another shape, or are no codes of this codebook.
        """
        self._check(codes, "the tower gave")
        return codes.astype(self.number).tobytes()

    def unpack(self, data: bytes, folder: Path) -> np.ndarray:
        """Return stored codes as int64 ``(P, D)``; raises ``DataError`` naming the set."""
        if len(data) != self.positions * self.depth * self.number.itemsize:
            raise DataError(
                f"{folder} is damaged: an image's codes take {len(data)} bytes where {self.shape} are "
                f"{self.positions * self.depth * self.number.itemsize}; delete {folder} and write it again."
            )
        codes = np.frombuffer(data, self.number).astype(np.int64)
        codes = codes.reshape(self.positions, self.depth)
        self._check(codes, f"{folder} is damaged: it holds")
        return codes

    def _check(self, codes: np.ndarray, what: str) -> None:
        if codes.shape != (self.positions, self.depth):
            raise DataError(f"{what} codes of the shape {codes.shape} instead of {self.shape}.")
        if codes.min() < 0 or codes.max() >= self.codebook_size:
            raise DataError(
                f"{what} codes from {codes.min()} to {codes.max()}, outside 0..{self.codebook_size - 1}; encode "
                "the set again with `vilau data tokenize`."
            )
