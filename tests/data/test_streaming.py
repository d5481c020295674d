from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from vilau.data.batch_mark import mark_of
from vilau.data.image_text import ImageTextPairs
from vilau.data.streaming import Devices, EpochOrder, FixedLoader, TrainLoader
from vilau.data.world_data import WorldSpec
from vilau.errors import CheckpointError, ConfigError
from vilau.types import ImageTextBatch


def keep_plan(epoch: int, indices: np.ndarray) -> tuple[int, list[int]]:
    """Stands for a real batch: says what it would be made of."""
    return epoch, indices.tolist()


ALONE = Devices()


def loader(
    num: int = 103, batch: int = 12, devices: Devices = ALONE, workers: int = 0, seed: int = 3
) -> TrainLoader:
    order = EpochOrder([40, 40, num - 80], seed=seed)
    return TrainLoader(
        keep_plan, order, global_batch_size=batch, devices=devices, num_workers=workers
    )


# ------------------------------------------------------------------ order


def test_an_epoch_shows_every_sample_once_in_an_order_of_its_own() -> None:
    order = EpochOrder([40, 40, 23], seed=3)
    first, second = order.indices(0), order.indices(1)
    assert sorted(first) == sorted(second) == list(range(103))
    assert (first != second).mean() > 0.9
    assert (first == EpochOrder([40, 40, 23], seed=3).indices(0)).all()
    assert (first != EpochOrder([40, 40, 23], seed=4).indices(0)).mean() > 0.9


def test_small_sets_are_shuffled_across_all_chunks() -> None:
    first = EpochOrder([500] * 4, seed=0).indices(0)
    spread = np.mean([first[i : i + 64].std() for i in range(0, 1920, 64)])
    assert spread == pytest.approx(2000 / 12**0.5, rel=0.05)  # of a uniform shuffle


