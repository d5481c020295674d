"""What each of two processes does in ``test_tower_ranks``; importable, so that it can be spawned."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from tests.models import tiny
from tests.training import toys
from vilau.layers.adversarial import LeCam, adaptive_weight
from vilau.layers.contrastive import (
    diagonal,
    sigmoid_contrastive_loss,
    sigmoid_loss_over_ranks,
    softmax_contrastive_loss,
    softmax_loss_over_ranks,
)
from vilau.layers.ranks import GlobalRows
from vilau.training.alignment import AlignmentConfig, matches_over_ranks
from vilau.training.tower import TowerTraining
from vilau.types import ImageTextBatch

SPLITS = {"even": (4, 4), "uneven": (6, 2)}
STEPS = 2
KINDS = ("sigmoid", "softmax")
CLIP_GRADIENTS = 0.5


class Truth:
    """A caption of circles is true of every image whose first pixel is dark."""

    def __init__(self, images: Tensor) -> None:
        self.dark = images[:, 0, 0, 0] < 128

    def __call__(self, texts: Sequence[str]) -> Tensor:
        return self.dark[:, None] & torch.tensor(["circle" in text for text in texts])


def known(batch: ImageTextBatch) -> ImageTextBatch:
    """The batch with what is true of its images."""
    batch.truth = Truth(batch.images)
    batch.matches = torch.eye(len(batch.texts), dtype=torch.bool) | batch.truth(batch.texts)
    return batch


def part(batch: ImageTextBatch, rows: slice) -> ImageTextBatch:
    return known(ImageTextBatch(batch.images[rows].clone(), batch.texts[rows]))


def features() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(8, 6, generator=generator) for _ in range(2)]


def aligned(kind: str, counts: Sequence[int] | None, rank: int = 0) -> dict[str, Tensor]:
    """Loss and gradients of linear encoders, of one process (counts None) or of one of two."""
    torch.manual_seed(0)
    weights = [torch.randn(6, 5, requires_grad=True) for _ in range(2)]
    scale, bias = (torch.tensor(v, requires_grad=True) for v in (1.3, -2.0))
    rows = slice(None) if counts is None else slice(sum(counts[:rank]), sum(counts[: rank + 1]))
    images, texts = (
        F.normalize(x[rows] @ w, dim=-1) for x, w in zip(features(), weights, strict=True)
    )
    loss: Any = {
        "sigmoid": sigmoid_contrastive_loss, "softmax": softmax_contrastive_loss,
    }[kind] if counts is None else {
        "sigmoid": sigmoid_loss_over_ranks, "softmax": softmax_loss_over_ranks,
    }[kind]  # fmt: skip
    settings: dict[str, Any] = {"logit_scale": scale}
    trained = [*weights, scale]
    if kind == "sigmoid":
        settings["logit_bias"] = bias
        trained.append(bias)
    if counts is not None:
        settings["matches"] = lambda where: diagonal(len(images), where, images.device)
    value = loss(images, texts, **settings)
    return {"loss": value.detach(), **{
        f"gradient {i}": slope for i, slope in enumerate(torch.autograd.grad(value, trained))
    }}  # fmt: skip


def balance(rows: slice) -> dict[str, Tensor]:
    """Adaptive weight and LeCam averages of a part of a batch."""
    torch.manual_seed(0)
    last = torch.nn.Linear(6, 5)
    seen = last(features()[0][rows])
    lecam = LeCam()
    lecam(seen[:, :2], seen[:, 2:4])
    weight = adaptive_weight(seen.square().mean(), seen[:, 0].mean(), last.weight)
    return {"weight": weight, "averages": lecam.averages}


def module_and_batches(folder: Path, kind: str) -> tuple[TowerTraining, list[ImageTextBatch]]:
    settings: dict[str, Any] = {"freeze_text": False}
    if kind == "adversarial":
        settings = {"adversarial_weight": 0.75, "average": {"decay": 0.5}, "freeze_text": True}
        settings["discriminator"] = {"channels": 4, "start_step": 1}
    else:
        settings["alignment"] = AlignmentConfig(loss=kind)  # type: ignore[arg-type]
    module = toys.tower(folder, **settings)
    module.tower.quantizer.eval()  # what codebooks do over ranks is tested elsewhere
    return module, [known(tiny.pairs(8, seed=seed)) for seed in range(STEPS)]


def work(rank: int, folder: Path, port: int) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", RANK=str(rank),
        NODE_RANK="0", LOCAL_RANK=str(rank),
    )  # fmt: skip
    torch.set_num_threads(1)
    kinds = (*KINDS, "adversarial")
    built = {kind: module_and_batches(folder / f"{kind}{rank}", kind) for kind in kinds}
    found: dict[str, Any] = {}
    for kind, (module, batches) in built.items():
        own = [part(batch, slice(4 * rank, 4 * rank + 4)) for batch in batches]
        recorder = toys.fit(
            module, toys.ToyData(own), STEPS, devices=2, strategy="ddp",
            use_distributed_sampler=False, gradient_clip_val=CLIP_GRADIENTS,
        )  # fmt: skip
        found[kind] = {"logged": recorder.logged, "state": module.state_dict()}
    for name, counts in SPLITS.items():
        for kind in KINDS:
            found[f"{kind}, {name}"] = aligned(kind, counts, rank)
        rows = slice(sum(counts[:rank]), sum(counts[: rank + 1]))
        batch = part(tiny.pairs(8), rows)
        where = GlobalRows.of(counts[rank], batch.images.device)
        found[f"matches, {name}"] = matches_over_ranks(batch, where)
    found["balance"] = balance(slice(4 * rank, 4 * rank + 4))
    torch.save(found, folder / f"rank{rank}.pt")
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # an ordinary exit of gloo processes aborts now and then, after all work is done
