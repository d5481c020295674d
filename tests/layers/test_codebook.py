import pytest
import torch
from torch import Tensor

from vilau.layers.codebook import EmaCodebook
from vilau.layers.quantize import ResidualQuantizer

K, Z, DECAY = 12, 4, 0.9


def slow_step(book: dict[str, Tensor], vectors: Tensor, *, restart: bool) -> Tensor:
    """One update as RQ-VAE defines it, code by code; returns the codes."""
    codes = torch.cdist(vectors, book["weight"]).argmin(dim=1)
    for k in range(K):
        mine = vectors[codes == k]
        book["size"][k] = DECAY * book["size"][k] + (1 - DECAY) * len(mine)
        book["sum"][k] = DECAY * book["sum"][k] + (1 - DECAY) * mine.sum(dim=0)
    if restart:
        pool = vectors
        if len(pool) < K:
            pool = pool.repeat(-(-K // len(pool)), 1)
            pool = pool + torch.rand_like(pool) * 0.01 / Z**0.5
        pool = pool[torch.randperm(len(pool))[:K]]
        for k in range(K):
            if book["size"][k] < 1:
                book["sum"][k], book["size"][k] = pool[k], 1.0
    total = book["size"].sum()
    for k in range(K):
        book["weight"][k] = book["sum"][k] / (total * (book["size"][k] + 1e-5) / (total + K * 1e-5))
    return codes


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("num_vectors", [7, 40])  # fewer than codes: candidates are tiled
def test_updates_follow_the_definition(restart, num_vectors):
    torch.manual_seed(0)
    book = EmaCodebook(num_codes=K, width=Z, decay=DECAY, restart_unused_codes=restart)
    book.cluster_size_ema.uniform_(0, 3)
    slow = {
        "weight": book.weight.clone(),
        "size": book.cluster_size_ema.clone(),
        "sum": book.embed_ema.clone(),
    }
    for step in range(3):
        vectors = torch.randn(num_vectors, Z)
        torch.manual_seed(step)
        codes = book.nearest(vectors)
        book.update(vectors, codes)
        torch.manual_seed(step)
        assert torch.equal(slow_step(slow, vectors, restart=restart), codes)
        torch.testing.assert_close(book.weight, slow["weight"])
        torch.testing.assert_close(book.cluster_size_ema, slow["size"])
        torch.testing.assert_close(book.embed_ema, slow["sum"])


def test_each_depth_updates_the_shared_book_with_its_residuals():
    torch.manual_seed(0)
    layer = ResidualQuantizer(
        depth=2, codebook_size=K, width=Z, decay=DECAY, restart_unused_codes=False
    ).train()
    layer.codebook.cluster_size_ema.fill_(2.0)
    book = {
        "weight": layer.codebook.weight.clone(),
        "size": layer.codebook.cluster_size_ema.clone(),
        "sum": layer.codebook.embed_ema.clone(),
    }
    x = torch.randn(20, 1, Z)
    seen = layer(x)
    left = x[:, 0]
    for d in range(2):
        looked_up = book["weight"].clone()  # before the table moves
        codes = slow_step(book, left, restart=False)
        assert torch.equal(seen.codes[:, 0, d], codes)
        left = left - looked_up[codes]
    torch.testing.assert_close(layer.codebook.weight, book["weight"])
    torch.testing.assert_close(seen.features[:, 0], x[:, 0] - left)


def test_restart_replaces_codes_that_nothing_is_near():
    torch.manual_seed(0)
    book = EmaCodebook(num_codes=K, width=Z, decay=0.5)
    book.weight[:] = 100.0 + torch.arange(K)[:, None]
    vectors = torch.randn(50, Z)
    book.update(vectors, book.nearest(vectors))
    assert (book.weight.abs() < 10).all()
    assert len(book.nearest(vectors).unique()) > K // 2


def test_ties_go_to_the_first_code():
    book = EmaCodebook(num_codes=3, width=2)
    book.weight[:] = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    assert book.nearest(torch.tensor([[0.9, 0.0], [0.0, 0.0]])).tolist() == [0, 0]


def published_step(book: EmaCodebook, vectors: Tensor) -> Tensor:
    """One depth as the published code computes it, on whole matrices; returns the codes."""
    scores = torch.addmm(book.weight.square().sum(dim=1), vectors, book.weight.t(), alpha=-2.0)
    codes, (num_codes, width) = scores.argmin(dim=1), book.weight.shape
    counts = torch.bincount(codes, minlength=num_codes).float()
    sums = torch.zeros_like(book.weight).index_add_(0, codes, vectors)
    book.cluster_size_ema.mul_(book.decay).add_(counts, alpha=1 - book.decay)
    book.embed_ema.mul_(book.decay).add_(sums, alpha=1 - book.decay)
    if book.restart_unused_codes:
        if len(vectors) < num_codes:
            vectors = vectors.repeat(-(-num_codes // len(vectors)), 1)
            vectors = vectors + torch.rand_like(vectors) * (0.01 / width**0.5)
        candidates = vectors[torch.randperm(len(vectors))[:num_codes]]
        unused = (book.cluster_size_ema < 1)[:, None]
        book.embed_ema.copy_(torch.where(unused, candidates, book.embed_ema))
        book.cluster_size_ema.clamp_(min=1)
    total = book.cluster_size_ema.sum()
    sizes = total * (book.cluster_size_ema + 1e-5) / (total + num_codes * 1e-5)
    book.weight.copy_(book.embed_ema / sizes[:, None])
    return codes


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(("num_codes", "width", "num_vectors"), [(64, 48, 200), (130, 33, 40)])
def test_what_is_saved_in_work_changes_no_bit(num_codes, width, num_vectors, restart):
    """Runs that were started before go on with the same numbers and the same random state."""
    torch.manual_seed(0)
    layer = ResidualQuantizer(
        depth=3, codebook_size=num_codes, width=width, restart_unused_codes=restart
    ).train()
    plain = EmaCodebook(num_codes=num_codes, width=width, restart_unused_codes=restart)
    layer.codebook.cluster_size_ema.uniform_(0, 3)
    plain.load_state_dict(layer.codebook.state_dict())
    for step in range(3):
        x = torch.randn(num_vectors, 1, width) + 2
        torch.manual_seed(step)
        seen, state = layer(x), torch.get_rng_state()
        torch.manual_seed(step)
        left = x[:, 0]
        for d in range(3):
            looked_up = plain.weight.clone()
            codes = published_step(plain, left)
            assert torch.equal(seen.codes[:, 0, d], codes)
            left = left - looked_up[codes]
        assert torch.equal(torch.get_rng_state(), state)
        for name, buffer in plain.named_buffers():
            assert torch.equal(layer.codebook.get_buffer(name), buffer), name
