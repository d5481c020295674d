"""VARGPT's visual decoder: VAR's transformer over scales (reference A2.1)."""

import math
import re

import pytest
import torch
import torch.nn.functional as F

from vilau.errors import ConfigError, DataError
from vilau.layers.attention import KeyValueCache
from vilau.models.vargpt.config import SCALES, DecoderConfig
from vilau.models.vargpt.decoder import ScaleBlock, ScaleDecoder
from vilau.models.weight_files import Unfilled, fill

SIDES, ENDS, CELLS = (1, 2, 3), (1, 5, 14), 14
CODES, CODE_WIDTH = 11, 5
SIZES = {
    "num_layers": 3, "width": 16, "num_heads": 2, "num_conditions": 4, "drop_path": 0.0, "gate_init": 1.0,
}  # fmt: skip


def small(sides=SIDES, **changes):
    """A decoder whose every part says something, unlike a fresh one's."""
    torch.manual_seed(0)
    config = DecoderConfig(**{**SIZES, **changes})
    built = ScaleDecoder(config, scales=sides, codebook_size=CODES, code_width=CODE_WIDTH)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        built.classifier.weight.mul_(3)
    return built.eval()


def given(model, batch=2):
    """Maps of all cells but the first scale's, and a condition for each image."""
    seeded = torch.Generator().manual_seed(1)
    cells = model.num_cells - model.ends[0]
    return torch.randn(batch, cells, CODE_WIDTH, generator=seeded), model.condition(
        torch.arange(batch)
    )


def logits_of(model, maps, condition):
    return model(model.embed(maps, condition), condition)


# ---------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("layers", "width", "count"), [(16, 1024, 310_283_520), (30, 1920, 2_010_020_356)]
)
def test_the_published_sizes(layers, width, count):
    config = DecoderConfig(
        num_layers=layers, width=width, num_heads=width // 64, num_conditions=1000
    )
    with torch.device("meta"):
        built = ScaleDecoder(config, scales=SCALES[256], codebook_size=4096, code_width=32)
    assert sum(parameter.numel() for parameter in built.parameters()) == count
    assert built.num_cells == 680
    assert list(built.buffers()) == []


def test_the_defaults_are_the_published_30_blocks():
    config = DecoderConfig()
    assert (config.num_layers, config.width, config.num_heads) == (30, 64 * 30, 30)
    assert config.drop_path == 0.1 * 30 / 24


def test_a_fresh_decoder_starts_as_vars():
    torch.manual_seed(0)
    config = DecoderConfig(num_layers=2, width=96, num_heads=2, num_conditions=50, gate_init=0.01)
    built = ScaleDecoder(config, scales=SIDES, codebook_size=300, code_width=32)
    std = math.sqrt(1 / 3 / 96)
    block = built.blocks[1]
    expected = {
        built.condition_embedding.weight: std,
        built.position_embedding: std,
        built.code_projection.weight: std,
        built.classifier.weight: 0.02 * std,
        built.out_modulation.weight: 0.5 * std,
        block.modulation.weight[: 2 * 96]: 0.01 * std,
        block.modulation.weight[2 * 96 :]: 0.5 * std,
        block.attention.query.weight: std,
        block.attention.out.weight: std / 2,
        block.mlp[0].weight: std,
        block.mlp[2].weight: std / 2,
    }
    for tensor, spread in expected.items():
        assert float(tensor.detach().std()) == pytest.approx(spread, rel=0.1)
    assert torch.equal(block.attention.log_scale, torch.full((2,), math.log(4)))
    assert block.attention.key.bias is None
    for name, parameter in built.named_parameters():
        assert not name.endswith("bias") or not parameter.any(), name


# ---------------------------------------------------------------------- who sees what


