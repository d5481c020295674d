"""What each of two processes does in ``test_codebook_ranks``; importable, so that it can be spawned."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor

from vilau.layers.quantize import ResidualQuantizer

D, K, Z, STEPS, PARTS = 3, 24, 6, 3, 3
CASES: dict[str, dict[str, object]] = {
    "published": {},
    "no restarts": {"restart_unused_codes": False},
    "once per step": {"update": "per_step"},
    "a codebook per depth": {"shared_codebook": False},
    "by gradient": {"learning": "gradient", "entropy": True},
    "from data": {"initialisation": "data"},
    "each from data": {"initialisation": "data", "shared_codebook": False},
}
ACCUMULATED: dict[str, dict[str, object]] = {
    "once per step": {"update": "per_step"},
    "a codebook per depth": {"shared_codebook": False},
    "by gradient": {"learning": "gradient"},
}
"""Cases that learn from several parts of a step."""
SPLITS = {"even": (20, 20), "uneven": (31, 9), "fewer than codes": (4, 7), "one without": (0, 40)}


def batches(split: str) -> list[list[Tensor]]:
    """``[step][rank]``: ``(N, 1, Z)``."""
    generator = torch.Generator().manual_seed(1)
    counts = SPLITS[split]
    return [[torch.randn(n, 1, Z, generator=generator) + 1 for n in counts] for _ in range(STEPS)]


def train(case: str, inputs: list[Tensor], *, seed: int, world: int = 1) -> dict[str, Tensor]:
    """State, codes and gradients after a few steps; plain gradient descent, averaged as DDP does."""
    torch.manual_seed(0)
    layer = ResidualQuantizer(depth=D, codebook_size=K, width=Z, decay=0.9, **CASES[case]).train()  # type: ignore[arg-type]
    found = {}
    for step, x in enumerate(inputs):
        torch.manual_seed(100 * seed + step)
        seen = layer(x)
        found[f"codes {step}"] = seen.codes
        if seen.codebook_loss is not None and seen.entropy_loss is not None:
            (pull,) = torch.autograd.grad(
                seen.codebook_loss + seen.entropy_loss, layer.codebook.weight
            )
            if world > 1:
                dist.all_reduce(pull)
            with torch.no_grad():
                layer.codebook.weight -= 0.1 * pull / world
            found[f"pull {step}"] = pull / world
    return found | layer.state_dict()


def cut(split: str, parts: int) -> list[list[list[Tensor]]]:
    """``batches`` in ``[step][part][rank]``: a part of the whole batch is one of each rank's."""
    return [
        list(zip(*(x.tensor_split(parts) for x in step), strict=True)) for step in batches(split)
    ]


def accumulate(case: str, inputs: Sequence[Sequence[Tensor]], *, seed: int) -> dict[str, Tensor]:
    """State and codes after a few steps of accumulated parts: ``inputs[step][part]``."""
    torch.manual_seed(0)
    layer = ResidualQuantizer(depth=D, codebook_size=K, width=Z, decay=0.5, **ACCUMULATED[case])  # type: ignore[arg-type]
    found = {}
    for step, parts in enumerate(inputs):
        torch.manual_seed(100 * seed + step)
        for number, x in enumerate(parts):
            with layer.part(more_follow=number < len(parts) - 1):
                found[f"codes {step} {number}"] = layer(x).codes
    return found | layer.state_dict()


def messages(case: str) -> int:
    """How many sums over ranks one training pass takes."""
    layer = ResidualQuantizer(depth=D, codebook_size=K, width=Z, **CASES[case]).train()  # type: ignore[arg-type]
    with mock.patch.object(dist, "all_reduce", wraps=dist.all_reduce) as counted:
        layer(torch.randn(8, 1, Z))
    return counted.call_count


def work(rank: int, folder: Path, port: int) -> None:
    """Go through all cases as one of two ranks and write down what came out."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    found = {}
    for case in CASES:
        for split in SPLITS:
            inputs = [step[rank] for step in batches(split)]
            # Rank 1's own random numbers are others: nothing may depend on them.
            found[f"{case}, {split}"] = train(case, inputs, seed=rank, world=2)
    for case in ACCUMULATED:
        for split in SPLITS:
            own = [[part[rank] for part in step] for step in cut(split, PARTS)]
            found[f"{case}, {split}, in parts"] = accumulate(case, own, seed=rank)
    counts = ("published", "once per step", "a codebook per depth")
    found["messages"] = {case: torch.tensor(messages(case)) for case in counts}
    torch.save(found, folder / f"rank{rank}.pt")
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # an ordinary exit of gloo processes aborts now and then, after all work is done
