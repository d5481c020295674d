import torch

from vilau.generation.engine import draw_positions


def test_positions_are_drawn_in_order_from_the_state_before_them():
    seen, asked = [], []

    def backbone(inputs):
        seen.append(inputs.clone())
        return inputs[:, -1] + 1.0

    def draw(hidden, position):
        asked.append(position)
        return hidden[:1].long()  # one conditional row of two

    def embed(codes):
        return codes.float().repeat(2, 1)[:, None] * 10

    prompt = torch.tensor([[[0.0], [1.0]], [[0.0], [5.0]]])
    codes = draw_positions(backbone, prompt, num_positions=3, draw=draw, embed=embed)
    assert codes.tolist() == [[[2], [21], [211]]]
    assert asked == [0, 1, 2]
    assert [tuple(x.shape) for x in seen] == [(2, 2, 1), (2, 1, 1), (2, 1, 1)]  # none for the last
