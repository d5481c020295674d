"""A NaN on one rank stops both, and each leaves its own batch."""

import json
import math
import multiprocessing
import os
import socket
from pathlib import Path

import pytest

from tests.callbacks.test_health import Scripted, batches
from tests.callbacks.toys import loader, trainer
from vilau.callbacks.health import Health, TrainingDivergedError
from vilau.callbacks.replay import load_step


def one_rank(rank: int, port: int, folder: str) -> None:
    """Train rank ``rank`` of two; the loss of rank 1 is NaN at step 2."""
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "NODE_RANK": "0",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
    }
    module = Scripted([1.0, 1.0, math.nan if rank else 1.0, 1.0])
    settings = {"devices": 2, "strategy": "ddp", "use_distributed_sampler": False}
    run = trainer(Path(folder), Health(), max_steps=4, num_sanity_val_steps=0, **settings)
    try:
        run.fit(module, loader(*batches(4)))
        words = "it went on"
    except TrainingDivergedError as error:
        words = str(error)
    Path(folder, f"rank{rank}.json").write_text(json.dumps(words))
    os._exit(0)  # gloo's threads may abort the interpreter's own way out


@pytest.mark.multi_rank
def test_both_ranks_stop_at_once(tmp_path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    ranks = [spawn.Process(target=one_rank, args=(rank, port, str(tmp_path))) for rank in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(300)
        process.kill()
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first.startswith("Step 2: ")
    assert second.startswith("Step 2: the loss is not a finite number (loss nan; ")
    saved = [load_step(tmp_path / "health" / f"step00000002-rank{rank}.pt") for rank in (0, 1)]
    assert [step["rank"] for step in saved] == [0, 1]
    assert math.isfinite(saved[0]["losses"][0])
    assert math.isnan(saved[1]["losses"][0])
