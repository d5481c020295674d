"""Two ranks train the tower that one process trains with both batches."""

import socket

import pytest
import torch

from tests.models import tiny
from tests.training import tower_ranks, toys
from tests.training.tower_ranks import KINDS, SPLITS


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tower")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(tower_ranks.work, args=(folder, port), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.multi_rank
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", KINDS)
def test_contrastive_loss_and_gradients_are_those_of_the_whole_batch(ranks, kind, split):
    alone = tower_ranks.aligned(kind, None)
    parts = [found[f"{kind}, {split}"] for found in ranks]
    assert parts[0].keys() == alone.keys()
    for name, expected in alone.items():
        mean = (parts[0][name] + parts[1][name]) / 2  # as data parallelism averages
        torch.testing.assert_close(mean, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.multi_rank
@pytest.mark.parametrize("split", SPLITS)
def test_true_captions_of_other_ranks_are_positives(ranks, split):
    whole = tower_ranks.known(tiny.pairs(8))
    found = torch.cat([rank[f"matches, {split}"] for rank in ranks])
    assert torch.equal(found, whole.matches)
    assert found[:4, 4:].any()


@pytest.mark.multi_rank
def test_adaptive_weight_and_averages_are_those_of_the_whole_batch(ranks):
    alone = tower_ranks.balance(slice(None))
    for rank in ranks:
        torch.testing.assert_close(rank["balance"], alone)


@pytest.mark.multi_rank
@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_train_as_one_process_with_the_whole_batch(ranks, tmp_path, kind):
    module, batches = tower_ranks.module_and_batches(tmp_path, kind)
    alone = toys.fit(
        module,
        toys.ToyData(batches),
        tower_ranks.STEPS,
        gradient_clip_val=tower_ranks.CLIP_GRADIENTS,
    )
    for step, logged in enumerate(alone.logged):
        for name in ("train/contrastive_loss", "train/l2_loss"):
            mean = sum(rank[kind]["logged"][step][name] for rank in ranks) / 2
            assert mean == pytest.approx(logged[name], rel=1e-4)
    for name, expected in module.state_dict().items():
        if name.endswith("k_proj.bias"):
            continue  # softmax does not see them: their gradient is rounding, which AdamW blows up
        for rank in ranks:
            torch.testing.assert_close(rank[kind]["state"][name], expected, atol=2e-4, rtol=1e-3)


@pytest.mark.multi_rank
def test_ranks_stay_together_with_a_discriminator_and_averages(ranks):
    first, second = (rank["adversarial"]["state"] for rank in ranks)
    assert any(name.startswith("average.") for name in first)
    assert any(name.startswith("adversary.") for name in first)
    for name in first:
        assert torch.equal(first[name], second[name]), name
    logged = [rank["adversarial"]["logged"] for rank in ranks]
    assert "train/adversarial_loss" not in logged[0][0]  # before its start step
    weights = [log[1]["train/adversarial_adaptive_weight"] for log in logged]
    assert weights[0] == weights[1] > 0