@pytest.mark.parametrize("sides", [SIDES, (2, 3, 5)])
@pytest.mark.parametrize("normalised", [True, False])
def test_scale_by_scale_the_logits_are_those_of_the_whole_image(sides, normalised):
    model = small(sides, normalised_attention=normalised)
    maps, condition = given(model)
    with torch.no_grad():
        whole = logits_of(model, maps, condition)
        caches, found = [KeyValueCache() for _ in model.blocks], []
        rest = maps.split([side * side for side in sides[1:]], dim=1)
        for scale, part in enumerate([None, *rest]):
            x = model.embed(part, condition, first=scale)
            found.append(model(x, condition, caches))
            # The first scales alone, without the others behind them.
            leading = logits_of(model, maps[:, : model.ends[scale] - model.ends[0]], condition)
            torch.testing.assert_close(leading, whole[:, : model.ends[scale]], atol=1e-5, rtol=1e-5)
    assert whole.shape == (2, model.num_cells, CODES)
    assert whole.std() > 0.1
    torch.testing.assert_close(torch.cat(found, dim=1), whole, atol=1e-5, rtol=1e-5)


def test_cells_of_several_scales_are_made_at_once():
    model = small()
    maps, condition = given(model)
    whole = model.embed(maps, condition)
    assert whole.shape == (2, CELLS, 16)
    torch.testing.assert_close(model.embed(maps[:, 4:], condition, first=2), whole[:, 5:])
    torch.testing.assert_close(model.embed(maps, condition, first=1), whole[:, 1:])
    torch.testing.assert_close(model.embed(None, condition), whole[:, :1])
    torch.testing.assert_close(model.embed(maps[:, :0], condition), whole[:, :1])


@pytest.mark.parametrize(("cell", "scale"), [(0, 0), (1, 1), (4, 1), (5, 2), (13, 2)])
def test_a_cell_is_seen_by_its_own_and_finer_scales_alone(cell, scale):
    model = small()
    maps, condition = given(model)
    with torch.no_grad():
        x = model.embed(maps, condition)
        base = model(x, condition)
        x[:, cell] += torch.linspace(-1, 2, 16).square()  # no constant: the norm takes it away
        moved = (model(x, condition) - base).abs().amax(dim=(0, 2))
    begin = ENDS[scale] - SIDES[scale] ** 2
    assert not moved[:begin].any()
    assert (moved[begin:] > 1e-4).all()


def test_a_map_changes_its_cell():
    model = small()
    maps, condition = given(model)
    changed = maps.clone()
    changed[:, 3] += 1  # the last cell of scale 1
    moved = model.embed(changed, condition) - model.embed(maps, condition)
    assert moved.abs().amax(dim=(0, 2)).nonzero().tolist() == [[4]]


def test_the_condition_matters_beyond_the_first_cell():
    model = small()
    maps, condition = given(model)
    with torch.no_grad():
        x = model.embed(maps, condition)
        base, other = model(x, condition), model(x, model.condition(torch.tensor([2, 3])))
        assert ((base - other).abs().amax(dim=2) > 1e-3).all()
        null = model.condition(torch.tensor([model.config.num_conditions]))
        assert torch.equal(null[0], model.condition_embedding.weight[-1])
        # One condition for all images is that of each.
        every = null.expand(2, -1)
        assert torch.equal(model.embed(maps, null), model.embed(maps, every))
        assert torch.equal(model.embed(None, null), model.embed(None, every)[:1])
        torch.testing.assert_close(model(x, null), model(x, every))


# ---------------------------------------------------------------------- training


def test_blocks_are_left_out_in_training_alone():
    model = small(drop_path=0.5)
    assert [block.drop_path for block in model.blocks] == [0.0, 0.25, 0.5]
    assert [block.drop_path for block in small(drop_path=0.5, num_layers=1).blocks] == [0.0]
    maps, condition = given(model)
    with torch.no_grad():
        assert torch.equal(logits_of(model, maps, condition), logits_of(model, maps, condition))
        model.train()
        first, again = logits_of(model, maps, condition), logits_of(model, maps, condition)
    assert not torch.equal(first, again)


