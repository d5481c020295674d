"""Every search finds the nearest codes: plain, blocked, in chunks, by the Gram matrix."""

import copy
import pickle

import pytest
import torch
from torch import Tensor

from vilau.layers import gram, nearest
from vilau.layers.gram import GramSearch
from vilau.layers.quantize import ResidualQuantizer


def plain_search(vectors: Tensor, book: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """Codes by float64 distances, and how far the second nearest was behind, relatively."""
    left, codes, margins = vectors, [], []
    for _ in range(depth):
        distances = torch.cdist(left.double(), book.double()).square()
        best = distances.topk(min(2, len(book)), dim=1, largest=False)
        codes.append(distances.argmin(dim=1))
        left = left - book[codes[-1]]
        margins.append((best.values[:, -1] - best.values[:, 0]) / vectors.square().sum(dim=1))
    return torch.stack(codes, dim=1), torch.stack(margins, dim=1)


def data(
    num_vectors: int, num_codes: int, width: int, *, mean: float = 0.0
) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    book = torch.randn(num_codes, width) * torch.logspace(0, -1.5, num_codes)[:, None]
    common = mean * torch.randn(width)
    book[:3] += common
    return torch.randn(num_vectors, width) + common, book


@pytest.mark.parametrize(
    ("num_codes", "width", "depth", "mean"),
    [(1, 3, 2, 0.0), (3, 5, 4, 0.0), (64, 16, 4, 0.0), (200, 33, 8, 0.0), (512, 96, 16, 0.0), (512, 64, 4, 30.0)],
)  # fmt: skip
def test_one_pass_finds_the_codes_of_a_search_per_depth(num_codes, width, depth, mean):
    vectors, book = data(500, num_codes, width, mean=mean)
    codes, margins = plain_search(vectors, book, depth)
    found = GramSearch().codes(vectors, book, depth=depth)
    # A vector whose choice is a tie in float32 may leave on another path; there are next to none.
    clear = (margins > 1e-7).cummin(dim=1).values | torch.tensor(num_codes == 1)
    assert clear.float().mean() > 0.99
    assert torch.equal(found[clear], codes[clear])
    assert found.max() < num_codes


def test_scores_that_lost_their_precision_are_made_anew():
    """Vectors much larger than what the codes still have to tell apart."""
    torch.manual_seed(0)
    book = torch.cat([20_000 * torch.randn(1, 32), torch.randn(127, 32)])
    vectors = book[:1] + torch.randn(300, 32)
    codes, margins = plain_search(vectors, book, 3)
    found = GramSearch().codes(vectors, book, depth=3)
    assert torch.equal(found[:, :2], codes[:, :2])
    assert (found == codes).float().mean() > 0.99
    drifted = (
        torch.addmm(book.square().sum(dim=1), vectors, book.t(), alpha=-2.0) + 2 * book @ book[0]
    )
    assert (drifted.argmin(dim=1) != codes[:, 1]).any()  # what the scores alone would have said


@pytest.mark.parametrize("num_codes", [3, 256])
def test_ties_go_to_the_first_code_at_every_depth(num_codes):
    torch.manual_seed(0)
    once = torch.randn(num_codes, 8)
    book = once.repeat_interleave(2, dim=0)
    found = GramSearch().codes(torch.randn(50, 8), book, depth=4)
    assert (found % 2 == 0).all()
    nothing = GramSearch().codes(torch.randn(50, 8), torch.zeros(num_codes, 8), depth=3)
    assert not nothing.any()


@pytest.mark.parametrize("shape", [(5, 1), (7, 63), (3, 64), (9, 128), (2, 4096)])
def test_blocks_find_the_lowest_score(shape):
    torch.manual_seed(0)
    scores = torch.randint(0, 50, shape).float()
    assert torch.equal(nearest.lowest(scores), scores.argmin(dim=1))
    scores[0, -1] = torch.nan
    assert torch.equal(nearest.lowest(scores), scores.argmin(dim=1))


def test_chunks_change_nothing(monkeypatch):
    vectors, book = data(90, 130, 16)
    whole = nearest.nearest(vectors, book)
    published = nearest.nearest_as_published(vectors.bfloat16(), book.bfloat16())
    depths = GramSearch().codes(vectors, book, depth=5)
    for module, name in ((nearest, "SCORE_BYTES"), (gram, "SCORE_BYTES"), (gram, "CACHE_BYTES")):
        monkeypatch.setattr(module, name, 20_000)
    assert torch.equal(nearest.nearest(vectors, book), whole)
    assert torch.equal(nearest.nearest_as_published(vectors.bfloat16(), book.bfloat16()), published)
    assert torch.equal(GramSearch().codes(vectors, book, depth=5), depths)


def test_the_published_formula_rounds_every_term():
    vectors, book = (tensor.bfloat16() for tensor in data(200, 300, 32))
    squares = vectors.square().sum(dim=1)[:, None] + book.square().sum(dim=1)
    exact = torch.cdist(vectors.double(), book.double()).square()
    found = nearest.nearest_as_published(vectors, book)
    distances = torch.addmm(squares, vectors, book.t(), alpha=-2.0)
    assert torch.equal(found, distances.argmin(dim=1))
    assert 0.5 < (found == exact.argmin(dim=1)).float().mean() < 1


def test_the_matrix_is_made_when_it_pays_and_forgotten_with_its_codebook():
    vectors, book = data(20, 96, 8)
    search = GramSearch()
    assert not search.pays(book, num_vectors=20, depth=3)  # saves 40 searches, costs 96
    assert not search.pays(book, num_vectors=20, depth=3)
    assert search.pays(book, num_vectors=20, depth=3)
    assert torch.equal(search.codes(vectors, book, depth=3), plain_search(vectors, book, 3)[0])
    assert search.pays(book, num_vectors=1, depth=3)  # it is there
    book.mul_(-1)
    assert not search.pays(book, num_vectors=1, depth=3)
    assert search.pays(book, num_vectors=100, depth=3)
    assert torch.equal(search.codes(vectors, book, depth=3), plain_search(vectors, book, 3)[0])
    assert not search.pays(book.clone(), num_vectors=1, depth=3)
    assert not search.pays(book, num_vectors=10**9, depth=1)
    assert not search.pays(torch.empty(30_000, 1), num_vectors=10**9, depth=4)  # too large to keep
    trained = torch.nn.Parameter(book)  # may change without telling
    assert search.pays(trained, num_vectors=50, depth=3)
    assert not search.pays(trained, num_vectors=1, depth=3)


def test_a_quantiser_searches_by_the_matrix_until_its_codebook_moves():
    torch.manual_seed(0)
    layer = ResidualQuantizer(depth=4, codebook_size=64, width=8).eval()
    x = torch.randn(4, 25, 8)
    assert layer._gram.pays(layer.codebook.weight, num_vectors=100, depth=4)
    for _ in range(2):
        codes, _ = plain_search(x.flatten(0, 1), layer.codebook.weight, 4)
        assert torch.equal(layer.encode(x).flatten(0, 1), codes)
        assert torch.equal(layer(x).codes.flatten(0, 1), codes)
        assert layer._gram._table is not None
        layer.train()(x)
        assert layer._gram._table is None
        layer.eval()
    layer.encode(x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other._gram._table is None
        assert torch.equal(other.encode(x), layer.encode(x))
    layer.load_state_dict({n: -b for n, b in layer.state_dict().items()})
    assert torch.equal(layer.encode(x), copy.deepcopy(layer).encode(x))


@pytest.mark.parametrize(
    ("library", "product", "lower"),
    [("mkldnn", "matmul", "bf16"), ("mkldnn", "conv", "bf16"), ("cudnn", "conv", "tf32"), ("cuda", "matmul", "tf32")],
)  # fmt: skip
def test_products_are_float32_whatever_the_process_prefers(library, product, lower):
    backend = getattr(getattr(torch.backends, library), product)
    before = backend.fp32_precision
    try:
        backend.fp32_precision = lower
        with nearest.full_float32():
            assert backend.fp32_precision == "ieee"
        assert backend.fp32_precision == lower
    finally:
        backend.fp32_precision = before
