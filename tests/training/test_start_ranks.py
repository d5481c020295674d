"""Two ranks train a SigLIP, and a tower whose codebook learns, as one process does with both batches."""

import socket

import pytest
import torch

from tests.training import start_ranks, toys
from tests.training.start_ranks import CLIPS, FOLDED, TOWERS, joined
from vilau.errors import ConfigError


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(start_ranks.work, args=(folder, port), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def alone(kind, folder):
    """What one process makes of the whole batches."""
    module, batches = start_ranks.module_and_batches(kind, folder)
    recorder = toys.fit(
        module,
        toys.ToyData(batches),
        start_ranks.STEPS,
        accumulate_grad_batches=start_ranks.accumulated(kind),
    )
    return module, recorder


def compare(ranks, kind, module, recorder, losses):
    for batch, logged in enumerate(recorder.logged):
        for name in losses:
            mean = sum(rank[kind]["logged"][batch][name] for rank in ranks) / 2
            assert mean == pytest.approx(logged[name], rel=1e-4), name
    for name, expected in module.state_dict().items():
        first, second = (rank[kind]["state"][name] for rank in ranks)
        assert torch.equal(first, second), name
        if name.endswith(("k_proj.bias", "key.bias")):
            continue  # softmax does not see them: their gradient is rounding, which AdamW blows up
        if name.endswith("in_proj_bias"):  # of queries, keys and values
            width = len(expected) // 3
            first[width : 2 * width] = expected[width : 2 * width]
        told = f"{name} is unlike that of one process"
        torch.testing.assert_close(first, expected, atol=2e-4, rtol=1e-3, msg=told)


@pytest.mark.multi_rank
@pytest.mark.parametrize("kind", CLIPS)
def test_a_siglip_sees_the_texts_of_all_ranks(ranks, tmp_path, kind):
    compare(ranks, kind, *alone(kind, tmp_path), ["train/contrastive_loss"])


@pytest.mark.multi_rank
def test_codes_learn_from_the_parts_of_all_ranks_as_from_one_batch(ranks, tmp_path):
    module, batches = start_ranks.module_and_batches("in parts", tmp_path)
    recorder = toys.fit(module, toys.ToyData(joined(batches)), start_ranks.STEPS)
    compare(ranks, "in parts", module, recorder, [])


@pytest.mark.multi_rank
@pytest.mark.parametrize("kind", TOWERS)
def test_codes_learn_in_training_as_with_the_whole_batch(ranks, tmp_path, kind):
    module, recorder = alone(kind, tmp_path)
    losses = ["train/contrastive_loss", "train/l2_loss", "train/commitment_loss"]
    if kind == "by gradient":
        losses += ["train/codebook_loss", "train/entropy_loss"]
    compare(ranks, kind, module, recorder, losses)
    # Some code restarted at a vector of the batch, the same one everywhere.
    start = start_ranks.module_and_batches(kind, tmp_path / "again")[0]
    moved = module.tower.quantizer.codebook.weight - start.tower.quantizer.codebook.weight
    assert (moved.norm(dim=1) > 0.5).any()


@pytest.mark.multi_rank
@pytest.mark.parametrize("split", FOLDED)
def test_layers_start_from_the_code_vectors_of_all_ranks(ranks, split):
    whole = start_ranks.folded(slice(None), empty=False)
    for rank in ranks:
        assert rank[f"folded, {split}"].keys() == whole.keys()
        for name, expected in whole.items():
            torch.testing.assert_close(rank[f"folded, {split}"][name], expected)


@pytest.mark.multi_rank
def test_the_entropy_term_is_that_of_the_whole_batch(ranks):
    whole = start_ranks.entropy(slice(None))
    first, second = (rank["entropy"] for rank in ranks)
    # As data parallelism averages: losses and gradients of shared weights are means over ranks.
    for name in ("loss", "book"):
        torch.testing.assert_close((first[name] + second[name]) / 2, whole[name])
    torch.testing.assert_close(
        torch.cat([first["vectors"], second["vectors"]]) / 2, whole["vectors"]
    )


def test_a_siglip_refuses_parts_that_do_not_know_one_another(tmp_path):
    with pytest.raises(
        ConfigError, match="alignment.negatives is step.*write alignment.negatives: micro_batch"
    ):
        toys.fit(toys.clip(tmp_path), toys.pair_data(), 1, accumulate_grad_batches=2)  # fmt: skip


def test_a_siglip_learns_from_softmax_too(tmp_path):
    module = toys.clip(tmp_path, alignment={"loss": "softmax"})
    before = module.model.logit_bias.clone()
    recorder = toys.fit(module, toys.pair_data(), 3)
    sigmoid = toys.fit(toys.clip(tmp_path), toys.pair_data(), 3)
    assert torch.equal(module.model.logit_bias, before)
    assert recorder.losses[0] < 3.0 < sigmoid.losses[0]  # log 4 of chance; ten of the bias
