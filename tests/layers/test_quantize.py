import pytest
import torch
from torch import Tensor

from vilau.layers.quantize import ResidualQuantizer

B, P, Z, D, K = 3, 5, 8, 4, 16


def quantizer(**changes) -> ResidualQuantizer:
    torch.manual_seed(0)
    built = ResidualQuantizer(**{"depth": D, "codebook_size": K, "width": Z, **changes})
    with torch.no_grad():
        for d in range(1 if built.shared_codebook else built.depth):
            built.book(d).weight[K // 2 :] *= 0.3  # fine codes, so that later depths have work
    return built.eval()


def features(seed: int = 1) -> Tensor:
    return torch.randn(B, P, Z, generator=torch.Generator().manual_seed(seed))


def plain_loop(x: Tensor, book: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Equation 1 of the paper, one vector at a time, and the commitment loss as its definition."""
    codes = torch.zeros(B, P, D, dtype=torch.int64)
    sums = torch.zeros_like(x)
    partial_losses = [0.0] * D
    for b in range(B):
        for p in range(P):
            left = x[b, p].clone()
            for d in range(D):
                best = min(range(K), key=lambda k: float((left - book[k]).square().sum()))
                codes[b, p, d] = best
                sums[b, p] += book[best]
                left = left - book[best]
                partial_losses[d] += float((x[b, p] - sums[b, p]).square().sum())
    return codes, sums, torch.tensor(sum(partial_losses) / D / x.numel())


def test_equals_a_plain_loop_over_the_equations():
    layer, x = quantizer(), features()
    seen = layer(x)
    codes, sums, commitment = plain_loop(x, layer.codebook.weight)
    assert torch.equal(seen.codes, codes)
    assert torch.equal(seen.features, sums)
    torch.testing.assert_close(seen.commitment_loss, commitment)


def test_codes_stand_for_the_features_to_the_last_bit():
    layer, x = quantizer(), features()
    seen = layer(x)
    assert torch.equal(layer.embed(seen.codes), seen.features)
    sums = layer.embed_cumulative(seen.codes)
    assert sums.shape == (B, P, D, Z)
    for d in range(D):
        assert torch.equal(sums[..., d, :], layer.embed(seen.codes, upto=d + 1))


def test_residual_energy_is_the_share_left_and_falls():
    layer, x = quantizer(), features()
    seen = layer(x)
    assert seen.residual_energy.shape == (B, D)
    left = (x - layer.embed(seen.codes, upto=2)).square().sum(dim=(1, 2))
    torch.testing.assert_close(seen.residual_energy[:, 1], left / x.square().sum(dim=(1, 2)))
    mean = seen.residual_energy.mean(dim=0)
    assert (mean.diff() < 0).all()
    assert mean[0] < 1


def test_gradient_is_the_identity_plus_the_commitment():
    layer, x = quantizer(), features().requires_grad_()
    weights = torch.randn(B, P, Z)
    seen = layer(x)
    ((weights * seen.features).sum() + seen.commitment_loss).backward()
    pull = sum(2 * (x - layer.embed(seen.codes, upto=d + 1)) for d in range(D)) / (D * x.numel())
    torch.testing.assert_close(x.grad, weights + pull.detach())


def test_searches_in_float32_under_autocast():
    layer, x = quantizer(), features()
    plain = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = layer(x)
    assert torch.equal(plain.codes, mixed.codes)
    assert torch.equal(plain.features, mixed.features)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_codebook_stays_float32_in_a_model_of_another_dtype(dtype):
    layer, x = quantizer(), features()
    before = layer.codebook.weight.clone()
    layer.to(dtype)
    assert torch.equal(layer.codebook.weight, before)
    seen = layer(x.to(dtype))
    assert seen.features.dtype == dtype
    assert torch.equal(seen.features, layer.embed(seen.codes).to(dtype))
    assert torch.equal(seen.codes, quantizer()(x.to(dtype).float()).codes)


@pytest.mark.parametrize(("training", "moves"), [(True, True), (False, False)])
def test_codebook_moves_in_training_alone(training, moves):
    layer = quantizer().train(training)
    before = {name: b.clone() for name, b in layer.codebook.named_buffers()}
    layer(features())
    for name, buffer in layer.codebook.named_buffers():
        assert torch.equal(buffer, before[name]) is not moves, name


def test_nothing_of_the_codebook_is_trained_by_gradients():
    assert list(quantizer().parameters()) == []


def test_codes_alone_teach_nothing():
    layer, x = quantizer(), features()
    seen = layer(x)
    before = {name: b.clone() for name, b in layer.state_dict().items()}
    assert torch.equal(layer.train().encode(x), seen.codes)
    assert all(torch.equal(b, before[name]) for name, b in layer.state_dict().items())


@pytest.mark.parametrize("options", [{}, {"learning": "gradient"}, {"initialisation": "data"}])
@pytest.mark.parametrize("training", [False, True])
def test_nothing_to_quantise(training, options):
    layer = quantizer(**options).train(training)
    before = {name: b.clone() for name, b in layer.state_dict().items()}
    x = torch.zeros(0, P, Z, requires_grad=True)
    seen = layer(x)
    (seen.features.sum() + seen.commitment_loss).backward()
    assert seen.features.shape == (0, P, Z)
    assert seen.codes.shape == layer.encode(x).shape == (0, P, D)
    assert seen.residual_energy.shape == (0, D)
    assert float(seen.commitment_loss.detach()) == 0
    assert all(torch.equal(b, before[name]) for name, b in layer.state_dict().items())


@pytest.mark.parametrize(("depth", "codebook_size"), [(1, 16), (1, 1), (3, 1), (2, 200)])
def test_any_depth_and_codebook_size(depth, codebook_size):
    layer, x = quantizer(depth=depth, codebook_size=codebook_size).train(), features()
    for _ in range(2):
        seen = layer(x)
    assert seen.codes.shape == (B, P, depth)
    assert 0 <= int(seen.codes.min()) <= int(seen.codes.max()) < codebook_size
    assert seen.features.isfinite().all()
    layer.eval()
    seen = layer(x)
    assert torch.equal(layer.embed(seen.codes), seen.features)
