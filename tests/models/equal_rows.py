"""Whatever rows documents are laid out in, losses and gradients are those of one document a row."""

import torch


def sums_and_gradients(model, batch, **way):
    """Sums, counts and the gradient of every trained weight under the summed losses."""
    model.zero_grad()
    terms = model.losses(batch, **way)
    sum(terms.sums.values()).backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return {n: s.detach() for n, s in terms.sums.items()}, terms.counts, grads


def assert_equal_to_one_a_row(model, batch, **way):
    sums, counts, grads = sums_and_gradients(model, batch)
    packed_sums, packed_counts, packed_grads = sums_and_gradients(model, batch, **way)
    assert packed_counts == counts
    for name, expected in sums.items():
        torch.testing.assert_close(packed_sums[name], expected, rtol=1e-5, atol=1e-4)
    assert packed_grads.keys() == grads.keys()
    for name, expected in grads.items():
        bound = (
            1e-5 * float(expected.abs().max()) + 2e-5
        )  # sums over hundreds of positions, in float32
        torch.testing.assert_close(packed_grads[name], expected, rtol=0, atol=bound, msg=name)
