"""VAR's quantiser over scales (reference A1.2, A1.3)."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from vilau.errors import ConfigError, DataError
from vilau.layers.multiscale import MultiScaleQuantizer
from vilau.layers.refinements import shared_refinements
from vilau.models.vargpt.config import SCALES


def quantizer(scales=(1, 2, 3, 4), **changes):
    torch.manual_seed(0)
    settings = {"codebook_size": 64, "width": 8, "num_refinements": 3, **changes}
    return MultiScaleQuantizer(scales=scales, **settings)


def features(batch=5, side=4, width=8):
    return torch.randn(batch, width, side, side, generator=torch.Generator().manual_seed(1))


def coded(model, given):
    """Codes ``(B, P)`` of features, and what they stand for."""
    found = model(given)
    return SimpleNamespace(codes=found.codes[..., 0], features=found.features)


def by_the_paper(model, rest):
    """Algorithm 1, step by step: codes of each scale and what all stand for."""
    full, codes, total = model.scales[-1], [], 0
    for side, chosen in zip(model.scales, model.chosen, strict=True):
        small = rest if side == full else F.interpolate(rest, (side, side), mode="area")
        distances = torch.cdist(small.permute(0, 2, 3, 1).reshape(-1, 8), model.codebook.weight)
        index = distances.argmin(dim=1).view(len(rest), side, side)
        h = model.codebook.weight[index].permute(0, 3, 1, 2)
        h = h if side == full else F.interpolate(h, (full, full), mode="bicubic")
        conv = model.refinements[chosen]
        h = 0.5 * h + 0.5 * F.conv2d(h, conv.weight, conv.bias, padding=1)
        total, rest = total + h, rest - h
        codes.append(index.flatten(1))
    return torch.cat(codes, dim=1), total


def test_codes_are_those_of_the_papers_algorithm():
    model, given = quantizer(), features()
    found = model(given)
    codes, total = by_the_paper(model, given)
    assert found.codes.shape == (5, 1 + 4 + 9 + 16, 1)
    assert found.codes.dtype == torch.int64
    assert torch.equal(found.codes[..., 0], codes)
    assert torch.equal(model.encode(given), codes)
    torch.testing.assert_close(found.features, total, atol=1e-5, rtol=1e-5)
    assert model.num_cells == 30


def test_codes_stand_for_what_encoding_left():
    model = quantizer()
    found = coded(model, features())
    torch.testing.assert_close(model.features(found.codes), found.features, atol=1e-6, rtol=1e-6)
    # Any prefix of the scales does not look at the codes behind it.
    changed = found.codes.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % 64
    assert torch.equal(model.features(changed, upto=2), model.features(found.codes, upto=2))
    assert not torch.equal(model.features(changed, upto=3), model.features(found.codes, upto=3))


@pytest.mark.parametrize("scales", [(1, 2, 3, 4), (2, 3, 4)])
def test_a_model_is_shown_what_the_coarser_scales_stand_for(scales):
    model = quantizer(scales)
    codes = model.encode(features())
    shown = model.shown(codes)
    cells = [side * side for side in scales]
    assert shown.shape == (5, sum(cells[1:]), 8)
    maps = shown.split(cells[1:], dim=1)
    for scale, side in enumerate(scales[1:], start=1):
        coarser = model.features(codes, upto=scale)
        small = F.interpolate(coarser, (side, side), mode="area")
        expected = small.permute(0, 2, 3, 1).reshape(5, side * side, 8)
        torch.testing.assert_close(maps[scale - 1], expected)
        # The codes of a scale say nothing of what its own cells are shown, but much to the finer ones.
        changed = codes.clone()
        begin = sum(cells[:scale])
        changed[:, begin : begin + cells[scale]] += 1
        again = model.shown(changed % 64).split(cells[1:], dim=1)
        same = [torch.equal(a, b) for a, b in zip(maps, again, strict=True)]
        assert same == [number <= scale for number in range(1, len(scales))]


def test_scale_by_scale_a_model_is_shown_the_same():
    model = quantizer()
    found = coded(model, features())
    maps = model.shown(found.codes).split([4, 9, 16], dim=1)
    total = None
    for scale, codes in enumerate(found.codes.split([1, 4, 9, 16], dim=1)):
        if total is not None:
            assert torch.equal(model.shown_to(total, scale), maps[scale - 1])
        total = model.grown(total, codes, scale)
    torch.testing.assert_close(total, found.features, atol=1e-6, rtol=1e-6)


def test_what_is_shown_teaches_the_codes():
    """Gradients reach the codebook and the refinements, where somebody wants them."""
    model = quantizer()
    codes = model.encode(features())
    model.shown(codes).square().sum().backward()
    assert model.codebook.weight.grad.any()
    assert model.refinements[0].weight.grad.any()


@pytest.mark.parametrize(
    ("size", "cells", "refinements"),
    [
        (256, 680, [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]),
        (512, 2240, [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]),
        (1024, 9451, [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3]),
    ],
)
def test_the_published_scales(size, cells, refinements):
    assert sum(side * side for side in SCALES[size]) == cells
    assert shared_refinements(len(SCALES[size]), 4) == refinements


def test_one_refinement_for_all_and_one_for_each():
    assert shared_refinements(5, 1) == [0] * 5
    assert shared_refinements(6, 6) == list(range(6))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_everything_is_computed_in_float32(dtype):
    model, given = quantizer(), features()
    expected = coded(model, given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = coded(model, given)
    assert torch.equal(found.codes, expected.codes)
    assert torch.equal(found.features, expected.features)
    shown, first = model.shown(found.codes), model.grown(None, found.codes[:, :1], 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model.shown(found.codes), shown)
        assert torch.equal(model.grown(None, found.codes[:, :1], 0), first)
    narrow = model.to(dtype)
    assert narrow.codebook.weight.dtype == torch.float32
    assert narrow.features(found.codes).dtype == torch.float32
    assert narrow.shown(found.codes).dtype == torch.float32
    total = narrow.grown(narrow.grown(None, found.codes[:, :1], 0), found.codes[:, 1:5], 1)
    assert total.dtype == narrow.shown_to(total, 2).dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"scales": (1, 2, 2)}, r"tokenizer.scales is \[1, 2, 2\]; write the sides of two grids or more, growing"),
        ({"scales": (4,)}, r"tokenizer.scales is \[4\]"),
        ({"scales": (0, 4)}, r"tokenizer.scales is \[0, 4\]"),
        ({"num_refinements": 0}, "tokenizer.num_refinements is 0; write 1 or more"),
    ],
)  # fmt: skip
def test_what_makes_no_quantizer(changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        quantizer(**changes)


def test_codes_of_other_shapes_are_refused():
    model = quantizer()
    codes = model.encode(features())
    with pytest.raises(DataError, match=r"codes have the shape \(5, 29\); give \(images, 30\)"):
        model.features(codes[:, 1:])
    with pytest.raises(DataError, match=r"codes have the shape \(5, 29\); give \(images, 30\)"):
        model.shown(codes[:, 1:])
    for upto in (0, 5):
        with pytest.raises(
            ConfigError, match=f"upto is {upto}; write a number of scales from 1 to 4"
        ):
            model.features(codes, upto=upto)


def test_scales_of_other_shapes_are_refused():
    model = quantizer()
    codes = model.encode(features())
    total = model.grown(None, codes[:, :1], 0)
    sentence = r"codes of scale 1 have the shape \(5, 9\); give \(images, 4\)"
    with pytest.raises(DataError, match=sentence):
        model.grown(total, codes[:, 5:14], 1)
    sentence = (
        r"the sum of the scales has the shape \(5, 8, 4, 3\); give \(images, 8, 4, 4\), as grown"
    )
    with pytest.raises(DataError, match=sentence):
        model.grown(total[..., :3], codes[:, 1:5], 1)
    with pytest.raises(DataError, match=sentence):
        model.shown_to(total[..., :3], 1)
    for scale in (-1, 4):
        with pytest.raises(ConfigError, match=f"scale is {scale}; write a number from 0 to 3"):
            model.grown(total, codes[:, :1], scale)
    for scale in (0, 4):
        with pytest.raises(ConfigError, match=f"scale is {scale}; write a number from 1 to 3"):
            model.shown_to(total, scale)


# ---------------------------------------------------------------------- learning


def losses_by_the_paper(model, given):
    """VAR's: after each scale the distance of the sum so far, to either side (reference A1.4)."""
    codes = model.encode(given)
    ends, total, commitment, fit = 0, None, [], []
    for number, side in enumerate(model.scales):
        total = model.grown(total, codes[:, ends : ends + side * side], number)
        ends += side * side
        commitment.append(F.mse_loss(given, total.detach()))
        fit.append(F.mse_loss(total, given.detach()))
    return torch.stack(commitment).mean(), torch.stack(fit).mean(), total


