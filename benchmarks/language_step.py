"""One training step of the tiny language model, plain and ours, side by side.

    OMP_NUM_THREADS=1 python benchmarks/language_step.py --rounds 12 --output benchmarks/results/language_step.md
    OMP_NUM_THREADS=1 python benchmarks/language_step.py --turns 8      # fine-tuning's documents
    OMP_NUM_THREADS=1 python benchmarks/language_step.py --turns 6 --frames 8 --batch-size 4     # about clips

Every variant adds one change to the one before and lives in a process of its own (what the C library does with
freed memory is settled once a process). All start from the same weights and take turns, a few steps each, so that a
busy machine slows all of them; what counts is the ratio within a round, in CPU seconds of one thread. A step is what
``MultimodalPretraining`` computes at scale tiny, without Lightning, logging and data loading: frozen tower, layout,
language model, depth head, losses, backward, clipping and AdamW, under autocast to bfloat16.
"""

import argparse
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm

from vilau.layers import lean
from vilau.layers.lean_llama import LeanDecoderLayer
from vilau.models.sequence.config import PromptConfig
from vilau.models.sizes import LanguageConfig
from vilau.models.vila_u.config import DecoderConfig, HeadConfig, QuantizerConfig
from vilau.models.vila_u.model import VilaU
from vilau.models.vila_u.tower import VisionTower
from vilau.study.memory import keep_freed_memory
from vilau.training.optimizers import OptimizerConfig, build_optimizer
from vilau.types import Document, ImageSegment, MultimodalBatch, TextSegment, VideoSegment

PLAIN = "plain"
VARIANTS = (
    PLAIN,
    "+ freed memory is kept",
    "+ lean LLaMA blocks",
    "+ last block where losses read it",
    "+ attention in blocks",
)
WORDS = [
    "a",
    "large",
    "small",
    "red",
    "blue",
    "star",
    "circle",
    "ring",
    "above",
    "left of",
    "and",
    "on grass",
]
TALK = (TextSegment("what color is the ring ?"), TextSegment("red", target=True))


class WholeLayer(LeanDecoderLayer):
    """A lean block that computes every state, read or not."""

    def forward(self, *args: Any, wanted: Any = None, **kwargs: Any) -> Tensor:
        return super().forward(*args, **kwargs)


def tiny_model() -> VilaU:
    """The sizes of experiments/scales/tiny.yaml; a random decoder, which takes no part, and codes from features."""
    torch.manual_seed(0)
    tower = VisionTower.from_siglip(
        "world-siglip",
        quantizer=QuantizerConfig(depth=4, codebook_size=256),
        decoder=DecoderConfig(
            channels=8, multipliers=(1,), num_res_blocks=0, z_channels=8, norm_groups=8, output_patch=8
        ),
    )  # fmt: skip
    with torch.no_grad():
        features = tower.features(torch.rand(8, 3, 64, 64) * 2 - 1).flatten(0, 1)
        tower.quantizer.book(0).weight.copy_(features[torch.randperm(len(features))[:256]])
        tower.quantizer.book(0).weight[128:] *= 0.2
    language = LanguageConfig(
        hidden_size=128, num_layers=4, num_heads=4, mlp_size=256, attention="lean"
    )
    head = HeadConfig(width=96, num_layers=1, num_heads=3, dropout=0.0)
    return VilaU.start(tower, language, head, PromptConfig(system="")).train()


def batches(count: int, size: int, turns: int, frames: int) -> list[MultimodalBatch]:
    """Texts of 3 to 30 words: seven documents in ten draw, the others describe.

    With ``turns``, as in fine-tuning: three in ten draw, the others answer so many questions; with ``frames`` all
    answer, about clips.
    """
    generator = torch.Generator().manual_seed(0)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    made = []
    for _ in range(count):
        documents = []
        for index in range(size):
            text = " ".join(WORDS[number(0, len(WORDS))] for _ in range(number(3, 31)))
            if frames:
                clip = VideoSegment(tuple(range(index * frames, (index + 1) * frames)))
                segments = (clip, *TALK * turns)
            elif number(0, 10) < (3 if turns else 7):
                segments = (TextSegment(text), ImageSegment(index, target=True))
            elif turns:
                segments = (ImageSegment(index), *TALK * turns)
            else:
                asked = TextSegment("describe the picture .")
                segments = (ImageSegment(index), asked, TextSegment(text, target=True))
            documents.append(Document(segments))
        shape = (size * max(frames, 1), 3, 64, 64)
        images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        made.append(MultimodalBatch(images, documents))
    return made