def test_a_window_bounds_how_many_chunks_are_in_use() -> None:
    order = EpochOrder([10] * 20, seed=0, window_chunks=4)
    first = order.indices(0)
    assert sorted(first) == list(range(200))
    for start in range(0, 200, 40):
        assert len(set(first[start : start + 40] // 10)) == 4


def test_only_kept_samples_appear() -> None:
    order = EpochOrder([40, 40], seed=0, keep=np.array([3, 50, 41, 79]))
    assert order.num_samples == 4
    assert sorted(order.indices(0)) == [3, 41, 50, 79]


# ------------------------------------------------------------------ training loader


def test_epochs_have_full_batches_of_different_samples() -> None:
    batches = list(loader())
    assert len(batches) == len(loader()) == 8
    seen = [index for _, indices in batches for index in indices]
    assert len(seen) == len(set(seen)) == 96


def test_ranks_and_micro_steps_share_each_global_batch() -> None:
    whole = list(loader())
    parts = [list(loader(devices=Devices(rank, 3, 2))) for rank in range(3)]
    assert len(parts[0]) == len(loader(devices=Devices(0, 3, 2))) == 16
    for step, (_, indices) in enumerate(whole):
        slices = [parts[rank][2 * step + micro][1] for micro in range(2) for rank in range(3)]
        assert sum(slices, []) == indices


@pytest.mark.parametrize(
    ("taken", "workers"), [(0, 0), (1, 0), (7, 0), (8, 0), (9, 0), (20, 0), (1, 2), (8, 2)]
)
def test_a_saved_place_continues_exactly(taken: int, workers: int) -> None:
    expected = [*loader(), *[b for e in (1, 2, 3) for b in _epoch(e)]]
    running = loader(workers=workers)
    first = _take(running, taken)
    state = running.state_dict()
    resumed = loader()
    resumed.load_state_dict(state)
    assert first == expected[:taken]
    assert _take(resumed, 10) == expected[taken : taken + 10]


def _epoch(epoch: int) -> list[tuple[int, list[int]]]:
    order = EpochOrder([40, 40, 23], seed=3).indices(epoch)
    return [(epoch, order[i : i + 12].tolist()) for i in range(0, 96, 12)]


def _take(source: TrainLoader, num: int) -> list[tuple[int, list[int]]]:
    """As Lightning does: a new iterator at each epoch's end, never one `next` too many."""
    taken: list[tuple[int, list[int]]] = []
    while len(taken) < num:
        place = source.state_dict()["position"] % 96 // 12
        taken += islice(iter(source), min(num - len(taken), 8 - place))
    return taken


def test_a_state_of_other_data_is_refused() -> None:
    state = loader().state_dict()
    with pytest.raises(CheckpointError, match=r"saved with num_samples 103 .* now it is 104"):
        loader(num=104).load_state_dict(state)
    with pytest.raises(CheckpointError, match=r"saved with seed 3 .* now it is 5"):
        loader(seed=5).load_state_dict(state)
    with pytest.raises(CheckpointError, match=r"global_batch_size 12 .* now it is 6"):
        loader(batch=6).load_state_dict(state)


@dataclass(frozen=True)
class Plan:
    """Stands for what builds batches of settings, with one of a later version."""

    share: float
    shares: dict[str, float]
    kept: np.ndarray
    later: int = 0

    def __call__(self, epoch: int, indices: np.ndarray) -> list[int]:
        return indices.tolist()


@dataclass(frozen=True)
class OlderPlan:
    share: float
    shares: dict[str, float]
    kept: np.ndarray


def planned(plan: object, sizes: tuple[int, ...] = (40, 40, 23), **settings: Any) -> TrainLoader:
    order = EpochOrder(sizes, seed=3, **settings)
    return TrainLoader(plan, order, global_batch_size=12, devices=ALONE)  # type: ignore[arg-type]


def test_a_state_of_other_settings_is_refused_in_a_sentence() -> None:
    plan = Plan(0.5, {"a": 1, "b": 0.25}, np.arange(4))
    state = planned(plan).state_dict()
    assert re.fullmatch("[0-9a-f]{12}", str(state["batches"]))
    same = Plan(0.5, {"a": 1.0, "b": 0.25}, np.arange(4))
    planned(same).load_state_dict(state)
    for other in (
        planned(replace(plan, share=0.6)),
        planned(replace(plan, shares={"a": 0.25, "b": 1})),
        planned(replace(plan, kept=np.arange(4)[::-1])),
        planned(replace(plan, later=1)),
        planned(plan, (40, 39, 24)),
        planned(plan, window_chunks=1),
        planned(plan, (60, 60), keep=np.arange(103)),
    ):
        with pytest.raises(
            CheckpointError, match=r"other training data, or with other data sett.*new run\.$"
        ):
            other.load_state_dict(state)
        assert other.state_dict()["position"] == 0


def test_marks_know_no_defaults_nor_what_they_cannot_tell() -> None:
    plan = Plan(0.5, {"a": 1}, np.arange(4))
    older = type("Plan", (OlderPlan,), {})(0.5, {"a": 1}, np.arange(4))
    assert mark_of(plan) == mark_of(older)
    assert mark_of(replace(plan, share=object())) is None  # type: ignore[arg-type]
    # Objects that are no dataclasses tell themselves.
    assert mark_of(EpochOrder([4], seed=0)) == mark_of(EpochOrder([4], seed=0))
    assert mark_of(EpochOrder([4], seed=0)) != mark_of(EpochOrder([4], seed=1))
    # A state without a mark, of a function or of an earlier version, goes with any.
    unmarked = loader().state_dict()
    assert "batches" not in unmarked
    planned(plan).load_state_dict(unmarked)
    loader().load_state_dict(planned(plan).state_dict())


def test_a_state_inside_an_accumulated_batch_needs_the_same_accumulation() -> None:
    accumulated = loader(devices=Devices(accumulate=3))
    next(iter(accumulated))
    with pytest.raises(CheckpointError, match=r"stands 4 samples into an epoch.*accumulate_grad"):
        loader().load_state_dict(accumulated.state_dict())


def test_batch_sizes_that_do_not_divide() -> None:
    with pytest.raises(ConfigError, match=r"global_batch_size is 12, which 5 devices .* write 10"):
        loader(devices=Devices(0, 5))
    with pytest.raises(ConfigError, match=r"global_batch_size is 200 but .* only 103 samples"):
        loader(batch=200)


# ------------------------------------------------------------------ evaluation loader


@pytest.mark.parametrize(("num", "world_size"), [(100, 1), (101, 3), (7, 4), (4, 4), (33, 2)])
def test_ranks_share_an_evaluation_set_exactly(num: int, world_size: int) -> None:
    ranks = [
        FixedLoader(
            keep_plan, np.arange(num), global_batch_size=16, devices=Devices(rank, world_size)
        )
        for rank in range(world_size)
    ]
    assert len({len(rank) for rank in ranks}) == 1
    batches = [indices for rank in ranks for _, indices in rank]
    assert sorted(sum(batches, [])) == list(range(num))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) > 0


def test_an_evaluation_set_smaller_than_the_devices() -> None:
    with pytest.raises(ConfigError, match=r"holds 3 samples for 4 devices; use at least one"):
        FixedLoader(keep_plan, np.arange(3), global_batch_size=16, devices=Devices(0, 4))


# ------------------------------------------------------------------ under Lightning


class Listener(LightningModule):
    """Learns nothing, remembers every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[str] = []

    def training_step(self, batch: ImageTextBatch, batch_idx: int) -> torch.Tensor:
        content = batch.images.numpy().tobytes() + "|".join(batch.texts).encode()
        self.seen.append(hashlib.sha256(content).hexdigest()[:12])
        return self.weight * 0.0

    def validation_step(self, batch: object, batch_idx: int, dataloader_idx: int = 0) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(
    folder: Path, *, world: WorldSpec, workers: int, resume: Path | None, limit: int | float
) -> list[str]:
    data = ImageTextPairs(
        world=world, global_batch_size=16, zero_shot=None, num_workers=workers, num_val_samples=8
    )
    checkpoint = ModelCheckpoint(
        folder,
        filename="{step}",
        every_n_train_steps=1,
        save_top_k=-1,
        save_on_train_epoch_end=False,
    )
    trainer = Trainer(
        max_steps=15, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[] if resume else [checkpoint],
        enable_checkpointing=resume is None, limit_train_batches=limit, val_check_interval=None,
    )  # fmt: skip
    module = Listener()
    trainer.fit(module, data, ckpt_path=resume)
    return module.seen


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("limit", [1.0, 4])
def test_a_resumed_fit_sees_the_batches_of_an_uninterrupted_one(
    tmp_path: Path, world: WorldSpec, limit: int | float
) -> None:
    whole = fit(tmp_path, world=world, workers=0, resume=None, limit=limit)
    assert len(whole) == len(set(whole)) == 15  # 100 samples: 6 batches an epoch
    for step, workers in ((1, 2), (5, 0), (6, 0), (7, 0), (12, 0)):
        resumed = fit(
            tmp_path,
            world=world,
            workers=workers,
            resume=tmp_path / f"step={step}.ckpt",
            limit=limit,
        )
        assert resumed == whole[step:], step
