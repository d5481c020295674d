"""The batches of one accumulated step know one another's documents, whatever the place that a run resumes at."""

import numpy as np
import pytest
import torch

from vilau.data.streaming import Devices, EpochOrder, TrainLoader
from vilau.types import Document, MultimodalBatch, TextSegment


def batch_of(epoch: int, indices: np.ndarray) -> MultimodalBatch:
    """Documents that name their samples."""
    documents = [Document((TextSegment(f"{epoch}.{i}", target=True),)) for i in indices.tolist()]
    return MultimodalBatch(torch.zeros(0, 3, 1, 1, dtype=torch.uint8), documents)


def loader(accumulate: int, rank: int = 0) -> TrainLoader:
    devices = Devices(rank=rank, world_size=2, accumulate=accumulate)
    order = EpochOrder([26], seed=3)
    return TrainLoader(batch_of, order, global_batch_size=12, devices=devices)


def test_each_part_knows_all_documents_of_its_step():
    parts = list(loader(3))
    assert [part.part for part in parts] == [0, 1, 2] * 2
    for first in (0, 3):
        step = parts[first : first + 3]
        for part in step:
            assert part.step == [other.documents for other in step]
    assert parts[0].step != parts[3].step
    assert len({d.segments[0].text for part in parts for d in part.documents}) == 12


def test_without_accumulation_nothing_is_told():
    assert all(not part.step for part in loader(1))


@pytest.mark.parametrize("taken", [1, 2, 3, 4])
def test_what_is_left_of_a_step_is_a_step_of_fewer_parts(taken):
    whole, first = list(loader(3)), loader(3)
    stream = iter(first)
    for _ in range(taken):
        next(stream)
    resumed = loader(3)
    resumed.load_state_dict(first.state_dict())
    stream = iter(resumed)
    left = [next(stream) for _ in range(6 - taken)]
    assert [b.documents for b in left] == [b.documents for b in whole[taken:]]
    sizes = [len(part.step) for part in left]
    assert sizes == [3 - taken % 3] * (3 - taken % 3) + [3] * (6 - taken - (3 - taken % 3))
    assert left[0].part == 0
