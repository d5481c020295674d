"""Codebooks per depth, learning by gradient, once per step, starts from data, the entropy term."""

import pytest
import torch
from torch import Tensor, nn

from tests.layers.test_quantize import D, K, Z, features, quantizer
from tests.models import tiny
from vilau.errors import ConfigError
from vilau.layers.pixels import to_float
from vilau.layers.quantize import ResidualQuantizer
from vilau.layers.quantized import Quantized
from vilau.models.vila_u.config import QuantizerConfig, TowerConfig
from vilau.models.vila_u.tower import VisionTower
from vilau.training.strategies import shard_module


def separate_books(layer: ResidualQuantizer) -> list[Tensor]:
    return [layer.book(d).weight.detach().clone() for d in range(D)]


def test_every_depth_has_a_codebook_of_its_own():
    layer, x = quantizer(shared_codebook=False), features()
    books, left = separate_books(layer), x.flatten(0, 1)
    seen = layer(x)
    for d, book in enumerate(books):
        codes = torch.cdist(left, book).argmin(dim=1)
        assert torch.equal(seen.codes[..., d].flatten(), codes)
        assert torch.equal(layer.vectors(seen.codes, d)[..., d, :].flatten(0, 1), book[codes])
        left = left - book[codes]
    assert torch.equal(layer.embed(seen.codes), seen.features)
    assert torch.equal(layer.encode(x), seen.codes)
    names = [
        f"codebooks.{d}.{n}" for d in range(D) for n in ("weight", "embed_ema", "cluster_size_ema")
    ]
    assert set(layer.state_dict()) == set(names)


def test_separate_codebooks_learn_from_their_own_residuals():
    layer = quantizer(shared_codebook=False, restart_unused_codes=False, decay=0.9).train()
    x = features()
    before, left = separate_books(layer), x.flatten(0, 1)
    averages = [layer.book(d).embed_ema.clone() for d in range(D)]
    seen = layer(x)
    for d in range(D):
        codes, book = seen.codes[..., d].flatten(), layer.book(d)
        counts = torch.bincount(codes, minlength=K).float()
        torch.testing.assert_close(book.cluster_size_ema, 0.1 * counts)
        sums = torch.zeros(K, Z).index_add(0, codes, left)
        torch.testing.assert_close(book.embed_ema, 0.9 * averages[d] + 0.1 * sums)
        left = left - before[d][codes]


def test_one_update_from_all_depths():
    """Every depth searches the same table, and it moves once, by the residuals of all."""
    layer, x = quantizer(update="per_step", restart_unused_codes=False, decay=0.9), features()
    expected, book = layer(x), layer.codebook.weight.clone()
    averages = layer.codebook.embed_ema.clone()
    seen = layer.train()(x)
    assert torch.equal(seen.codes, expected.codes)
    assert torch.equal(seen.features, expected.features)
    sums, counts, left = torch.zeros(K, Z), torch.zeros(K), x.flatten(0, 1)
    for d in range(D):
        codes = seen.codes[..., d].flatten()
        sums, counts = sums.index_add(0, codes, left), counts + torch.bincount(codes, minlength=K)
        left = left - book[codes]
    torch.testing.assert_close(layer.codebook.cluster_size_ema, 0.1 * counts)
    torch.testing.assert_close(layer.codebook.embed_ema, 0.9 * averages + 0.1 * sums)


def test_codes_learnt_by_gradient_are_pulled_to_their_residuals():
    layer, x = quantizer(learning="gradient").train(), features().requires_grad_()
    book = layer.codebook.weight.detach().clone()
    seen = layer(x)
    assert seen.codebook_loss is not None
    (pull,) = torch.autograd.grad(seen.codebook_loss, layer.codebook.weight, retain_graph=True)
    expected, left = torch.zeros(K, Z), x.detach().flatten(0, 1)
    for d in range(D):
        codes = seen.codes[..., d].flatten()
        expected.index_add_(0, codes, 2 * (book[codes] - left) / (left.numel() * D))
        left = left - book[codes]
    torch.testing.assert_close(pull, expected)
    torch.testing.assert_close(seen.codebook_loss, seen.commitment_loss)
    # Nothing but the codebook loss moves the codes, and it moves nothing else.
    seen.features.sum().backward()
    assert layer.codebook.weight.grad is None
    torch.testing.assert_close(x.grad, torch.ones_like(x))