class Stepper:
    """One variant: the model, its optimiser and its batches."""

    def __init__(self, variant: str, batch_size: int, turns: int = 0, frames: int = 0) -> None:
        level = VARIANTS.index(variant)
        if level < 4:
            lean.BLOCK = 1 << 30
        self.model = tiny_model()
        if level < 2:
            for layer in self.model.language.model.layers:
                layer.__class__ = LlamaDecoderLayer
            self.model.language.model.norm.__class__ = LlamaRMSNorm
        elif level < 3:
            for layer in self.model.language.model.layers:
                layer.__class__ = WholeLayer
        named = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        self.trained = [p for _, p in named]
        self.optimizer = build_optimizer(named, OptimizerConfig(), num_steps=10**6)["optimizer"]
        if level >= 1 and not keep_freed_memory():
            raise SystemExit("this C library cannot be told to keep freed memory.")
        self.batches = batches(8, batch_size, turns, frames)
        self.steps = 0

    def gradients(self, *, mixed: bool = True) -> Tensor:
        """Loss and all gradients of the first batch, as one vector."""
        loss = self._backward(self.batches[0], mixed=mixed)
        found = [loss.detach()[None], *(p.grad.flatten() for p in self.trained)]
        self.optimizer.zero_grad()
        return torch.cat(found)

    def seconds(self, steps: int) -> float:
        """CPU seconds a step takes, over ``steps`` of them."""
        begun = time.process_time()
        for _ in range(steps):
            self._backward(self.batches[self.steps % len(self.batches)])
            torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.steps += 1
        return (time.process_time() - begun) / steps

    def _backward(self, batch: MultimodalBatch, *, mixed: bool = True) -> Tensor:
        # As Lightning's bf16-mixed does, without autocast's cache of weights.
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed, cache_enabled=False):
            loss = self.model.losses(batch).total()
        loss.backward()
        return loss


def serve(pipe: Connection, variant: str, *sizes: int) -> None:
    """Do in this process what the other asks for."""
    torch.set_num_threads(1)
    stepper = Stepper(variant, *sizes)
    answers: dict[str, Callable[[Any], Any]] = {
        "gradients": lambda mixed: stepper.gradients(mixed=mixed).numpy(),
        "seconds": stepper.seconds,
    }
    while (asked := pipe.recv()) is not None:
        name, argument = asked
        pipe.send(answers[name](argument))


def start(variant: str, *sizes: int) -> Connection:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    context.Process(target=serve, args=(theirs, variant, *sizes), daemon=True).start()
    return ours


def ask(pipe: Connection, name: str, argument: Any) -> Any:
    pipe.send((name, argument))
    return pipe.recv()


def measure(settings: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """CPU seconds per step of every round, and how far loss and gradients lie from the plain ones in float32."""
    sizes = settings.batch_size, settings.turns, settings.frames
    pipes = {name: start(name, *sizes) for name in VARIANTS}
    exact = torch.from_numpy(ask(pipes[PLAIN], "gradients", False))
    errors: dict[str, list[float]] = {}
    for name, pipe in pipes.items():
        for mixed in (False, True):
            found = torch.from_numpy(ask(pipe, "gradients", mixed))
            off = float((found[1:] - exact[1:]).norm() / exact[1:].norm())
            errors.setdefault(name, []).extend([float(abs(found[0] / exact[0] - 1)), off])
        ask(pipe, "seconds", settings.steps)  # warm up
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for number in range(settings.rounds):
        turn = number % len(VARIANTS)
        for name in VARIANTS[turn:] + VARIANTS[:turn]:
            seconds[name].append(ask(pipes[name], "seconds", settings.steps))
    for pipe in pipes.values():
        pipe.send(None)
    return seconds, errors


def ratio(seconds: dict[str, list[float]], before: str, after: str) -> str:
    found = sorted(a / b for a, b in zip(seconds[before], seconds[after], strict=True))
    quarter = len(found) // 4
    return f"x{statistics.median(found):.2f} ({found[quarter]:.2f}..{found[-1 - quarter]:.2f})"


def machine() -> str:
    name, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if info.is_file():
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = models[0].split(":")[1].strip() if models else name
    load = os.getloadavg()[0]
    return f"{name}, {os.cpu_count()} cores, load average {load:.1f} when this run ended, torch {torch.__version__}"


def report(
    seconds: dict[str, list[float]], errors: dict[str, list[float]], settings: argparse.Namespace
) -> str:
    lines = [
        "# A training step of the tiny language model: plain and ours, side by side", "",
        f"Date: {time.strftime('%Y-%m-%d')}. Machine: {machine()}. Batches of {settings.batch_size} documents"
        f"{f' ({settings.turns} questions each)' if settings.turns else ''}"
        f"{f' about clips of {settings.frames} frames' if settings.frames else ''}, "
        f"autocast to bfloat16, 1 thread, {settings.rounds} rounds of {settings.steps} steps in turns; CPU seconds, "
        "lowest and median round; ratios are taken within each round (median, quartiles). Each row adds a change to "
        "the row above.", "",
        "| variant | lowest ms | median ms | against the row above | against plain | float32: loss, gradients off by "
        "| bfloat16 |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for number, (name, found) in enumerate(seconds.items()):
        above = ratio(seconds, VARIANTS[number - 1], name) if number else ""
        plain = f"**{ratio(seconds, PLAIN, name)}**" if number else ""
        off = [f"{one:.1e}" for one in errors[name]]
        lines.append(
            f"| {name} | {min(found) * 1e3:.1f} | {statistics.median(found) * 1e3:.1f} | {above} | {plain} "
            f"| {off[0]}, {off[1]} | {off[2]}, {off[3]} |"
        )
    lines += ["", "Last two columns: how far the loss and the gradients (norm of the difference) lie from the plain "
        "float32 ones, as a share; with and without autocast."]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--turns", type=int, default=0, help="questions an image; 0: pretraining")
    parser.add_argument(
        "--frames", type=int, default=0, help="ask about clips of so many frames; 0: images"
    )
    parser.add_argument("--steps", type=int, default=4, help="steps of a turn")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--output", type=Path, help="markdown file to write")
    settings = parser.parse_args()
    text = report(*measure(settings), settings)
    print(text)
    if settings.output:
        settings.output.write_text(text)


if __name__ == "__main__":
    main()
