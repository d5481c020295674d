"""A digest over settings and values of tensors, whatever file, dtype or device they are in."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

HASH_DIGITS = 12


def tensors_hash(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return the first 12 hex digits of a SHA-256 over ``settings`` (plain values) and the tensors' float32 values.

    The order of either says nothing; names and shapes count. Where tensors are sharded over processes all must call it.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        values = whole.to(device="cpu", dtype=torch.float32).contiguous()
        digest.update(f"\n{name} {tuple(values.shape)}\n".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()[:HASH_DIGITS]