@pytest.mark.parametrize("restart", [False, True])
def test_codes_learnt_by_gradient_restart(restart):
    layer = quantizer(learning="gradient", depth=1, restart_unused_codes=restart).train()
    with torch.no_grad():
        layer.codebook.weight[K // 2 :] += 100
    before = layer.codebook.weight.detach().clone()
    x = features()
    layer(x)
    moved = (layer.codebook.weight != before).any(dim=1)
    assert moved.all() == restart
    if restart:
        nearest = torch.cdist(layer.codebook.weight.detach(), x.flatten(0, 1)).amin(dim=1)
        assert float(nearest.max()) < 0.1  # each is a vector of the batch but for the noise
        assert (layer.codebook.cluster_size_ema >= 1).all()
    else:
        assert not moved.any()


def perplexity(seen: Quantized, depth: int, codes: int) -> float:
    shares = (
        torch.bincount(seen.codes[..., depth].flatten(), minlength=codes)
        / seen.codes[..., 0].numel()
    )
    return float(torch.special.entr(shares).sum().exp())


@pytest.mark.parametrize("options", [{}, {"shared_codebook": False}, {"learning": "gradient"}])
def test_codes_that_start_from_data_serve_vectors_far_from_zero(options):
    """With a large common vector and no restarts, codes from N(0, 1) collapse onto it."""
    far = 5 * torch.randn(Z) + torch.randn(8, 64, Z) * torch.logspace(0, -1, Z)
    found = {}
    for start in ("normal", "data"):
        layer = quantizer(
            codebook_size=64, depth=2, restart_unused_codes=False, initialisation=start, **options
        )
        layer.train()
        for _ in range(3):
            layer(far)
        found[start] = perplexity(layer.eval()(far), 0, 64)
    assert found["normal"] < 6
    assert found["data"] > 20


def test_codes_start_from_data_once():
    layer = quantizer(
        initialisation="data", codebook_size=6, depth=3, decay=1.0, restart_unused_codes=False
    ).train()  # no decay: what is looked at is the start alone
    x = features()
    layer(x)
    book = layer.codebook.weight.clone()
    first, left = book[:2], x.flatten(0, 1)
    assert (torch.cdist(first, left[0::3]).amin(dim=1) < 0.1).all()  # depth 1: vectors themselves
    left = left - first[torch.cdist(left, first).argmin(dim=1)]
    assert (torch.cdist(book[2:4], left[1::3]).amin(dim=1) < 0.1).all()  # depth 2: what is left
    layer(x + 10)
    torch.testing.assert_close(layer.codebook.weight, book)
    again = quantizer(initialisation="data", codebook_size=6, depth=3).train()
    again.load_state_dict(layer.state_dict())
    assert bool(again.initialised)


def test_towers_saved_before_there_were_options_load():
    names = {"codebook.weight", "codebook.cluster_size_ema", "codebook.embed_ema"}
    assert set(quantizer().state_dict()) == names
    state = {name: torch.rand_like(b) for name, b in quantizer().state_dict().items()}
    layer = quantizer(update="per_step", search="published", entropy=True)
    layer.load_state_dict(state)
    assert torch.equal(layer.codebook.embed_ema, state["codebook.embed_ema"])


def test_codes_learnt_by_gradient_stay_float32():
    layer = quantizer(learning="gradient")
    before = layer.codebook.weight.detach().clone()
    assert torch.equal(layer.to(torch.bfloat16).codebook.weight, before)
    half = {name: b.bfloat16() for name, b in layer.state_dict().items()}
    layer.load_state_dict(half, assign=True)
    assert layer.codebook.weight.dtype == torch.float32
    assert isinstance(layer.codebook.weight, nn.Parameter)
    layer(features().bfloat16())


def test_the_entropy_term_is_that_of_the_residuals():
    layer, x = quantizer(entropy=True, entropy_temperature=0.5).train(), features().requires_grad_()
    seen = layer(x)
    assert seen.entropy_loss is not None
    assert -torch.tensor(K).log() < seen.entropy_loss < 0
    (pull,) = torch.autograd.grad(seen.entropy_loss, x)
    assert pull.isfinite().all()
    assert (pull.abs().amax(dim=-1) > 0).all()
    assert quantizer()(x).entropy_loss is None


@pytest.mark.parametrize("change", [{}, {"restart_unused_codes": False, "initialisation": "data"}])
def test_trained_codes_that_are_overwritten_cannot_be_sharded(change):
    module = nn.Sequential(quantizer(learning="gradient", **change))
    with pytest.raises(
        ConfigError, match="codes learn by gradient.*shards them; write restart_unused"
    ):
        shard_module(module, [], mesh=None)
    assert not quantizer(learning="gradient", restart_unused_codes=False).overwrites_parameters
    assert not quantizer(initialisation="data").overwrites_parameters


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"search": "bf16"}, "quantizer.search is 'bf16'; write float32 or published"),
        ({"learning": "adam"}, "quantizer.learning is 'adam'; write ema or gradient"),
        ({"update": "never"}, "quantizer.update is 'never'; write per_depth or per_step"),
        ({"initialisation": "k"}, "quantizer.initialisation is 'k'; write normal or data"),
        ({"decay": 1.0}, "quantizer.decay is 1.0; write 0 or more, below 1"),
        ({"entropy_temperature": 0.0}, "quantizer.entropy_temperature is 0.0; write more than 0"),
    ],
)
def test_a_wrong_option_is_told(setting, message):
    with pytest.raises(ConfigError, match=message):
        QuantizerConfig(**setting)


@pytest.mark.parametrize(
    "options",
    [
        {"shared_codebook": False, "initialisation": "data"},
        {"learning": "gradient", "entropy": True, "update": "per_step"},
    ],
)
def test_options_go_with_the_tower(tmp_path, options):
    torch.manual_seed(0)
    config = TowerConfig(vars(tiny.sizes()), tiny.quantizer(**options), tiny.decoder())
    tower, pixels = VisionTower(config), to_float(tiny.images(2))
    tower.train()(pixels)
    tower.eval().save(tmp_path)
    loaded = VisionTower.load(tmp_path).eval()
    assert loaded.config.quantizer == config.quantizer
    codes = tower.encode(pixels)
    assert torch.equal(loaded.encode(pixels), codes)
    assert torch.equal(loaded.decode(codes), tower(pixels).images)
    assert torch.equal(loaded.embed(codes), tower.quantize(pixels).features)


def test_a_tower_config_from_before_there_were_options():
    old = TowerConfig(vars(tiny.sizes()), tiny.quantizer(), tiny.decoder()).to_dict()
    kept = ("depth", "codebook_size", "decay", "restart_unused_codes")
    old["quantizer"] = {key: old["quantizer"][key] for key in kept}
    assert TowerConfig.from_dict(old).quantizer == tiny.quantizer()
