"""The metrics of two ranks are those of one process that saw everything."""

import json
import multiprocessing
import os
import socket
from pathlib import Path

import pytest
import torch
from torch import distributed

from tests.metrics.random_networks import random_inception
from vilau.metrics.codebook import CodebookUsage
from vilau.metrics.detector_card import drawn_images
from vilau.metrics.frechet import FrechetDistance
from vilau.metrics.inception import InceptionScore
from vilau.metrics.retrieval import RetrievalRecall


def measure(weights: str, rank: int, ranks: int) -> dict[str, float]:
    """Measure every ``ranks``-th image; the sets of the ranks differ in size."""
    pictures = drawn_images(41)[0]
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(11, 5, generator=generator)
    owners = torch.randint(0, 11, (30,), generator=generator)
    texts = features[owners] + torch.randn(30, 5, generator=generator)
    mine = torch.arange(11)[rank::ranks]
    distance = FrechetDistance("world")
    distance.update(pictures[rank::ranks], real=True)
    distance.update(pictures[rank::ranks].flip(-1) // 2, real=False)
    score = InceptionScore(weights, splits=2)
    indices = torch.arange(rank, 5, ranks)
    score.update(pictures[indices], indices)
    retrieval = RetrievalRecall(ks=(1, 3))
    ours = (owners[:, None] == mine[None]).any(dim=1)
    retrieval.update(features[mine], texts[ours], torch.searchsorted(mine, owners[ours]))
    usage = CodebookUsage(depth=2, codebook_size=8)
    usage.update(torch.randint(0, 5, (11, 4, 2), generator=generator)[mine])
    values = {"fid": float(distance.compute())}
    values |= {name: float(value) for name, value in score.compute().items()}
    values |= {name: float(value) for name, value in retrieval.compute().items()}
    values |= {f"{n}{d}": float(v[d]) for n, v in usage.compute().items() for d in (0, 1)}
    return values


def one_rank(rank: int, port: int, weights: str, folder: str) -> None:
    """Run rank ``rank`` of two and write what it measured."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    Path(folder, f"rank{rank}.json").write_text(json.dumps(measure(weights, rank, 2)))
    distributed.barrier()
    os._exit(0)  # gloo's threads may abort the interpreter's own way out


@pytest.mark.multi_rank
def test_two_ranks_measure_the_same_as_one(tmp_path) -> None:
    weights = str(random_inception(tmp_path / "inception.pth"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    arguments = (port, weights, str(tmp_path))
    ranks = [spawn.Process(target=one_rank, args=(rank, *arguments)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    alone = measure(weights, 0, 1)
    for process in ranks:
        process.join(300)
        process.kill()
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first == pytest.approx(alone, rel=1e-4)
    assert alone["mean"] > 1.01
    assert 0 < alone["text_to_image_r1"] < 1
