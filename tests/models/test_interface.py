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
