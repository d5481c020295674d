"""VAR's transformer as its files hold it (reference A2.1), read under our names."""

import math
import re

import pytest
import torch
import torch.nn.functional as F

from vilau.errors import CheckpointError
from vilau.models.vargpt.config import DecoderConfig
from vilau.models.vargpt.decoder import ScaleDecoder
from vilau.models.vargpt.published_decoder import decoder_config_of, own_state
from vilau.models.weight_files import Unfilled, check_fit, fill

SIDES, CELLS, CODES, CODE_WIDTH = (1, 2, 3), 14, 11, 5


def published_tensors(depth=2, width=128, heads=2, normalised=True):
    """Tensors named and shaped like those of VAR's file, buffers too."""
    seeded = torch.Generator().manual_seed(2)
    shapes = {
        "pos_start": (1, 1, width), "pos_1LC": (1, CELLS, width), "word_embed.weight": (width, CODE_WIDTH),
        "word_embed.bias": (width,), "class_emb.weight": (5, width), "lvl_embed.weight": (3, width),
        "head_nm.ada_lin.1.weight": (2 * width, width), "head_nm.ada_lin.1.bias": (2 * width,),
        "head.weight": (CODES, width), "head.bias": (CODES,),
    }  # fmt: skip
    block = {
        "attn.q_bias": (width,), "attn.v_bias": (width,), "attn.mat_qkv.weight": (3 * width, width),
        "attn.proj.weight": (width, width), "attn.proj.bias": (width,), "ffn.fc1.weight": (4 * width, width),
        "ffn.fc1.bias": (4 * width,), "ffn.fc2.weight": (width, 4 * width), "ffn.fc2.bias": (width,),
        "ada_lin.1.weight": (6 * width, width), "ada_lin.1.bias": (6 * width,),
    }  # fmt: skip
    if normalised:
        block["attn.scale_mul_1H11"] = (1, heads, 1, 1)
    for number in range(depth):
        shapes |= {f"blocks.{number}.{name}": shape for name, shape in block.items()}
    state = {
        name: torch.randn(shape, generator=seeded) * (0.1 if len(shape) > 1 else 0.5)
        for name, shape in shapes.items()
    }
    levels = torch.tensor([0] + [1] * 4 + [2] * 9)
    state["lvl_1L"] = levels[None]
    seen = levels[:, None] >= levels
    state["attn_bias_for_masking"] = torch.where(seen, 0.0, -torch.inf)[None, None]
    state |= {f"blocks.{n}.attn.zero_k_bias": torch.zeros(width) for n in range(depth)}
    return state


def published_logits(p, maps, rows, *, depth, heads, normalised):
    """VAR by its own names (reference A2.1): ``(B, L, V)``."""
    condition = p["class_emb.weight"][rows]
    words = maps @ p["word_embed.weight"].T + p["word_embed.bias"]
    x = torch.cat([condition[:, None] + p["pos_start"], words], dim=1)
    x = x + p["lvl_embed.weight"][p["lvl_1L"]] + p["pos_1LC"]
    batch, cells, width = x.shape

    def norm(t):
        return F.layer_norm(t, (width,), eps=1e-6)

    def linear(t, name):
        return F.linear(t, p[f"{name}.weight"], p[f"{name}.bias"])

    for n in range(depth):
        at = f"blocks.{n}."
        told = linear(F.silu(condition), at + "ada_lin.1").view(batch, 1, 6, width)
        g1, g2, s1, s2, b1, b2 = told.unbind(2)
        bias = torch.cat([p[at + "attn.q_bias"], p[at + "attn.zero_k_bias"], p[at + "attn.v_bias"]])
        qkv = F.linear(norm(x) * (1 + s1) + b1, p[at + "attn.mat_qkv.weight"], bias)
        q, k, v = qkv.view(batch, cells, 3, heads, -1).permute(2, 0, 3, 1, 4)
        if normalised:
            sharp = p[at + "attn.scale_mul_1H11"].clamp(max=math.log(100)).exp()
            scores = (F.normalize(q, dim=-1) * sharp) @ F.normalize(k, dim=-1).transpose(2, 3)
        else:
            scores = q @ k.transpose(2, 3) * 0.25 / math.sqrt(q.shape[-1])
        y = (scores + p["attn_bias_for_masking"]).softmax(dim=-1) @ v
        x = x + g1 * linear(y.transpose(1, 2).reshape(batch, cells, width), at + "attn.proj")
        hidden = F.gelu(linear(norm(x) * (1 + s2) + b2, at + "ffn.fc1"), approximate="tanh")
        x = x + g2 * linear(hidden, at + "ffn.fc2")
    scale, shift = linear(F.silu(condition), "head_nm.ada_lin.1").view(batch, 1, 2, width).unbind(2)
    return linear(norm(x) * (1 + scale) + shift, "head")


