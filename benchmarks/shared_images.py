"""Questions about a picture: turns of one conversation, documents of their own, and these on one shared reading.

    OMP_NUM_THREADS=1 python benchmarks/shared_images.py --output benchmarks/results/shared_images.md
    OMP_NUM_THREADS=1 python benchmarks/shared_images.py --turns 6 --frames 8 --batch-size 4     # about clips

A training step of scale tiny's language model with the same questions about the same pictures, in the three ways in
turns, so that a busy machine slows all of them; what counts is the ratio within a round, in CPU seconds of one thread.
The last two compute the same losses and gradients (tests/models/test_sharing.py).
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from language_step import batches, machine, ratio, tiny_model

from vilau.models.vila_u.model import VilaU
from vilau.types import Document, MultimodalBatch

CONVERSATION, ALONE, SHARED = (
    "turns of one conversation",
    "documents of their own",
    "+ shared images",
)
WAYS = (CONVERSATION, ALONE, SHARED)


def alone(batch: MultimodalBatch) -> MultimodalBatch:
    """Each question and its answer with the picture or clip before them; what draws stays."""
    documents = []
    for document in batch.documents:
        shown, *turns = document.segments
        if len(turns) < 2:
            documents.append(document)
            continue
        pairs = zip(turns[::2], turns[1::2], strict=True)
        documents += [Document((shown, question, answer)) for question, answer in pairs]
    return MultimodalBatch(batch.images, documents)


def seconds(model: VilaU, some: list[MultimodalBatch], way: str) -> float:
    """CPU seconds a step takes: layout, losses and gradients."""
    begun = time.process_time()
    for batch in some:
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            loss = model.losses(batch, length_groups=2, share_images=way == SHARED).total()
        loss.backward()
        model.zero_grad()
    return (time.process_time() - begun) / len(some)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--turns", type=int, default=8, help="questions an image")
    parser.add_argument("--frames", type=int, default=0, help="frames of a clip; 0: pictures")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--output", type=Path, help="markdown file to write")
    settings = parser.parse_args()
    torch.set_num_threads(1)
    model = tiny_model()
    talks = batches(4, settings.batch_size, settings.turns, settings.frames)
    given = {CONVERSATION: talks} | {way: [alone(one) for one in talks] for way in (ALONE, SHARED)}
    for way in WAYS:
        seconds(model, given[way], way)  # warm up
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(settings.rounds):
        for way in WAYS[number % 3 :] + WAYS[: number % 3]:
            found[way].append(seconds(model, given[way], way))
    lines = [
        "# Questions about one picture, in three ways", "",
        f"Date: {time.strftime('%Y-%m-%d')}. Machine: {machine()}. Batches of {settings.batch_size} "
        f"{f'clips of {settings.frames} frames' if settings.frames else 'pictures'} with {settings.turns} questions "
        f"each{'' if settings.frames else ' (three in ten are drawn instead)'}, autocast to bfloat16, 1 thread, "
        f"{settings.rounds} rounds of 4 steps; CPU seconds; ratios within each round (median, quartiles).", "",
        "| way | lowest ms | median ms | conversation against it | documents of their own against it |",
        "|---|---|---|---|---|",
    ]  # fmt: skip
    for way in WAYS:
        lines.append(
            f"| {way} | {min(found[way]) * 1e3:.0f} | {statistics.median(found[way]) * 1e3:.0f} "
            f"| {ratio(found, CONVERSATION, way)} | {ratio(found, ALONE, way)} |"
        )
    text = "\n".join(lines) + "\n"
    print(text)
    if settings.output:
        settings.output.write_text(text)


if __name__ == "__main__":
    main()
