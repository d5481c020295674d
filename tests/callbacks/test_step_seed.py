"""A step's randomness follows from (seed, step, part, rank) and nothing else."""

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from vilau.callbacks.step_seed import StepSeed, step_seed


def trainer(step: int = 0, rank: int = 0, accumulate: int = 1) -> Any:
    return SimpleNamespace(global_step=step, global_rank=rank, accumulate_grad_batches=accumulate)


def draw() -> tuple[float, float, float]:
    return float(torch.rand(())), float(np.random.rand()), random.random()


def drawn(seed: int = 0, batch_idx: int = 0, **where: int) -> tuple[float, float, float]:
    StepSeed(seed).on_train_batch_start(trainer(**where), None, None, batch_idx)  # type: ignore[arg-type]
    return draw()


def test_the_same_place_draws_the_same_whatever_came_before() -> None:
    first = drawn(3, step=17)
    torch.rand(1000)
    np.random.rand(10)
    assert drawn(3, step=17) == first


def test_every_place_draws_its_own() -> None:
    places = [
        drawn(seed, batch_idx, step=step, rank=rank, accumulate=2)
        for seed in (0, 1)
        for step in (0, 1, 2)
        for rank in (0, 1)
        for batch_idx in (0, 1)
    ]
    for generator in zip(*places, strict=True):
        assert len(set(generator)) == 24


def test_without_accumulation_the_batch_number_does_not_matter() -> None:
    # A resumed epoch may count its batches anew; the step does not change.
    assert drawn(0, 5, step=9) == drawn(0, 0, step=9)


def test_measurements_are_seeded_under_their_own_names() -> None:
    callback, found = StepSeed(0), []
    for hook in ("validation", "test", "predict"):
        for batch_idx in (0, 1):
            for loader in (0, 1):
                start = getattr(callback, f"on_{hook}_batch_start")
                start(trainer(4), None, None, batch_idx, loader)
                found.append(draw())
    assert len(set(found)) == 12
    assert drawn(0, step=4) not in found


def test_the_seed_is_the_same_on_every_machine() -> None:
    assert step_seed(0, "train", 0, 0, 0) == 2670974986993667239
    assert 0 <= step_seed(123, "test", 10**9) < 2**63
