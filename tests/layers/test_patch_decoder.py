"""The decoder that writes a patch of pixels per cell."""

import pytest
import torch
from torch.nn import functional as F

from vilau.layers.patch_decoder import PatchBlock, PatchDecoder


def built(**changes):
    torch.manual_seed(0)
    settings = {"in_channels": 6, "width": 8, "patch": 4, "num_heads": 2, "head_size": 16}
    return PatchDecoder(**{**settings, **changes})


@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_decodes_a_grid_to_pixels(num_layers):
    decoder = built(num_layers=num_layers)
    out = decoder(torch.randn(2, 6, 3, 5))
    assert out.shape == (2, 3, 12, 20)
    assert len(decoder.layers) == num_layers


def test_a_cell_writes_its_own_patch():
    """Without layers, which mix cells, a cell's change moves the pixels of its patch and no others."""
    decoder = built(num_layers=0)
    x = torch.randn(1, 6, 2, 3)
    other = x.clone()
    other[0, :, 1, 2] += 1.0
    moved = (decoder(x) != decoder(other))[0].any(dim=0)
    assert moved[4:8, 8:12].all()
    assert moved.sum() == 16


def test_cells_see_one_another_with_a_layer():
    decoder, x = built(), torch.randn(1, 6, 2, 2)
    other = x.clone()
    other[0, :, 0, 0] += 1.0
    assert (decoder(x) != decoder(other))[0].any(dim=0).float().mean() > 0.9


def test_a_block_is_attention_and_a_perceptron_on_normed_inputs():
    torch.manual_seed(0)
    block = PatchBlock(width=8, num_heads=2)
    x = torch.randn(2, 5, 8)
    query, key, value = (
        part.unflatten(-1, (2, 4)).transpose(1, 2)
        for part in block.joint(block.norm_1(x)).chunk(3, dim=-1)
    )
    seen = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    y = x + block.out(seen)
    torch.testing.assert_close(block(x), y + block.mlp(block.norm_2(y)))


def test_the_last_layer_writes_the_pixels():
    decoder = built()
    with torch.no_grad():
        decoder.last_layer.weight.zero_()
        decoder.last_layer.bias.fill_(0.25)
    assert (decoder(torch.randn(1, 6, 2, 2)) == 0.25).all()


def test_the_head_has_a_hidden_layer_and_writes_patches_row_by_row():
    """By hand: pixel (i, j) of colour c of a cell is output c * patch^2 + i * patch + j of the head."""
    decoder, x = built(num_layers=0), torch.randn(1, 6, 2, 3)
    weight, bias = decoder.conv_in.weight[:, :, 0, 0], decoder.conv_in.bias
    cell = decoder.norm_out(weight @ x[0, :, 1, 2] + bias)
    hidden = (decoder.hidden.weight @ cell + decoder.hidden.bias).clamp(min=0)
    assert (hidden == 0).any()
    patch = decoder.linear_out(hidden).view(3, 4, 4)
    torch.testing.assert_close(decoder(x)[0, :, 4:8, 8:12], patch)
