"""Two processes under Lightning: together they see what one would."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, os, sys
import torch
from lightning.pytorch import LightningModule, Trainer
from vilau.data.image_text import ImageTextPairs
from vilau.data.world_data import WorldSpec

class Listener(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.train_scenes, self.val_scenes = [], []
    def training_step(self, batch, batch_idx):
        self.train_scenes.append(list(zip(batch.scenes, batch.texts)))
        return self.weight * 1.0
    def validation_step(self, batch, batch_idx):
        self.val_scenes += batch.scenes
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

data = ImageTextPairs(
    world=WorldSpec(num_train=70, num_val=21), global_batch_size=16, zero_shot=None
)
module = Listener()
world_size = int(sys.argv[2])
trainer = Trainer(
    max_epochs=1, accelerator="cpu", devices=world_size, logger=False,
    strategy="ddp" if world_size > 1 else "auto", num_sanity_val_steps=0,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
)
trainer.fit(module, data)
rank = trainer.global_rank
with open(f"{sys.argv[1]}/{world_size}-{rank}.json", "w") as file:
    json.dump([module.train_scenes, module.val_scenes], file)
trainer.strategy.barrier()
os._exit(0)
"""


def run(folder: Path, world_size: int) -> list[list[list[object]]]:
    (folder / "script.py").write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(world_size):
        ranks = {"WORLD_SIZE": world_size, "RANK": rank, "LOCAL_RANK": rank, "NODE_RANK": 0}
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        variables = {**os.environ, **{k: str(v) for k, v in (ranks | address).items()}}
        command = [sys.executable, str(folder / "script.py"), str(folder), str(world_size)]
        processes.append(subprocess.Popen(command, env=variables))
    assert [process.wait(timeout=240) for process in processes] == [0] * world_size
    files = [folder / f"{world_size}-{rank}.json" for rank in range(world_size)]
    return [json.loads(file.read_text()) for file in files]


@pytest.mark.multi_rank
def test_two_ranks_share_the_batches_of_one(tmp_path: Path, own_cache: Path) -> None:
    ((whole, validated),) = run(tmp_path, 1)
    (first, first_val), (second, second_val) = run(tmp_path, 2)
    assert len(whole) == len(first) == len(second) == 4
    for step, batch in enumerate(whole):
        assert len(first[step]) == len(second[step]) == 8
        assert first[step] + second[step] == batch
    assert sorted(first_val + second_val) == sorted(validated)
    assert len(set(validated)) == len(validated) == 21