def test_what_a_left_out_block_adds_is_made_up_for():
    block = ScaleBlock(DecoderConfig(**SIZES), drop_path=0.25).train()
    torch.manual_seed(0)
    kept = block._kept(torch.ones(4000, 2, 3))
    torch.testing.assert_close(kept.unique(), torch.tensor([0.0, 4 / 3]))
    assert (kept == kept[:, :1, :1]).all()  # an image as a whole
    assert float(kept.mean()) == pytest.approx(1, abs=0.03)
    assert torch.equal(block.eval()._kept(kept), kept)


def test_gradients_reach_every_parameter():
    """Of the table, the rows of the conditions given; of everything else, every number."""
    model = small().train()
    maps, condition = given(model)
    targets = torch.arange(2 * CELLS) % CODES
    F.cross_entropy(logits_of(model, maps, condition).flatten(0, 1), targets).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        nothing = (parameter.grad == 0).flatten(1).all(dim=1) if parameter.dim() > 1 else None
        if name == "condition_embedding.weight":
            assert nothing.tolist() == [False, False, True, True, True]
        elif nothing is not None:
            assert not nothing.any(), name
        assert parameter.grad.any(), name


def test_a_head_is_not_sharper_than_published():
    model = small(num_layers=1)
    maps, condition = given(model)
    with torch.no_grad():
        model.blocks[0].attention.log_scale.fill_(math.log(100))
        limit = logits_of(model, maps, condition)
        model.blocks[0].attention.log_scale.fill_(9.0)
        assert torch.equal(logits_of(model, maps, condition), limit)
        model.blocks[0].attention.log_scale.fill_(1.0)
        assert not torch.equal(logits_of(model, maps, condition), limit)


# ---------------------------------------------------------------------- formats and devices


def test_half_the_precision_gives_float32_logits():
    model = small()
    maps, condition = given(model)
    with torch.no_grad():
        expected = logits_of(model, maps, condition)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = logits_of(model, maps, condition)
        narrow = model.to(torch.bfloat16)
        condition = narrow.condition(torch.arange(2))
        x = narrow.embed(maps, condition)
        found = narrow(x, condition)
        # Whatever format the cells come in from what lies between the two halves.
        assert torch.equal(narrow(x.float(), condition), found)
    # The last product is not autocast's: no logit is rounded.
    assert not torch.equal(mixed.bfloat16().float(), mixed)
    for one in (mixed, found):
        assert one.dtype == torch.float32
        assert one.isfinite().all()
        assert (one - expected).std() < 0.1 * expected.std()
        assert (one - expected).any()


@pytest.mark.parametrize("built_in", [Unfilled, lambda: torch.device("meta")])
def test_a_decoder_built_without_values_is_filled(built_in):
    """There is nothing besides what a file holds: no mask that is lost on the way."""
    model = small()
    maps, condition = given(model)
    with built_in():
        empty = ScaleDecoder(model.config, scales=SIDES, codebook_size=CODES, code_width=CODE_WIDTH)
    assert all(parameter.is_meta for parameter in empty.parameters())
    fill(empty, model.state_dict())
    assert torch.equal(logits_of(empty.eval(), maps, condition), logits_of(model, maps, condition))


# ---------------------------------------------------------------------- by the formulas


