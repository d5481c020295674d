"""One pretraining step of the tiny model from pixels and from stored codes, side by side.

    OMP_NUM_THREADS=1 python benchmarks/tokenized_step.py --rounds 12 --output benchmarks/results/tokenized_step.md

Both read the drawn world, whose codes are written first, with the same seed: the documents are the same. A step is
what ``MultimodalPretraining`` does at scale tiny, without Lightning and logging: building the batch, codes (from the
frozen tower, or looked up), language model, depth head, losses, backward, clipping and AdamW, under autocast to
bfloat16. The two take turns in one process, so that a busy machine slows both; what counts is the ratio within a
round, in CPU seconds of one thread.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from language_step import machine, ratio, tiny_model
from torch import Tensor

from vilau.data.codes import Coding
from vilau.data.mixture import MultimodalMixture
from vilau.data.preparing.tokenize import tokenize
from vilau.data.shards import ShardSet
from vilau.data.world_data import WorldSpec, world_set
from vilau.layers.pixels import to_float
from vilau.models.vila_u.model import VilaU
from vilau.study.memory import keep_freed_memory
from vilau.training.optimizers import OptimizerConfig, build_optimizer
from vilau.types import MultimodalBatch

IMAGE_SIZE = 64
PIXELS, CODES = "from pixels", "from codes"
BATCH, TOKENIZER, STEP = "batch", "codes of the batch", "whole step"
WORLD = WorldSpec(num_train=2000, one_object_share=0.9)


def encoder(model: VilaU) -> Callable[[np.ndarray], np.ndarray]:
    def encode(pixels: np.ndarray) -> np.ndarray:
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
        with torch.inference_mode():
            return model.tokenizer.encode(to_float(images)).numpy()

    return encode


def write_codes(source: ShardSet, folder: Path, model: VilaU) -> float:
    """Encode the set once; returns the CPU seconds that an image takes."""
    spec = model.tokenizer.spec
    coding = Coding(
        model.tokenizer.identity(), "benchmark", "float32", spec.num_positions, spec.depth,
        spec.codebook_size, IMAGE_SIZE,
    )  # fmt: skip
    begun = time.process_time()
    tokenize(source, folder, coding, encoder(model), batch_size=32)
    return (time.process_time() - begun) / len(source)


def batches(path: str, size: int) -> Iterator[MultimodalBatch]:
    """Scale tiny's documents, without end."""
    data = MultimodalMixture(
        path,
        IMAGE_SIZE,
        size,
        WORLD,
        image_to_text_share=0.3,
        text_to_image_share=0.7,
        validation="world",
    )
    data.setup("fit")
    loader = data.train_dataloader()
    while True:
        yield from loader


@dataclass
class Seconds:
    """CPU seconds per step: building the batch, its codes alone, everything."""

    batch: float
    tokenizer: float
    step: float


class Stepper:
    """One of the two: a model, its optimiser and its data."""

    def __init__(self, path: str, batch_size: int) -> None:
        self.model = tiny_model()
        self.batches = batches(path, batch_size)
        named = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        self.trained = [p for _, p in named]
        self.optimizer = build_optimizer(named, OptimizerConfig(), num_steps=10**6)["optimizer"]

    def run(self, steps: int) -> Seconds:
        building = looking = whole = 0.0
        for _ in range(steps):
            begun = time.process_time()
            batch = next(self.batches)
            building += time.process_time() - begun
            self.backward(batch)
            torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            whole += time.process_time() - begun
            begun = time.process_time()
            self.vectors(batch)
            looking += time.process_time() - begun
        return Seconds(building / steps, looking / steps, whole / steps)

    def backward(self, batch: MultimodalBatch, *, mixed: bool = True) -> Tensor:
        # As Lightning's bf16-mixed does, without autocast's cache of weights.
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed, cache_enabled=False):
            loss = self.model.losses(batch).total()
        loss.backward()
        return loss.detach()

    @torch.no_grad()
    def vectors(self, batch: MultimodalBatch) -> Tensor:
        """What a step does to its images before anything is learnt."""
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            if batch.codes is not None:
                return self.model.tokenizer.embed(batch.codes)
            return self.model.tokenizer.quantize(to_float(batch.images)).features


