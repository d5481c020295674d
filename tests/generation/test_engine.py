import torch

from vilau.generation.engine import draw_positions, write_tokens


def drawn(**settings):
    """Three positions by a toy model; also what its backbone saw and which positions were asked for."""
    seen, asked = [], []

    def backbone(inputs):
        seen.append(inputs.clone())
        return inputs[:, -1] + 1.0

    def draw(hidden, position):
        asked.append(position)
        return hidden[:1].long()  # one conditional row of two

    def embed(codes):
        return codes.float().repeat(2, 1, 1) * 10

    prompt = torch.tensor([[[0.0], [1.0]], [[0.0], [5.0]]])
    codes = draw_positions(backbone, prompt, num_positions=3, draw=draw, embed=embed, **settings)
    return codes.tolist(), seen, asked


def test_positions_are_drawn_in_order_from_the_state_before_them():
    heard = []
    codes, seen, asked = drawn(progress=lambda *counts: heard.append(counts))
    assert codes == [[[2], [21], [211]]]
    assert asked == [0, 1, 2]
    assert heard == [(1, 3), (2, 3), (3, 3)]
    assert [tuple(x.shape) for x in seen] == [(2, 2, 1), (2, 1, 1), (2, 1, 1)]  # none for the last


def test_given_positions_are_read_after_the_prompt_and_kept():
    codes, seen, asked = drawn(given=torch.tensor([[[7], [3]]]))
    assert codes == [[[7], [3], [31]]]
    assert asked == [2]
    assert [x[0, :, 0].tolist() for x in seen] == [[0.0, 1.0], [70.0, 30.0]]
    codes, seen, asked = drawn(given=torch.tensor([[[7], [3], [4]]]))
    assert (codes, seen, asked) == ([[[7], [3], [4]]], [], [])


def written(script, num_tokens, heard=None):
    """Tokens of a scripted model: a row of ``script`` for each step; and what it was fed."""
    fed = []

    def backbone(inputs):
        fed.append(inputs[:, 0, 0].tolist())
        return inputs[:, -1]

    tokens = write_tokens(
        backbone,
        torch.zeros(2, 1, 1),
        num_tokens=num_tokens,
        choose=lambda hidden, step: torch.tensor(script[step]),
        embed=lambda token: token.float()[:, None, None],
        ends=(9,),
        heard=heard,
    )
    return tokens.tolist(), fed


def test_a_row_that_has_ended_says_nothing_else():
    heard = []
    script = [(1, 2), (9, 3), (4, 4), (5, 9), (6, 6)]
    tokens, fed = written(script, 5, heard=lambda t: heard.append(t.shape[1]))
    assert tokens == [[1, 9, 9, 9], [2, 3, 4, 9]]
    assert fed == [[0, 0], [1, 2], [9, 3], [9, 4]]
    assert heard == [1, 2, 3, 4]


def test_writing_stops_at_the_allowed_number_of_tokens():
    assert written([(1, 2)] * 3, 2) == ([[1, 1], [2, 2]], [[0, 0], [1, 2]])