def test_losses_and_gradients_are_those_of_vars_code():
    model, given = quantizer().train(), features().requires_grad_()
    found = model(given)
    commitment, fit, total = losses_by_the_paper(model, given)
    torch.testing.assert_close(found.commitment_loss, commitment)
    torch.testing.assert_close(found.codebook_loss, fit)
    weights = [model.codebook.weight, *model.refinements.parameters()]
    for loss, expected in ((found.commitment_loss, commitment), (found.codebook_loss, fit)):
        ours, theirs = (
            torch.autograd.grad(one, [given, *weights], retain_graph=True, allow_unused=True)
            for one in (loss, expected)
        )
        for a, b in zip(ours, theirs, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b)
    # What decodes the features sends its gradient to the encoder alone, unchanged.
    to_features, *others = torch.autograd.grad(
        (found.features * 3.0).sum(), [given, *weights], allow_unused=True
    )
    assert torch.equal(to_features, torch.full_like(given, 3.0))
    assert others == [None] * len(weights)
    torch.testing.assert_close(found.features, total)


def test_what_is_left_after_each_scale_is_a_share_of_the_features():
    model, given = quantizer(), features()
    found = model(given)
    assert found.residual_energy.shape == (5, 4)
    left = (given - found.features).square().sum(dim=(1, 2, 3)) / given.square().sum(dim=(1, 2, 3))
    torch.testing.assert_close(found.residual_energy[:, -1], left)