@pytest.mark.parametrize(("normalised", "heads"), [(True, 4), (False, 2)])
def test_vars_tensors_give_vars_logits(normalised, heads, tmp_path):
    published = published_tensors(heads=heads, normalised=normalised)
    config = decoder_config_of(published)
    assert config == DecoderConfig(
        num_layers=2, width=128, num_heads=heads, num_conditions=4, drop_path=0.1 * 2 / 24,
        normalised_attention=normalised,
    )  # fmt: skip
    with Unfilled():
        model = ScaleDecoder(config, scales=SIDES, codebook_size=CODES, code_width=CODE_WIDTH)
    state = own_state(published, config)
    check_fit(model, state, tmp_path)
    fill(model, state)
    model.eval()
    maps = torch.randn(2, CELLS - 1, CODE_WIDTH, generator=torch.Generator().manual_seed(1))
    rows = torch.tensor([1, model.config.num_conditions])
    with torch.no_grad():
        condition = model.condition(rows)
        found = model(model.embed(maps, condition), condition)
    sizes = {"depth": 2, "heads": heads, "normalised": normalised}
    expected = published_logits(published, maps, rows, **sizes)
    assert expected.std() > 0.3
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def without(name):
    state = published_tensors(width=64)
    del state[name]
    return state


def changed(name, tensor):
    return {**published_tensors(width=64), name: tensor}


@pytest.mark.parametrize(
    ("published", "sentence"),
    [
        ({}, "var.pth holds no class_emb.weight, which VAR's transformer has; give the file of one."),
        (without("blocks.1.attn.mat_qkv.weight"), "var.pth holds no blocks.1.attn.mat_qkv.weight"),
        (without("blocks.1.attn.scale_mul_1H11"), "var.pth holds no blocks.1.attn.scale_mul_1H11"),
        (without("blocks.1.attn.q_bias"), "var.pth holds no blocks.1.attn.q_bias"),
        (without("pos_1LC"), "var.pth holds no pos_1LC"),
        (without("blocks.0.ffn.fc1.weight"), "var.pth holds no blocks.0.ffn.fc1.weight"),
        (changed("class_emb.weight", torch.ones(64)), "class_emb.weight of the shape (64,), where 2 sizes of 1"),
        (changed("class_emb.weight", torch.ones(1, 64)), "var.pth holds sizes that no decoder has: decoder.num_cond"),
        (changed("blocks.0.ffn.fc1.weight", torch.ones(100, 64)), "100 rows, which is no multiple of its width 64"),
        (changed("blocks.0.attn.scale_mul_1H11", torch.ones(1, 3, 1, 1)), "no decoder has: decoder.num_heads is 3"),
        (changed("blocks.1.attn.mat_qkv.weight", torch.ones(64, 64)), "where the query, key and value of 64 are (192,"),
        (changed("vae.weight", torch.ones(1)), "var.pth holds 1 tensors that the decoder has no place for, the first"),
        (changed("shared_ada_lin.1.weight", torch.ones(1)), "var.pth holds one AdaLN that all blocks share"),
    ],
)  # fmt: skip
def test_files_that_are_not_vars(published, sentence):
    with pytest.raises(CheckpointError, match=re.escape(sentence)):
        own_state(published, decoder_config_of(published, source="var.pth"), source="var.pth")
