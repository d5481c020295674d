"""Two ranks learn the codebook that one process learns from both batches."""

import socket

import pytest
import torch

from tests.layers import codebook_ranks
from tests.layers.codebook_ranks import ACCUMULATED, CASES, PARTS, SPLITS


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("codebook")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(codebook_ranks.work, args=(folder, port), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.multi_rank
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("case", CASES)
def test_two_ranks_learn_as_one_process_with_both_batches(ranks, case, split):
    if case == "by gradient" and split != "even":
        pytest.skip("losses are averaged over ranks: equal to one process where batches are equal")
    inputs = [torch.cat(step) for step in codebook_ranks.batches(split)]
    alone = codebook_ranks.train(case, inputs, seed=0)
    first, second = (found[f"{case}, {split}"] for found in ranks)
    assert first.keys() == second.keys() == alone.keys()
    for name, expected in alone.items():
        if name.startswith("codes"):
            assert torch.equal(torch.cat([first[name], second[name]]), expected), name
        else:
            assert torch.equal(first[name], second[name]), name
            torch.testing.assert_close(first[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.multi_rank
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("case", ACCUMULATED)
def test_two_ranks_learn_from_parts_as_one_process_from_the_whole_batch(ranks, case, split):
    """The whole holds the first part of rank 0, that of rank 1, the second of rank 0, and so on."""
    parts = [[torch.cat(part) for part in step] for step in codebook_ranks.cut(split, PARTS)]
    whole = codebook_ranks.accumulate(case, [[torch.cat(step)] for step in parts], seed=0)
    first, second = (found[f"{case}, {split}, in parts"] for found in ranks)
    codes = [name for name in whole if name.startswith("codes")]
    for step, name in enumerate(codes):
        found = [rank[f"codes {step} {part}"] for part in range(PARTS) for rank in (first, second)]
        assert torch.equal(torch.cat(found), whole[name]), name
    for name in whole.keys() - codes:
        assert torch.equal(first[name], second[name]), name
        # Another vector in the place of an unused code would be far off.
        torch.testing.assert_close(first[name], whole[name], rtol=1e-5, atol=1e-6)
    assert (whole[next(n for n in whole if n.endswith("cluster_size_ema"))] == 1).any()


@pytest.mark.multi_rank
def test_one_message_where_the_rule_allows_it(ranks):
    """The published rule needs the sums of one depth before the search of the next."""
    depths = codebook_ranks.D
    expected = {"published": depths, "once per step": 1, "a codebook per depth": 1}
    for found in ranks:
        assert found["messages"] == expected