def test_codes_start_from_the_first_batch_of_training():
    model = quantizer(initialisation="data", codebook_size=40).train()
    given = features(batch=16)
    before = model.codebook.weight.detach().clone()
    model.eval()(given)
    assert torch.equal(model.codebook.weight, before)
    assert not bool(model.initialised)
    model.train()(given)
    assert bool(model.initialised)
    # A quarter of the codes for each scale; those of the coarsest are means of whole images.
    means = given.mean(dim=(2, 3))
    assert (torch.cdist(model.codebook.weight[:10], means).min(dim=1).values < 1e-5).all()
    started = model.codebook.weight.detach().clone()
    model(features(batch=16) * 2)
    assert torch.equal(model.codebook.weight, started)
    random = quantizer(codebook_size=40)(given)
    assert model.eval()(given).residual_energy[:, -1].mean() < random.residual_energy[:, -1].mean()


def test_unused_codes_restart_from_cells_of_the_batch():
    model = quantizer(restart_unused_codes=True).train()
    with torch.no_grad():
        model.codebook.weight[32:] += 1e3  # too far away to be anybody's nearest
    found = model(features())
    assert int(found.codes.max()) < 32
    assert model.codebook.weight.abs().max() < 100
    kept = quantizer().train()
    with torch.no_grad():
        kept.codebook.weight[32:] += 1e3
    kept(features())
    assert kept.codebook.weight.abs().max() > 100


def test_accumulated_parts_restart_once_from_the_cells_of_all():
    whole, parts = (quantizer(restart_unused_codes=True, decay=0.5).train() for _ in range(2))
    given = features(batch=6)
    torch.manual_seed(3)
    whole(given)
    torch.manual_seed(3)
    for number, part in enumerate(given.split(2)):
        before = parts.codebook.weight.detach().clone()
        with parts.part(more_follow=number < 2):
            parts(part)
        assert torch.equal(before, parts.codebook.weight) == (number < 2)
    torch.testing.assert_close(parts.codebook.weight, whole.codebook.weight)
    torch.testing.assert_close(parts.codebook.cluster_size_ema, whole.codebook.cluster_size_ema)
    assert len(parts.parts) == 0


def test_what_shards_would_lose_is_known():
    assert not quantizer().overwrites_parameters
    assert quantizer(restart_unused_codes=True).overwrites_parameters
    assert quantizer(initialisation="data").overwrites_parameters
