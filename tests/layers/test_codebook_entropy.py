import math

import pytest
import torch
from torch import Tensor

from vilau.layers import code_entropy as module
from vilau.layers.code_entropy import code_entropy

K, Z = 12, 5


def vectors_and_book(num: int = 40) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(num, Z), torch.randn(K, Z)


def defined(vectors: Tensor, book: Tensor, temperature: float) -> Tensor:
    """The two entropies as they are written down, in float64, vector by vector."""
    squares = torch.cdist(vectors.double(), book.double()).square()
    unit = squares.std(dim=1, correction=0).mean()
    choices = [torch.softmax(-row / (unit * temperature), dim=0) for row in squares]
    sure = torch.stack([-(p * p.log()).sum() for p in choices]).mean()
    mean = torch.stack(choices).mean(dim=0)
    return sure + (mean * mean.log()).sum()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("chunk", [2**28, 500])
def test_equals_its_definition_in_chunks_too(monkeypatch, temperature, chunk):
    monkeypatch.setattr(module, "SCORE_BYTES", chunk)
    vectors, book = (tensor.requires_grad_() for tensor in vectors_and_book())
    found = code_entropy(vectors, book, temperature=temperature)
    with torch.no_grad():
        expected = defined(vectors, book, temperature)
    torch.testing.assert_close(found.detach(), expected.float())
    assert -math.log(K) < float(found.detach()) < 0
    found.backward()
    assert vectors.grad is not None
    for row in (0, 7):  # against differences, at the fixed unit of the definition
        squares = torch.cdist(vectors.detach().double(), book.detach().double()).square()
        unit = squares.std(dim=1, correction=0).mean() * temperature

        def at(step: float, row: int = row, unit: Tensor = unit) -> Tensor:
            moved = vectors.detach().double().clone()
            moved[row, 1] += step
            scores = torch.cdist(moved, book.detach().double()).square()
            p = (-scores / unit).softmax(dim=1)
            return torch.special.entr(p).sum(dim=1).mean() - torch.special.entr(p.mean(dim=0)).sum()

        slope = (at(1e-4) - at(-1e-4)) / 2e-4
        torch.testing.assert_close(vectors.grad[row, 1], slope.float(), rtol=1e-3, atol=1e-6)


def test_its_two_ends():
    book = 100 * torch.eye(Z)
    sure = book.repeat(4, 1) + 0.01 * torch.randn(4 * Z, Z)
    expected = torch.tensor(-math.log(Z))
    torch.testing.assert_close(code_entropy(sure, book, temperature=0.1), expected)
    collapsed = book[:1] + 0.01 * torch.randn(20, Z)
    assert abs(float(code_entropy(collapsed, book, temperature=0.1))) < 1e-6


def test_no_scale_of_the_features_is_preferred():
    vectors, book = vectors_and_book()
    small = code_entropy(vectors, book)
    torch.testing.assert_close(
        code_entropy(1000 * vectors, 1000 * book), small, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("num", "codes"), [(0, K), (6, 1)])
def test_without_a_choice(num, codes):
    assert abs(float(code_entropy(torch.randn(num, Z), torch.randn(codes, Z)))) < 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_descent_undoes_a_collapse(seed):
    """Without anything else to pull them apart, vectors near one code spread over several."""
    torch.manual_seed(seed)
    book = torch.randn(K, Z)
    vectors = (0.3 * torch.randn(200, Z) + book[0]).requires_grad_()
    book.requires_grad_()
    optimizer = torch.optim.Adam([vectors, book], lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        code_entropy(vectors, book).backward()
        optimizer.step()
    shares = torch.bincount(torch.cdist(vectors, book).argmin(dim=1), minlength=K) / 200
    assert float(torch.special.entr(shares).sum().exp()) > 4  # effective number of codes


def test_codes_that_nothing_chooses_give_finite_gradients():
    vectors = torch.randn(20, Z, requires_grad=True)
    code_entropy(vectors, 1e4 * torch.eye(K, Z), temperature=1e-6).backward()
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()
