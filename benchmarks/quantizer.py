"""The residual quantiser against a plain implementation of the published formulas, side by side.

    python benchmarks/quantizer.py --tokens 1024 --rounds 3 --output benchmarks/results/quantizer.md

All quantisers get the same vectors, codebook and random numbers and take turns in every round, so that
a busy machine slows all of them; what counts is the ratio within a round, in CPU seconds of one thread
(wall seconds on a GPU). ``vector-quantize-pytorch`` joins in where it is installed.
"""

import argparse
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vilau.layers.quantize import ResidualQuantizer

PUBLISHED = "published formulas, plain"
OTHER = "vector_quantize_pytorch"
USED = 4.0
"""Averaged count of every code when a training step begins: that of 256 images of 16 x 16 positions."""


class PlainQuantizer(nn.Module):
    """The published formulas, each written down as a product of whole matrices."""

    def __init__(self, *, depth: int, weight: Tensor) -> None:
        super().__init__()
        self.depth = depth
        self.tables: list[Tensor] = []  # what each depth of the first pass searched
        self.register_buffer("weight", weight.clone())
        self.register_buffer("embed_ema", weight * USED)
        self.register_buffer("cluster_size_ema", weight.new_full((len(weight),), USED))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(N, Z)`` to features, codes ``(N, D)`` and commitment loss."""
        residual, total = x.detach().clone(), torch.zeros_like(x)
        codes, sums = [], []
        for _ in range(self.depth):
            if len(self.tables) < self.depth:
                self.tables.append(self.weight.clone() if self.training else self.weight)
            code = self.distances(residual).argmin(dim=1)
            vectors = self.weight[code]
            if self.training:
                self.update(residual, code)
            residual = residual - vectors
            total = total + vectors
            codes.append(code)
            sums.append(total.clone())
        loss = torch.stack([(x - partial).square().mean() for partial in sums]).mean()
        return x + (total - x).detach(), torch.stack(codes, dim=1), loss

    def distances(self, residual: Tensor) -> Tensor:
        own = residual.square().sum(dim=1, keepdim=True)
        others = self.weight.square().sum(dim=1)[None]
        return torch.addmm(own + others, residual, self.weight.t(), alpha=-2.0)

    @torch.no_grad()
    def update(self, residual: Tensor, code: Tensor) -> None:
        num_codes, width = self.weight.shape
        chosen = torch.zeros(num_codes, len(residual), device=residual.device)
        chosen.scatter_(0, code[None], 1.0)
        self.cluster_size_ema.mul_(0.99).add_(chosen.sum(dim=1), alpha=0.01)
        self.embed_ema.mul_(0.99).add_(chosen @ residual, alpha=0.01)
        if len(residual) < num_codes:
            residual = residual.repeat(-(-num_codes // len(residual)), 1)
            residual = residual + torch.rand_like(residual) * (0.01 / width**0.5)
        order = torch.randperm(len(residual), device=residual.device)
        unused = (self.cluster_size_ema < 1)[:, None]
        self.embed_ema.copy_(torch.where(unused, residual[order][:num_codes], self.embed_ema))
        self.cluster_size_ema.clamp_(min=1)
        total = self.cluster_size_ema.sum()
        sizes = total * (self.cluster_size_ema + 1e-5) / (total + num_codes * 1e-5)
        self.weight.copy_(self.embed_ema / sizes[:, None])


def ours(depth: int, weight: Tensor, **options: Any) -> ResidualQuantizer:
    """Our quantiser with a given codebook."""
    K, Z = weight.shape  # noqa: N806
    layer = ResidualQuantizer(depth=depth, codebook_size=K, width=Z, **options).to(weight.device)
    layer.codebook.weight.copy_(weight)
    layer.codebook.get_buffer("embed_ema").copy_(weight * USED)
    layer.codebook.cluster_size_ema.fill_(USED)
    return layer


def theirs(depth: int, weight: Tensor) -> Any:
    """vector-quantize-pytorch's quantiser with a given codebook and the published rules, as far as it has them."""
    from vector_quantize_pytorch import ResidualVQ  # optional

    K, Z = weight.shape  # noqa: N806
    layer = ResidualVQ(
        dim=Z, num_quantizers=depth, codebook_size=K, shared_codebook=True, decay=0.99,
        threshold_ema_dead_code=1, rotation_trick=False,
    ).to(weight.device)  # fmt: skip
    book = layer.layers[0]._codebook
    book.embed.data.copy_(weight[None])
    book.embed_avg.data.copy_(weight[None] * USED)
    book.cluster_size.fill_(USED)
    return layer


