import torch

from vilau.models.interface import CodeSpec, LossTerms


def test_positions_are_the_cells_of_all_levels():
    levels = ((1, 1), (2, 2), (4, 3))
    spec = CodeSpec(levels=levels, depth=1, codebook_size=8, embed_dim=4, image_size=16)
    assert spec.num_positions == 1 + 4 + 12


def test_losses_are_means_per_prediction_and_empty_terms_weigh_nothing():
    weight = torch.tensor(2.0, requires_grad=True)
    terms = LossTerms()
    terms.add("text", weight * 6.0, 3)
    terms.add("visual", weight * 0.0, 0)
    assert {name: float(v.detach()) for name, v in terms.means().items()} == {"text": 4.0}
    total = terms.total({"text": 0.5, "visual": 9.0})
    total.backward()
    assert float(total.detach()) == 2.0
    assert weight.grad == 1.0


def test_an_empty_batch_still_reaches_its_weights():
    weight = torch.tensor(2.0, requires_grad=True)
    terms = LossTerms()
    terms.add("text", weight * 5.0, 0)
    terms.total().backward()
    assert weight.grad == 0.0


def test_parts_divided_by_the_counts_of_their_step_sum_to_the_step():
    parts = [LossTerms(), LossTerms()]
    for terms, text, visual in zip(parts, ((6.0, 3), (2.0, 1)), ((0.0, 0), (10.0, 5)), strict=True):
        terms.add("text", torch.tensor(text[0]), text[1])
        terms.add("visual", torch.tensor(visual[0]), visual[1])
    totals = [terms.total({"visual": 0.5}, {"text": 4, "visual": 5}) for terms in parts]
    assert [float(total) for total in totals] == [1.5, 0.5 + 1.0]
    assert float(sum(totals)) == 8.0 / 4 + 0.5 * 10.0 / 5
