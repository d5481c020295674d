"""What exactly a number measured: hashes of weights and data sets, and the comparison of passports.

A passport (`vilau.types.Passport`) travels with every metric. Two numbers may stand in one column
of a table only if their passports are alike.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from vilau.errors import CheckpointError
from vilau.types import Passport

HASH_DIGITS = 12


def weights_hash(weights: str | Path | Mapping[str, Tensor]) -> str:
    """Return the first 12 hex digits of a SHA-256 over a model folder, a weights file, or a state
    dictionary.

    A folder is hashed through its ``config.json`` and its ``*.safetensors``; a state dictionary
    through names, types, shapes and values in the order of the names.

    Raises:
        CheckpointError: the folder or file is missing, or the folder holds no weights.
    """
    digest = hashlib.sha256()
    if isinstance(weights, Mapping):
        for name in sorted(weights):
            value = weights[name].detach().cpu().contiguous()
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:HASH_DIGITS]
    path = Path(weights)
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    if not files:
        raise CheckpointError(
            f"{path} holds no weights (*.safetensors); name a folder that a model was saved in."
        )
    if path.is_dir() and (path / "config.json").is_file():
        files.insert(0, path / "config.json")
    for file in files:
        with file.open("rb") as stream:
            digest.update(f"{file.name}\n".encode())
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:HASH_DIGITS]


def text_hash(texts: Iterable[str]) -> str:
    """Return 12 hex digits over some texts in their order (prompts, templates, questions)."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:HASH_DIGITS]


class SetFingerprint(Metric):
    """A hash of a set of items that depends neither on their order nor on how ranks share them.

    The hashes of the items are added modulo 2**64.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, images: Tensor | None = None, texts: Iterable[str] | None = None) -> None:
        """Add uint8 images ``(B, 3, H, W)``, texts, or pairs of both (as many texts as images)."""
        pixels = None if images is None else images.detach().cpu().contiguous().numpy()
        words = None if texts is None else list(texts)
        number = len(pixels) if pixels is not None else len(words or [])
        for index in range(number):
            digest = hashlib.blake2b(digest_size=8)
            if pixels is not None:
                digest.update(str(pixels[index].shape).encode() + pixels[index].tobytes())
            if words is not None:
                digest.update(words[index].encode())
            item = np.frombuffer(digest.digest(), dtype="<i8")[0]
            self.total += torch.tensor(int(item), device=self.total.device)
            self.count += 1

    def compute(self) -> tuple[str, int]:
        """Return 12 hex digits for everything seen, and the number of items."""
        count = int(self.count)
        seen = f"{count} {int(self.total)}"
        return hashlib.sha256(seen.encode()).hexdigest()[:HASH_DIGITS], count


def back_end(name: str, package: str = "torchmetrics") -> str:
    """Return ``name (package version)``, the way a passport names its metric."""
    return f"{name} ({package} {version(package)})"


def unlike_fields(first: Passport, second: Passport) -> list[str]:
    """Return the names of the passport fields in which two numbers differ; empty: they may share a
    column."""
    return [
        field.name
        for field in fields(Passport)
        if getattr(first, field.name) != getattr(second, field.name)
    ]


def passport_from_dict(values: Mapping[str, Any]) -> Passport:
    """Read a passport out of ``metrics.json``; unknown keys of later versions are ignored."""
    known = {field.name for field in fields(Passport)}
    return Passport(**{name: value for name, value in values.items() if name in known})
