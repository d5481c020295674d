import pytest
import torch

from vilau.layers.convolution import ConvDecoder, SpatialAttention


@pytest.mark.parametrize(
    ("settings", "grid", "pixels"),
    [
        ({"in_channels": 256}, 16, 256),
        ({"in_channels": 256, "attention_grids": (24,), "grid": 24}, 24, 384),
        (
            {
                "in_channels": 64, "channels": 48, "multipliers": (1, 1), "num_res_blocks": 0,
                "attention_grids": (8,), "norm_groups": 8, "output_patch": 4, "grid": 8,
            },
            8, 64,
        ),
    ],
    ids=["published 256", "published 384", "tiny"],
)  # fmt: skip
def test_decodes_a_grid_to_pixels(settings, grid, pixels):
    with torch.device("meta"):
        decoder = ConvDecoder(**settings)
        out = decoder(torch.zeros(2, settings["in_channels"], grid, grid))
    assert out.shape == (2, 3, pixels, pixels)


def test_published_decoder_has_the_published_number_of_weights():
    with torch.device("meta"):
        decoder = ConvDecoder(in_channels=256)
    assert sum(p.numel() for p in decoder.parameters()) == 42_449_795


def test_attention_stands_on_the_levels_of_the_named_grids():
    decoder = ConvDecoder(
        in_channels=4, channels=4, multipliers=(1, 2, 2), num_res_blocks=1,
        attention_grids=(8,), grid=4, norm_groups=2,
    )  # fmt: skip
    assert [len(level.attentions) for level in decoder.levels] == [0, 2, 0]  # grids 4, 8, 16
    assert [len(level.blocks) for level in decoder.levels] == [2, 2, 2]
    assert [level.upsample is not None for level in decoder.levels] == [True, True, False]


def test_spatial_attention_is_softmax_over_all_positions():
    torch.manual_seed(0)
    layer = SpatialAttention(4, groups=2)
    x = torch.randn(1, 4, 2, 3)
    flat = layer.norm(x)[0].flatten(1).t()  # (6 positions, 4)
    q, k, v = (
        flat @ part.weight[:, :, 0, 0].t() + part.bias
        for part in (layer.query, layer.key, layer.value)
    )
    rows = []
    for i in range(6):
        weights = torch.softmax(torch.stack([q[i] @ k[j] for j in range(6)]) / 2.0, dim=0)
        rows.append(sum(w * row for w, row in zip(weights, v, strict=True)))
    out = torch.stack(rows) @ layer.out.weight[:, :, 0, 0].t() + layer.out.bias
    torch.testing.assert_close(layer(x)[0].flatten(1), x[0].flatten(1) + out.t())


def test_constant_grids_decode_alike_and_pixels_belong_to_their_cell():
    torch.manual_seed(0)
    decoder = ConvDecoder(
        in_channels=4, channels=4, multipliers=(1,), num_res_blocks=0, attention_grids=(),
        grid=4, norm_groups=2, output_patch=2,
    )  # fmt: skip
    x = torch.randn(2, 4, 4, 4)
    both = decoder(x)
    torch.testing.assert_close(decoder(x[1:]), both[1:])  # an image does not see its neighbours
    assert both.shape == (2, 3, 8, 8)
