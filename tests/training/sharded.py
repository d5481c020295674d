"""What each of two processes does in ``test_sharding``; importable, so that it can be spawned."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import ModelParallelStrategy

from tests.models import tiny
from tests.training import toys
from vilau.layers.codebook import EmaCodebook
from vilau.training.alignment import AlignmentConfig
from vilau.types import Draws, EmbedsTexts, Reconstructs

STEPS = 3
BATCHES = 2 * STEPS


def module_and_batches(kind: str, folder: Path) -> tuple[Any, list[Any]]:
    """The module of ``kind`` and the batches of both ranks, alternating."""
    families = {"pretraining": toys.pretraining, "liquid": toys.liquid, "vargpt": toys.vargpt}
    if kind in families:
        module: Any = families[kind](folder, caption_dropout=0.0)
        return module, [tiny.multimodal(seed) for seed in range(BATCHES)]
    # Ranks are compared with accumulated parts, which do not know one another's texts.
    build = {"clip": toys.clip, "tower": toys.tower, "ablation": toys.ablation}[kind]
    module = build(folder, alignment=AlignmentConfig(negatives="rank"))
    if kind != "clip":
        module.tower.quantizer.eval()  # EMA sums over ranks, which no single process does in steps
    return module, [tiny.pairs(seed=seed) for seed in range(BATCHES)]


def asked(module: Any) -> list[torch.Tensor]:
    """What callbacks ask of a module between steps."""
    module.eval()
    found = []
    if isinstance(module, EmbedsTexts):
        found.append(module.text_features(["a red circle"]).detach())
        if hasattr(module, "image_features"):
            found.append(module.image_features(tiny.images(1)).detach())
    if isinstance(module, Reconstructs):
        found.append(module.reconstruct_by_part(tiny.images(1)).float() / 255)
    if isinstance(module, Draws):
        found.append(module.draw(["a red circle"], seed=0).float() / 255)
    return found


def codebook_and_vectors() -> tuple[EmaCodebook, torch.Tensor]:
    torch.manual_seed(0)
    book = EmaCodebook(num_codes=8, width=4, restart_unused_codes=False)
    book.cluster_size_ema.fill_(1.0)
    return book, torch.randn(20, 4)


def work(rank: int, folder: Path, port: int) -> None:
    """Train sharded over two gloo processes and write down what came out."""
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", RANK=str(rank),
        NODE_RANK="0", LOCAL_RANK=str(rank),
    )  # fmt: skip
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    # Built before the processes know one another: of several, only rank 0 writes folders.
    kinds = ("clip", "tower", "pretraining", "liquid", "vargpt", "ablation")
    built = {kind: module_and_batches(kind, folder / f"{kind}{rank}") for kind in kinds}
    for kind, (module, batches) in built.items():
        strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
        data = toys.ToyData(batches[rank::2], [batches[0]])
        recorder = toys.fit(
            module, data, STEPS, devices=2, strategy=strategy, use_distributed_sampler=False,
            gradient_clip_val=1.0,
        )  # fmt: skip
        module.export(str(folder / f"{kind}_model"))
        sharded = all(hasattr(p, "full_tensor") for p in module.parameters())
        found[kind] = {"losses": recorder.losses, "logged": recorder.logged, "sharded": sharded}
        found[kind]["asked"] = asked(module)
    book, vectors = codebook_and_vectors()
    half = vectors[rank::2]
    book.update(half, book.nearest(half))
    found["codebook"] = book.weight
    torch.save(found, folder / f"rank{rank}.pt")
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # an ordinary exit of gloo processes aborts now and then, after all work is done