# ---------------------------------------------------------------------- measuring


@dataclass
class Case:
    """One thing that all quantisers do."""

    name: str
    depth: int
    vectors: Tensor
    weight: Tensor
    training: bool
    target: float
    runners: dict[str, Callable[[Tensor], Any]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    codes: dict[str, Tensor] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def ratios(self, name: str) -> list[float]:
        return [a / b for a, b in zip(self.seconds[PUBLISHED], self.seconds[name], strict=True)]


def data(tokens: int, codes: int, width: int, device: str) -> tuple[Tensor, Tensor]:
    """N(0, 1) vectors, and random codes as long as makes each depth take the most away."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(tokens, width, generator=generator)
    weight = torch.randn(codes, width, generator=generator) * math.sqrt(2 * math.log(codes) / width)
    return vectors.to(device), weight.to(device)


def build(case: Case) -> None:
    """Put the quantisers of a case together; the Gram matrix of a frozen codebook is made here, once."""
    case.runners[PUBLISHED] = PlainQuantizer(depth=case.depth, weight=case.weight).train(
        case.training
    )
    if case.training:
        case.runners["vilau, per_depth (same rule)"] = ours(case.depth, case.weight).train()
        per_step = ours(case.depth, case.weight, update="per_step").train()
        case.runners["vilau, per_step (one update)"] = per_step
    else:
        frozen = ours(case.depth, case.weight).eval()
        begun = clock(case.vectors)
        frozen._gram.pays(frozen.codebook.weight, num_vectors=10**9, depth=case.depth)
        frozen.encode(case.vectors[None, :1])
        built = clock(case.vectors) - begun
        case.runners["vilau, Gram matrix"] = frozen
        plain = ours(case.depth, case.weight).eval()
        plain._gram.pays = lambda *args, **kwargs: False  # type: ignore[method-assign]
        case.runners["vilau, before the Gram matrix pays"] = plain
        saved = -(-len(case.weight) // (case.depth - 1))
        case.notes.append(
            f"The Gram matrix took {built:.1f} s, once for a frozen codebook; it is made after {saved} vectors."
        )
    if find_spec(OTHER):
        case.runners[f"vector-quantize-pytorch {version(OTHER.replace('_', '-'))}"] = theirs(
            case.depth, case.weight
        ).train(case.training)


def clock(like: Tensor) -> float:
    """CPU seconds, or on a GPU wall seconds after all its work."""
    if like.device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def once(run: Callable[[Tensor], Any], case: Case) -> tuple[float, Tensor]:
    """Time one forward pass, or one training step; returns seconds and codes ``(N, D)``."""
    x = case.vectors.clone()[None]
    x = x[0] if isinstance(run, PlainQuantizer) else x
    torch.manual_seed(0)
    begun = clock(x)
    with torch.set_grad_enabled(case.training):
        if case.training:
            x.requires_grad_()
        seen = run(x)
        if isinstance(run, ResidualQuantizer):
            seen = (seen.features, seen.codes, seen.commitment_loss)
        if case.training:
            (seen[0].sum() + seen[2].mean()).backward()
    return clock(x) - begun, seen[1].reshape(len(case.vectors), case.depth)


def measure(case: Case, rounds: int) -> None:
    build(case)
    names = list(case.runners)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            seconds, codes = once(case.runners[name], case)
            case.seconds.setdefault(name, []).append(seconds)
            case.codes.setdefault(name, codes)
    case.others = {name: differing(case, name) for name in names if name != PUBLISHED}
    if case.training:
        plain, same = case.runners[PUBLISHED], case.runners["vilau, per_depth (same rule)"]
        assert isinstance(plain, PlainQuantizer)
        assert isinstance(same, ResidualQuantizer)
        moved = (plain.weight - same.codebook.weight).abs().max() / plain.weight.abs().max()
        case.notes.append(
            f"After {rounds} steps the codebooks of the published formulas and of per_depth differ by "
            f"{float(moved):.1e} of their largest entry."
        )


def differing(case: Case, name: str) -> str:
    """Count codes that are others, and of the vectors that have some how many began with a tie.

    A tie: two squared distances, in float64, closer than 1e-5 of the vector's squared norm.
    """
    if case.training and not name.endswith("(same rule)"):
        return "another update rule"
    codes, other = case.codes[PUBLISHED], case.codes[name]
    wrong = (codes != other).any(dim=1).nonzero()[:, 0]
    if len(wrong) == 0:
        return f"0 of {codes.numel()}"
    plain = case.runners[PUBLISHED]
    assert isinstance(plain, PlainQuantizer)
    ties = 0
    for row in wrong.tolist():
        depth = int((codes[row] != other[row]).nonzero()[0])
        left = case.vectors[row].double()
        for before in range(depth):
            left = left - plain.tables[before][codes[row, before]].double()
        pair = plain.tables[depth][torch.stack([codes[row, depth], other[row, depth]])].double()
        first, second = (left - pair).square().sum(dim=1)
        ties += bool((first - second).abs() < 1e-5 * left.square().sum())
    return (
        f"{int((codes != other).sum())} of {codes.numel()}: {len(wrong)} vectors, {ties} by a tie"
    )


# ---------------------------------------------------------------------- reporting


def rows(case: Case) -> list[str]:
    """One line of the table for each quantiser."""
    lines = []
    for name, seconds in case.seconds.items():
        ratio = statistics.median(case.ratios(name))
        spread = f"{min(case.ratios(name)):.2f}..{max(case.ratios(name)):.2f}"
        compared = "" if name == PUBLISHED else f"**x{ratio:.2f}** ({spread})"
        wrong = case.others.get(name, "")
        lines.append(
            f"| {case.name} | {name} | {statistics.median(seconds):.3f} | {compared} | {wrong} |"
        )
    return lines


def machine(device: str) -> str:
    """What was measured on, and how busy it was."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = models[0].split(":")[1].strip() if models else name
    if device == "cuda":
        name = torch.cuda.get_device_name()
    load = os.getloadavg()[0]
    return f"{name}, {os.cpu_count()} cores, load average {load:.1f} when this run ended, torch {torch.__version__}"


def report(cases: list[Case], settings: argparse.Namespace) -> str:
    lines = [
        "# Residual quantiser: published formulas and ours, side by side", "",
        f"Date: {time.strftime('%Y-%m-%d')}. Machine: {machine(settings.device)}. K = {settings.codes}, float32, "
        f"{torch.get_num_threads()} thread, {settings.rounds} rounds in turns; seconds are "
        f"{'wall' if settings.device == 'cuda' else 'CPU'} seconds (median), ratios are taken within each round "
        "(median, smallest..largest).", "",
        "| what | quantiser | seconds | against the published formulas | other codes |",
        "|---|---|---|---|---|",
    ]  # fmt: skip
    for case in cases:
        lines += rows(case)
    lines.append("")
    for case in cases:
        ours_ = [name for name in case.seconds if name.startswith("vilau")][0]
        ratio = statistics.median(case.ratios(ours_))
        verdict = "reached" if ratio >= case.target else "missed"
        lines.append(
            f"* {case.name}: target x{case.target:g}, {verdict} by `{ours_}` (x{ratio:.2f})."
        )
        lines += [f"  {note}" for note in case.notes]
    if not find_spec(OTHER):
        lines.append("* vector-quantize-pytorch is not installed here, so it is not in the table.")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=2048, help="vectors at D=4; D=16 gets half")
    parser.add_argument("--codes", type=int, default=16384)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--output", type=Path, help="markdown file to write")
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    cases = []
    for name, depth, width, tokens, training, target in (
        ("forward", 4, 1024, settings.tokens, False, 3.0),
        ("training step", 4, 1024, settings.tokens, True, 2.0),
        ("forward, frozen book", 16, 1152, settings.tokens // 2, False, 10.0),
    ):
        vectors, weight = data(tokens, settings.codes, width, settings.device)
        title = f"{name}, D={depth}, Z={width}, {tokens} vectors"
        case = Case(title, depth, vectors, weight, training, target)
        measure(case, settings.rounds)
        print("\n".join(rows(case)), flush=True)
        case.runners.clear()
        cases.append(case)
    text = report(cases, settings)
    print(text)
    if settings.output:
        settings.output.write_text(text)


if __name__ == "__main__":
    main()
