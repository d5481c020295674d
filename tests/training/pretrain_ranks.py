"""One optimiser step over several parts and ranks, and what each of two processes does in ``test_pretrain_ranks``."""

from __future__ import annotations

import dataclasses
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import Tensor

from tests.models.forms import forms_batch
from tests.training import toys
from vilau.training.language import LanguageTraining
from vilau.types import Document, ImageSegment, MultimodalBatch, VideoSegment

PARTS = [
    forms_batch("image to text", "chat"),
    forms_batch("text to image", "text only", "read and draw"),
    forms_batch("text only"),
    forms_batch("text to video", "interleaved", "few-shot", "say and draw"),
]
"""Of two ranks with two parts each: unlike in documents, tokens and codes; one has nothing to draw, one only words."""
WEIGHTS = {"text_weight": 0.5, "visual_weight": 2.0, "caption_dropout": 0.0}


FAMILIES: dict[str, Any] = {"liquid": toys.liquid, "vargpt": toys.vargpt}
"""What is not VILA-U."""


def whole_step() -> MultimodalBatch:
    """All parts in one batch."""
    documents = [
        _moved(document, 10 * number)
        for number, part in enumerate(PARTS)
        for document in part.documents
    ]
    return MultimodalBatch(torch.cat([part.images for part in PARTS]), documents)


def _moved(document: Document, by: int) -> Document:
    segments = []
    for segment in document.segments:
        if isinstance(segment, ImageSegment):
            segment = dataclasses.replace(segment, index=segment.index + by)
        elif isinstance(segment, VideoSegment):
            indices = tuple(index + by for index in segment.indices)
            segment = dataclasses.replace(segment, indices=indices)
        segments.append(segment)
    return dataclasses.replace(document, segments=tuple(segments))


class Gradients(Callback):
    """Keeps the gradients that the first step is made with, before clipping."""

    def __init__(self) -> None:
        self.found: dict[str, Tensor] = {}

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        for name, parameter in module.named_parameters():
            if parameter.grad is not None and not self.found.get(name, torch.zeros(0)).numel():
                grad = parameter.grad
                grad = grad.full_tensor() if hasattr(grad, "full_tensor") else grad
                self.found[name] = grad.detach().clone()


def gradients(
    module: LanguageTraining, batches: list[MultimodalBatch], **settings: Any
) -> tuple[dict[str, Tensor], float]:
    """Gradients of one step over ``batches``, and the sum of the losses that its parts returned."""
    kept, recorder = Gradients(), toys.Recorder()
    data = toys.ToyData([dataclasses.replace(batch, step=[]) for batch in batches])
    toys.trainer(
        1, callbacks=[kept, recorder], accumulate_grad_batches=len(batches),
        gradient_clip_val=0.1, **settings,
    ).fit(module, data)  # fmt: skip
    return kept.found, sum(recorder.losses)


def work(rank: int, folder: Path, port: int) -> None:
    """Make one step with both strategies and write down its gradients."""
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", RANK=str(rank),
        NODE_RANK="0", LOCAL_RANK=str(rank),
    )  # fmt: skip
    torch.set_num_threads(1)
    runs = {
        "ddp": (DDPStrategy(process_group_backend="gloo"), {}),
        "packed": (DDPStrategy(process_group_backend="gloo"), {"packing": True}),
        "published": (DDPStrategy(process_group_backend="gloo"), {"loss_average": "published"}),
        "sharded": (ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1), {}),
        "liquid": (DDPStrategy(process_group_backend="gloo"), {}),
        "vargpt": (DDPStrategy(process_group_backend="gloo"), {}),
        "vargpt sharded": (
            ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1),
            {},
        ),
        # More groups than a part of words alone has rows.
        "grouped sharded": (
            ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1),
            {"length_groups": 5},
        ),
    }
    # Built before the processes know one another: of several, only rank 0 writes folders.
    modules = {
        name: FAMILIES.get(name.split()[0], toys.pretraining)(
            folder / f"{name}{rank}", **WEIGHTS, **settings
        )
        for name, (_, settings) in runs.items()
    }
    found = {}
    for name, (strategy, _) in runs.items():
        found[name] = gradients(
            modules[name], PARTS[rank::2], devices=2, strategy=strategy,
            use_distributed_sampler=False,
        )  # fmt: skip
    found["validation"] = validation(modules["ddp"], PARTS[2 - rank])
    found["trained"] = modules["ddp"].model.state_dict()
    torch.save(found, folder / f"rank{rank}.pt")
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # an ordinary exit of gloo processes aborts now and then, after all work is done


def validation(module: LanguageTraining, batch: MultimodalBatch) -> dict[str, float]:
    """What two ranks measure over a batch each."""
    strategy = DDPStrategy(process_group_backend="gloo", timeout=timedelta(minutes=5))
    trainer = toys.trainer(1, devices=2, strategy=strategy, use_distributed_sampler=False)
    trainer.validate(module, toys.ToyData([], [batch]), verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def alone(
    folder: Path, batches: list[MultimodalBatch], *, family: Any = toys.pretraining, **settings: Any
) -> Any:
    """The step of one process."""
    folder.mkdir(exist_ok=True)
    return gradients(family(folder, **WEIGHTS, **settings), batches)