def test_a_block_is_what_the_formulas_say():
    """One head and one image at a time, with plain products."""
    model = small(num_layers=1)
    block, maps, condition = model.blocks[0], *given(model)
    w = {name: tensor.double() for name, tensor in block.state_dict().items()}
    x = model.embed(maps, condition)
    mask = torch.tensor(
        [[a >= b for b in (0, *[1] * 4, *[2] * 9)] for a in (0, *[1] * 4, *[2] * 9)]
    )
    with torch.no_grad():
        found = block(x, condition, mask)

    def normed(t):
        t = t - t.mean(dim=-1, keepdim=True)
        return t / (t.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()

    def linear(t, name):
        return t @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)

    for image in range(2):
        h, c = x[image].detach().double(), condition[image].detach().double()
        g1, g2, s1, s2, b1, b2 = linear(c * torch.sigmoid(c), "modulation").split(16)
        a = normed(h) * (1 + s1) + b1
        q, k, v = (linear(a, f"attention.{part}") for part in ("query", "key", "value"))
        heads = []
        for head in range(2):
            own = slice(8 * head, 8 * head + 8)
            sharp = math.exp(min(float(w["attention.log_scale"][head]), math.log(100)))
            unit_q = q[:, own] / q[:, own].norm(dim=1, keepdim=True)
            unit_k = k[:, own] / k[:, own].norm(dim=1, keepdim=True)
            weights = (sharp * unit_q @ unit_k.T).exp() * mask
            heads.append(weights / weights.sum(dim=1, keepdim=True) @ v[:, own])
        h = h + g1 * linear(torch.cat(heads, dim=1), "attention.out")
        m = linear(normed(h) * (1 + s2) + b2, "mlp.0")
        m = 0.5 * m * (1 + torch.tanh(math.sqrt(2 / math.pi) * (m + 0.044715 * m**3)))
        h = h + g2 * linear(m, "mlp.2")
        torch.testing.assert_close(found[image], h.float(), atol=1e-5, rtol=1e-5)


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_layers": 0}, "decoder.num_layers is 0; write a whole number, 1 or more."),
        ({"mlp_ratio": 2.5}, "decoder.mlp_ratio is 2.5; write a whole number, 1 or more."),
        ({"num_conditions": 0}, "decoder.num_conditions is 0; write a whole number, 1 or more."),
        ({"num_heads": 3}, "decoder.num_heads is 3, which does not divide decoder.width 16; write a divisor of 16."),
        ({"drop_path": 1.0}, "decoder.drop_path is 1.0; write a number from 0 to below 1."),
        ({"gate_init": -1.0}, "decoder.gate_init is -1.0; write a number from 0 to 1."),
        ({"gate_init": 1.5}, "decoder.gate_init is 1.5; write a number from 0 to 1."),
    ],
)  # fmt: skip
def test_sizes_that_make_no_decoder(changes, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        DecoderConfig(**{**SIZES, **changes})


@pytest.mark.parametrize(
    ("cells", "first", "sentence"),
    [
        (5, 0, "maps have 5 cells; give those of whole scales from scale 0 on: 0, 4 or 13."),
        (9, 1, "maps have 9 cells; give those of whole scales from scale 1 on: 4 or 13."),
        (None, 2, "maps have 0 cells; give those of whole scales from scale 2 on: 9."),
        (14, 0, "maps have 14 cells"),
    ],
)
def test_maps_of_parts_of_scales_are_refused(cells, first, sentence):
    model = small(num_layers=1)
    maps = None if cells is None else torch.zeros(2, cells, CODE_WIDTH)
    with pytest.raises(DataError, match=re.escape(sentence)):
        model.embed(maps, given(model)[1], first=first)


def test_other_bad_input_is_told():
    model = small(num_layers=1)
    maps, condition = given(model)
    for first in (-1, 3):
        with pytest.raises(ConfigError, match=f"first is {first}; write a scale from 0 to 2"):
            model.embed(maps, condition, first=first)
    sentence = re.escape("maps have the shape (2, 13, 4); give (images, cells, 5).")
    with pytest.raises(DataError, match=sentence):
        model.embed(maps[..., :4], condition)
    x, caches = model.embed(maps, condition), [KeyValueCache()]
    for cells in (0, 4, 13):
        sentence = f"given {cells} cells; give those of the first scales, whole: 1, 5 or 14."
        with pytest.raises(DataError, match=sentence):
            model(x[:, :cells], condition)
    model(x[:, :1], condition, caches)
    for cells in (9, 13):
        sentence = f"given {cells} cells after 1; give the 4 of the next scale."
        with pytest.raises(DataError, match=sentence):
            model(x[:, 14 - cells :], condition, caches)
    model(x[:, 1:5], condition, caches)
    model(x[:, 5:], condition, caches)
    with pytest.raises(DataError, match="the caches hold all 14 cells of an image; give new ones"):
        model(x[:, :1], condition, caches)
