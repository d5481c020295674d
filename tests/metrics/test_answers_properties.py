"""What holds for every benchmark: the protocol's plain loop, any split into batches, any number of ranks."""

import json
import multiprocessing
import os
import random
from pathlib import Path

import pytest
import torch.distributed as dist

from tests.metrics.answer_cases import CASES, scores, take


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_the_plain_loop(name: str, seed: int) -> None:
    case = CASES[name]
    columns = case.draw(random.Random(seed))
    metric = case.make()
    metric.update(**columns)
    expected = case.plain(columns)
    assert scores(metric) == pytest.approx(expected, abs=1e-5)
    assert any(0.05 < value < 0.95 for value in expected.values())


@pytest.mark.parametrize("name", CASES)
def test_neither_split_nor_order_matters_and_reset_forgets(name: str) -> None:
    case, rng = CASES[name], random.Random(7)
    columns = case.draw(rng)
    whole, split = case.make(), case.make()
    whole.update(**columns)
    split.update(**take(columns, [0]))
    split.reset()
    places = list(range(len(columns["answers"])))
    rng.shuffle(places)
    while places:
        size = rng.randint(1, 9)
        split.update(**take(columns, places[:size]))
        places = places[size:]
    assert scores(split) == pytest.approx(scores(whole), abs=1e-6)


def one_rank(rank: int, folder: str) -> None:
    """Score every second question; on rank 1 nothing at all of two benchmarks."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = {}
    for name, case in CASES.items():
        columns = case.draw(random.Random(3))
        places = list(range(len(columns["answers"])))
        alone = name in ("mme", "seedbench")
        metric = case.make()
        if not (alone and rank == 1):
            metric.update(**take(columns, places if alone else places[rank::2]))
        found[name] = scores(metric)
    Path(folder, f"rank{rank}.json").write_text(json.dumps(found))
    os._exit(0)  # gloo's threads may abort the interpreter's own way out


@pytest.mark.multi_rank
def test_two_ranks_equal_one(tmp_path) -> None:
    spawn = multiprocessing.get_context("spawn")
    ranks = [spawn.Process(target=one_rank, args=(rank, str(tmp_path))) for rank in (0, 1)]
    for process in ranks:
        process.start()
    alone = {}
    for name, case in CASES.items():
        metric = case.make()
        metric.update(**case.draw(random.Random(3)))
        alone[name] = scores(metric)
    for process in ranks:
        process.join(300)
        process.kill()
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first.keys() == alone.keys()
    for name, values in alone.items():
        assert first[name] == pytest.approx(values, abs=1e-6), name
