"""What each of two processes does in ``test_start_ranks``; importable, so that it can be spawned."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tests.models import tiny
from tests.training import toys
from tests.training.tower_ranks import known, part
from vilau.layers.code_entropy import code_entropy
from vilau.layers.pixels import to_float
from vilau.models.vila_u.start import fold_statistics
from vilau.training.alignment import AlignmentConfig
from vilau.training.tower import TowerTraining
from vilau.types import ImageTextBatch

STEPS = 2
CLIPS: dict[str, dict[str, Any]] = {
    "sigmoid": {},
    "softmax": {"loss": "softmax"},
    "parts": {"negatives": "micro_batch"},
}
TOWERS: dict[str, dict[str, Any]] = {
    "averages": {"quantizer": tiny.quantizer(initialisation="data", update="per_step", decay=0.5)},
    "published rule": {"quantizer": tiny.quantizer(decay=0.5)},
    "by gradient": {
        "quantizer": tiny.quantizer(
            learning="gradient", initialisation="data", entropy=True, decay=0.5
        ),
        "entropy_weight": 0.5,
    },
}
IN_PARTS = {"quantizer": tiny.quantizer(update="per_step", decay=0.5), "contrastive_weight": 0.0}
FOLDED = {"even": (3, 3), "uneven": (5, 1), "one without": (0, 6)}
ENTROPY_ROWS = 20


def accumulated(kind: str) -> int:
    return 2 if kind in ("parts", "in parts") else 1


def joined(batches: list[ImageTextBatch]) -> list[ImageTextBatch]:
    """Each two batches as one."""
    pairs = zip(batches[::2], batches[1::2], strict=True)
    return [ImageTextBatch(torch.cat([a.images, b.images]), [*a.texts, *b.texts]) for a, b in pairs]


def module_and_batches(kind: str, folder: Path) -> tuple[Any, list[ImageTextBatch]]:
    """The module of ``kind`` and the whole batches."""
    if kind in CLIPS:
        module: Any = toys.clip(folder, alignment=AlignmentConfig(**CLIPS[kind]))
    else:
        source = tiny.siglip_folder(folder / "siglip")
        torch.manual_seed(0)
        module = TowerTraining(
            source, decoder=tiny.decoder(), perceptual_weight=0.0, freeze_text=False,
            optimizer=tiny.optimizer(), **{**TOWERS, "in parts": IN_PARTS}[kind],
        )  # fmt: skip
    count = STEPS * accumulated(kind)
    return module, [known(tiny.pairs(8, seed=seed)) for seed in range(count)]


def folded(rows: slice, empty: bool) -> dict[str, Tensor]:
    """Weights of two layers after the statistics of some images were folded in."""
    tower = tiny.tower()
    torch.manual_seed(1)
    layers = [nn.Linear(32, 4), nn.Linear(32, 5)]
    images = tiny.images(6)[:0] if empty else tiny.images(6)[rows]
    with torch.no_grad():
        codes = tower.encode(to_float(images)) if len(images) else torch.zeros(0, 16, 3).long()
    fold_statistics(tower.embed(codes), layers)
    states = enumerate(layer.state_dict() for layer in layers)
    return {f"{i} {name}": value for i, state in states for name, value in state.items()}


def entropy(rows: slice) -> dict[str, Tensor]:
    """Loss and gradients of the entropy term of some vectors."""
    generator = torch.Generator().manual_seed(2)
    vectors = torch.randn(ENTROPY_ROWS, 6, generator=generator)[rows].requires_grad_()
    book = torch.randn(9, 6, generator=generator, requires_grad=True)
    loss = code_entropy(vectors, book)
    to_vectors, to_book = torch.autograd.grad(loss, [vectors, book])
    return {"loss": loss.detach(), "vectors": to_vectors, "book": to_book}


def work(rank: int, folder: Path, port: int) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", RANK=str(rank),
        NODE_RANK="0", LOCAL_RANK=str(rank),
    )  # fmt: skip
    torch.set_num_threads(1)
    kinds = (*CLIPS, *TOWERS, "in parts")
    # Built before the processes know one another: of several, only rank 0 writes folders.
    built = {kind: module_and_batches(kind, folder / f"{kind}{rank}") for kind in kinds}
    found: dict[str, Any] = {}
    for kind, (module, batches) in built.items():
        own = [part(batch, slice(4 * rank, 4 * rank + 4)) for batch in batches]
        recorder = toys.fit(
            module, toys.ToyData(own), STEPS, devices=2, strategy="ddp", use_distributed_sampler=False,
            accumulate_grad_batches=accumulated(kind),
        )  # fmt: skip
        found[kind] = {"logged": recorder.logged, "state": module.state_dict()}
    for name, counts in FOLDED.items():
        rows = slice(sum(counts[:rank]), sum(counts[: rank + 1]))
        found[f"folded, {name}"] = folded(rows, empty=not counts[rank])
    half = ENTROPY_ROWS // 2
    found["entropy"] = entropy(slice(half * rank, half * rank + half))
    torch.save(found, folder / f"rank{rank}.pt")
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # an ordinary exit of gloo processes aborts now and then, after all work is done
