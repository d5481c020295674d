"""The fused pieces against the plain formulas, and a whole model against transformers' own blocks."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.models import tiny
from vilau.layers.lean import fused_attention, gated_silu, neighbours, rms_norm
from vilau.layers.lean_llama import LeanDecoderLayer, use_lean_layers
from vilau.models.language import build_language_model

B, T, HEADS, WIDTH = 2, 5, 4, 6


def causal(rows, dtype):
    mask = torch.zeros(rows, T, T, dtype=dtype)
    return mask.masked_fill(torch.ones(T, T).triu(1).bool(), torch.finfo(dtype).min)


def rotary(dtype, rows=1):
    angles = torch.randn(rows, T, WIDTH // 2, dtype=dtype)
    return angles.cos(), angles.sin()


def plain_attention(qkv, kv_heads, mask, positions):
    """LLaMA's: rotary positions of entries i and i + d / 2, repeated key heads, softmax."""
    parts = qkv.view(B, T, HEADS + 2 * kv_heads, WIDTH).transpose(1, 2)
    q, k, v = parts.split([HEADS, kv_heads, kv_heads], dim=1)
    if positions is not None:
        cos, sin = (torch.cat([one, one], dim=-1)[:, None] for one in positions)

        def turned(x):
            first, second = x.chunk(2, dim=-1)
            return x * cos + torch.cat([-second, first], dim=-1) * sin

        q, k = turned(q), turned(k)
    k, v = (x.repeat_interleave(HEADS // kv_heads, dim=1) for x in (k, v))
    scores = q @ k.transpose(-1, -2) / math.sqrt(WIDTH)
    if mask is not None:
        scores = scores + mask[:, None]
    return (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("mask_rows", [0, 1, B])
@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize("block", [96, 2])
def test_attention_equals_the_plain_formula(kv_heads, mask_rows, turns, block, monkeypatch):
    monkeypatch.setattr("vilau.layers.lean.BLOCK", block)  # 5 tokens: one block, or two and a rest
    torch.manual_seed(0)
    x = torch.randn(B, T, 8, dtype=torch.float64)
    weight = torch.randn((HEADS + 2 * kv_heads) * WIDTH, 8, dtype=torch.float64, requires_grad=True)
    positions = rotary(torch.float64) if turns else None
    mask = causal(mask_rows, torch.float64) if mask_rows else None
    if mask_rows > 1:
        mask[1, :, 0] += 0.7
    q, k, v = weight.split([HEADS * WIDTH, kv_heads * WIDTH, kv_heads * WIDTH])
    turn, side_by_side = None, weight
    if positions is not None:
        turn = torch.complex(*positions)[:, :, None]
        side_by_side = torch.cat([neighbours(q, WIDTH), neighbours(k, WIDTH), v])
    ours = fused_attention(
        F.linear(x, side_by_side), heads=HEADS, kv_heads=kv_heads, mask=mask, turn=turn
    )
    theirs = plain_attention(F.linear(x, weight), kv_heads, mask, positions)
    torch.testing.assert_close(ours, theirs)
    given = torch.randn_like(ours)
    torch.testing.assert_close(
        torch.autograd.grad(ours, weight, given), torch.autograd.grad(theirs, weight, given)
    )


def plain_norm(x, scale):
    return scale * x / (x.square().mean(dim=-1, keepdim=True) + 1e-3).sqrt()


def plain_gate(x):
    gate, up = x.chunk(2, dim=-1)
    return gate * gate.sigmoid() * up


PIECES = {
    "norm": (lambda x, s: rms_norm(x, s, 1e-3, x.dtype), plain_norm),
    "gate": (lambda x, s: gated_silu(x * s), lambda x, s: plain_gate(x * s)),
}


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize(
    ("dtype", "close"), [(torch.float32, 1e-6), (torch.float64, 1e-12), (torch.bfloat16, 0.02)]
)
def test_norm_and_gate_equal_the_plain_formulas(piece, dtype, close):
    torch.manual_seed(0)
    # Not contiguous, and of two sizes of entries.
    x = (torch.randn(7, 3, 16, dtype=dtype) * torch.tensor([1.0, 30.0, 0.1])[:, None]).to(dtype)
    x = x.transpose(0, 1).requires_grad_()
    scale = torch.randn(16, dtype=dtype, requires_grad=True)
    exact = [t.detach().double().requires_grad_() for t in (x, scale)]
    ours, theirs = PIECES[piece][0](x, scale), PIECES[piece][1](*exact)
    assert ours.dtype == dtype
    given = torch.randn(ours.shape, dtype=torch.float64)
    ours_and_grads = [ours, *torch.autograd.grad(ours, (x, scale), given.to(dtype))]
    exact_and_grads = [theirs, *torch.autograd.grad(theirs, exact, given)]
    for a, b in zip(ours_and_grads, exact_and_grads, strict=True):
        assert float((a.detach().double() - b.detach()).norm() / b.detach().norm()) < close


@pytest.mark.parametrize("block", [96, 2])
def test_attention_in_bfloat16_is_right_within_its_rounding(block, monkeypatch):
    torch.manual_seed(0)
    qkv = torch.randn(B, T, 3 * HEADS * WIDTH, dtype=torch.bfloat16, requires_grad=True)
    exact = qkv.detach().double().requires_grad_()
    monkeypatch.setattr("vilau.layers.lean.BLOCK", block)
    ours = fused_attention(
        qkv, heads=HEADS, kv_heads=HEADS, mask=causal(1, torch.bfloat16)
    )  # fmt: skip
    theirs = plain_attention(exact, HEADS, causal(1, torch.float64), None)
    given = torch.randn_like(theirs)
    pairs = [(ours, theirs)]
    pairs.append(
        (
            torch.autograd.grad(ours, qkv, given.bfloat16())[0],
            torch.autograd.grad(theirs, exact, given)[0],
        )
    )
    for a, b in pairs:
        assert float((a.detach().double() - b.detach()).norm() / b.detach().norm()) < 0.01


@pytest.mark.parametrize(("first", "left_out"), [(0, 0), (1, 0), (2, 2), (3, 2), (4, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_queries_that_no_one_reads_are_left_out_and_change_no_bit(
    first, left_out, dtype, monkeypatch
):
    monkeypatch.setattr("vilau.layers.lean.BLOCK", 2)
    torch.manual_seed(0)
    results = []
    given = torch.randn(B, T, 3 * HEADS * WIDTH).to(dtype)
    weights = torch.randn(B, T - first, HEADS * WIDTH).to(dtype)
    for start in (0, first):
        qkv = given.clone().requires_grad_()
        found = fused_attention(
            qkv, heads=HEADS, kv_heads=HEADS, mask=causal(1, dtype), first=start
        )
        (found[:, first:] * weights).sum().backward()
        results.append((found.detach(), qkv.grad))
    (whole, grad_of_whole), (part, grad_of_part) = results
    assert torch.equal(part[:, left_out:], whole[:, left_out:])
    assert not part[:, :left_out].any()
    assert torch.equal(grad_of_part, grad_of_whole)


def test_asking_for_a_second_derivative_is_an_error():
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(gated_silu(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_autocast_around_the_backward_pass_changes_nothing():
    torch.manual_seed(0)
    x, scale = torch.randn(64, 32, requires_grad=True), torch.randn(32, requires_grad=True)
    given, found = torch.randn(64, 32), []
    for mixed in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            out = rms_norm(x, scale, 1e-6, torch.float32)
            found.append([out, *torch.autograd.grad(out, (x, scale), given)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


# ---------------------------------------------------------------------- whole models

MASK = torch.tensor([[0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
EXTRAS = [
    {},
    {"num_key_value_heads": 1, "rms_norm_eps": 1e-2},
    {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 50.0}},
]


def llama(attention, **extra):
    torch.manual_seed(0)
    config = tiny.language(attention=attention, vocab_size=50, num_layers=3, extra=extra)
    model = build_language_model(config).train()
    with torch.no_grad():  # norms start at 1, where a forgotten scale would not show
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.uniform_(0.5, 1.5)
    return model


def outcome(model, *, mixed=False, **arguments):
    """Last states and the gradients of the inputs and of all weights of the body."""
    x = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(1), requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        states = model.model(inputs_embeds=x, use_cache=False, **arguments).last_hidden_state
    weights = [w for n, w in model.model.named_parameters() if "embed" not in n]
    wanted = MASK if arguments else torch.ones_like(MASK)
    score = (states * states.detach().cos() * wanted[..., None]).sum()
    return [states[wanted.bool()], *torch.autograd.grad(score, [x, *weights])]


@pytest.mark.parametrize("extra", EXTRAS, ids=["plain", "grouped heads", "scaled positions"])
@pytest.mark.parametrize("padded", [False, True])
def test_lean_blocks_equal_transformers_own(extra, padded):
    ours, theirs = llama("lean", **extra), llama("sdpa", **extra)
    assert all(isinstance(layer, LeanDecoderLayer) for layer in ours.model.layers)
    assert not any(isinstance(layer, LeanDecoderLayer) for layer in theirs.model.layers)
    positions = (MASK.cumsum(dim=1) - 1).clamp(min=0)
    arguments = {"attention_mask": MASK, "position_ids": positions} if padded else {}
    for a, b in zip(outcome(ours, **arguments), outcome(theirs, **arguments), strict=True):
        torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-5)
    for a, b in zip(
        outcome(ours, mixed=True, **arguments), outcome(theirs, **arguments), strict=True
    ):
        assert float((a.detach().float() - b.detach()).norm() / b.detach().norm()) < 0.05


def test_lean_blocks_with_a_cache_equal_one_pass():
    model, x = llama("lean").eval(), torch.randn(2, 6, 32)
    with torch.no_grad():
        whole = model.model(inputs_embeds=x, use_cache=False).last_hidden_state
        first = model.model(inputs_embeds=x[:, :4], use_cache=True)
        rest = model.model(inputs_embeds=x[:, 4:], past_key_values=first.past_key_values)
    steps = torch.cat([first.last_hidden_state, rest.last_hidden_state], dim=1)
    torch.testing.assert_close(steps, whole, atol=2e-6, rtol=1e-5)


def test_linear_layers_put_in_the_place_of_llamas_are_called():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    states = []
    for attention in ("lean", "sdpa"):
        model = llama(attention)
        model.model.layers[1].mlp.up_proj.__class__ = Doubled
        states.append(outcome(model)[0])
    torch.testing.assert_close(*states, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "extra",
    [{"attention_bias": True}, {"mlp_bias": True}, {"hidden_act": "gelu"}, {"attention_dropout": 0.1}],
    ids=str,
)  # fmt: skip
def test_other_models_keep_their_blocks(extra):
    model = llama("lean", **extra)
    use_lean_layers(model)
    assert not any(isinstance(layer, LeanDecoderLayer) for layer in model.model.layers)


def test_losses_and_all_gradients_of_a_model_equal_those_of_transformers_blocks():
    found = []
    for attention in ("lean", "eager"):
        model = tiny.vila_u(attention=attention).train()
        model.losses(tiny.multimodal()).total().backward()
        found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert len(found[0]) > 40
    for name, grad in found[0].items():
        torch.testing.assert_close(grad, found[1][name], atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("places", [[7, 1, 11], [9, 4, 11]], ids=str)
def test_the_last_block_computes_what_is_wanted_alone(places, monkeypatch):
    monkeypatch.setattr("vilau.layers.lean.BLOCK", 2)
    model, x = llama("lean"), torch.randn(2, 6, 32)
    wanted = torch.tensor(places)
    whole = model.model(inputs_embeds=x, use_cache=False).last_hidden_state
    some = model.model(inputs_embeds=x, use_cache=False, wanted=wanted).last_hidden_state
    torch.testing.assert_close(some.flatten(0, 1)[wanted], whole.flatten(0, 1)[wanted])
    assert int((some.flatten(0, 1) != 0).any(dim=-1).sum()) == len(wanted)
    given, weights = torch.randn(len(wanted), 32), list(model.model.layers.parameters())
    for a, b in zip(
        torch.autograd.grad(some.flatten(0, 1)[wanted], weights, given),
        torch.autograd.grad(whole.flatten(0, 1)[wanted], weights, given),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    # Nothing to learn from: data parallelism still wants a gradient, 0, of every weight.
    nothing = model.model(inputs_embeds=x, use_cache=False, wanted=wanted[:0]).last_hidden_state
    for grad in torch.autograd.grad(nothing.sum(), weights):
        assert not grad.any()
