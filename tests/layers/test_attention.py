import pytest
import torch

from tests.models import tiny
from vilau.layers.attention import CausalSelfAttention, KeyValueCache
from vilau.layers.transformer import Block
from vilau.models.language import build_language_model
from vilau.models.siglip import build_siglip


def llama(attention, **extra):
    torch.manual_seed(0)
    config = tiny.language(attention=attention, vocab_size=50, extra=extra)
    return build_language_model(config).eval().model


MASK = torch.tensor([[0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
POSITIONS = (MASK.cumsum(dim=1) - 1).clamp(min=0)


@pytest.mark.parametrize("other", ["eager", "sdpa"])
@pytest.mark.parametrize("extra", [{}, {"num_key_value_heads": 1}], ids=["heads", "grouped heads"])
def test_lean_attention_equals_the_others_in_llama(other, extra):
    x = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        causal = [
            llama(name, **extra)(inputs_embeds=x).last_hidden_state for name in ("lean", other)
        ]
        padded = [
            llama(name, **extra)(inputs_embeds=x, attention_mask=MASK, position_ids=POSITIONS)
            for name in ("lean", other)
        ]
    torch.testing.assert_close(*causal, atol=1e-5, rtol=1e-5)
    a, b = (out.last_hidden_state[MASK.bool()] for out in padded)
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_lean_attention_of_padded_rows_stays_finite_under_autocast():
    x = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        exact = llama("eager")(inputs_embeds=x, attention_mask=MASK, position_ids=POSITIONS)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = llama("lean")(inputs_embeds=x, attention_mask=MASK, position_ids=POSITIONS)
    a, b = (out.last_hidden_state[MASK.bool()].float() for out in (mixed, exact))
    torch.testing.assert_close(a, b, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("other", ["eager", "sdpa"])
def test_lean_attention_equals_the_others_in_siglip(other):
    pixels = torch.rand(2, 3, tiny.SIDE, tiny.SIDE)
    ids = torch.randint(0, 600, (2, 12))
    seen = []
    for name in ("lean", other):
        torch.manual_seed(0)
        model = build_siglip(tiny.sizes(attention=name)).eval()
        with torch.no_grad():
            seen.append((model.vision_model(pixel_values=pixels), model.text_model(input_ids=ids)))
    for (image, text), (image_2, text_2) in [seen]:
        torch.testing.assert_close(image.pooler_output, image_2.pooler_output, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(text.pooler_output, text_2.pooler_output, atol=1e-5, rtol=1e-5)


def test_own_attention_equals_torch_multi_head_attention():
    torch.manual_seed(0)
    ours = CausalSelfAttention(width=16, num_heads=4)
    theirs = torch.nn.MultiheadAttention(16, 4, batch_first=True)
    parts = (ours.query, ours.key, ours.value)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    x = torch.randn(3, 5, 16)
    later = torch.ones(5, 5, dtype=torch.bool).triu(1)
    torch.testing.assert_close(ours(x), theirs(x, x, x, attn_mask=later)[0])


def test_cached_steps_equal_one_pass():
    torch.manual_seed(0)
    block, x, cache = Block(width=16, num_heads=2).eval(), torch.randn(2, 5, 16), KeyValueCache()
    pieces = [x[:, :2], x[:, 2:3], x[:, 3:]]
    steps = torch.cat([block(piece, cache) for piece in pieces], dim=1)
    torch.testing.assert_close(steps, block(x))


def test_width_must_split_into_heads():
    with pytest.raises(ValueError, match="width 10 is not a multiple of 3 heads"):
        CausalSelfAttention(width=10, num_heads=3)