def check(steppers: dict[str, Stepper]) -> str:
    """Loss and gradients of one batch in float32, from pixels and from codes; documents must be the same.

    Also, how many of the stored codes, which float32 found, autocast to bfloat16 would find otherwise.
    """
    given = {name: next(stepper.batches) for name, stepper in steppers.items()}
    if given[PIXELS].documents != given[CODES].documents:
        raise SystemExit("the two do not read the same documents.")
    found = []
    for name, stepper in steppers.items():
        loss = stepper.backward(given[name], mixed=False)
        found.append(
            torch.cat(
                [loss[None], *(p.grad.flatten() for p in stepper.trained if p.grad is not None)]
            )
        )
        stepper.optimizer.zero_grad()
    off = (found[1] - found[0]).norm() / found[0].norm()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        mixed = steppers[PIXELS].model.tokenizer.encode(to_float(given[PIXELS].images))
    differ = float((mixed != given[CODES].codes).float().mean())
    losses = " and ".join(f"{float(one[0]):.6f}" for one in found)
    return (
        f"loss {losses}, gradients off by {float(off):.1e}. Autocast finds {differ:.1%} other codes in these pixels "
        "than are stored"
    )


def measure(
    settings: argparse.Namespace, folder: Path
) -> tuple[dict[str, list[Seconds]], str, str]:
    source = world_set(WORLD, "train", image_size=IMAGE_SIZE)
    once = write_codes(source, folder / "codes", tiny_model())
    paths = {PIXELS: "world", CODES: str(folder / "codes")}
    steppers = {name: Stepper(path, settings.batch_size) for name, path in paths.items()}
    same = check(steppers)
    for stepper in steppers.values():
        stepper.run(settings.steps)  # warm up
    found: dict[str, list[Seconds]] = {name: [] for name in steppers}
    for number in range(settings.rounds):
        for name in [PIXELS, CODES][:: 1 if number % 2 else -1]:
            found[name].append(steppers[name].run(settings.steps))
    sizes = [sum(c.bytes for c in s.manifest.chunks) for s in (source, ShardSet(folder / "codes"))]
    size = f"{sizes[0] / len(source):.0f} bytes a sample as pixels (PNG), {sizes[1] / len(source):.0f} as codes"
    return (
        found,
        same,
        f"Encoding once took {once * 1e3:.2f} ms an image; {size}, texts and scenes included.",
    )


def report(
    found: dict[str, list[Seconds]], same: str, once: str, settings: argparse.Namespace
) -> str:
    lines = [
        "# A pretraining step of the tiny model, from pixels and from stored codes", "",
        f"Date: {time.strftime('%Y-%m-%d')}. Machine: {machine()}. Batches of {settings.batch_size} documents of the "
        f"drawn world at {IMAGE_SIZE} pixels, autocast to bfloat16, 1 thread, {settings.rounds} rounds of "
        f"{settings.steps} steps in turns; CPU milliseconds, median round; ratios are taken within each round "
        "(median, quartiles).", "",
        f"| part of a step | {PIXELS} | {CODES} | ratio |",
        "|---|---|---|---|",
    ]  # fmt: skip
    for title, part in ((BATCH, "batch"), (TOKENIZER, "tokenizer"), (STEP, "step")):
        seconds = {name: [getattr(one, part) for one in rounds] for name, rounds in found.items()}
        medians = [f"{statistics.median(values) * 1e3:.2f}" for values in seconds.values()]
        lines.append(f"| {title} | {' | '.join(medians)} | {ratio(seconds, PIXELS, CODES)} |")
    lines += ["", f"{once} In float32 on the same batch: {same}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4, help="steps of a turn")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--output", type=Path, help="markdown file to write")
    settings = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        text = report(*measure(settings, Path(folder)), settings)
    print(text)
    if settings.output:
        settings.output.write_text(text)


if __name__ == "__main__":
    main()
