import math

import pytest
import torch
import torch.nn.functional as F

from vilau.layers.contrastive import sigmoid_contrastive_loss, softmax_contrastive_loss


def slow_loss(images, texts, scale, bias, matches):
    total = 0.0
    for i, image in enumerate(images):
        for j, text in enumerate(texts):
            logit = math.exp(scale) * float(image @ text) + bias
            sign = 1.0 if matches[i][j] else -1.0
            total += math.log1p(math.exp(-sign * logit))
    return total / len(images)


def sides(count=5, width=6):
    torch.manual_seed(0)
    return (F.normalize(torch.randn(count, width), dim=-1) for _ in range(2))


def test_equals_a_double_loop_over_the_diagonal():
    images, texts = sides()
    scale, bias = torch.tensor(1.3), torch.tensor(-2.0)
    loss = sigmoid_contrastive_loss(images, texts, logit_scale=scale, logit_bias=bias)
    diagonal = [[i == j for j in range(5)] for i in range(5)]
    torch.testing.assert_close(float(loss), slow_loss(images, texts, 1.3, -2.0, diagonal))


def test_every_true_caption_is_a_positive():
    images, texts = sides()
    matches = torch.eye(5, dtype=torch.bool)
    matches[0, 3] = matches[4, 1] = True
    settings = {"logit_scale": torch.tensor([1.3]), "logit_bias": torch.tensor([-2.0])}
    loss = sigmoid_contrastive_loss(images, texts, matches_BB=matches, **settings)
    torch.testing.assert_close(
        float(loss), slow_loss(images, texts, 1.3, -2.0, matches.tolist()), rtol=1e-5, atol=1e-6
    )
    assert loss != sigmoid_contrastive_loss(images, texts, **settings)


def test_gradient_pulls_matches_together():
    images, texts = sides()
    images.requires_grad_()
    loss = sigmoid_contrastive_loss(
        images, texts, logit_scale=torch.tensor(0.0), logit_bias=torch.tensor(0.0)
    )
    loss.backward()
    assert float((images.grad[0] * texts[0]).sum()) < 0  # descending raises their product


def slow_softmax(images, texts, scale, matches):
    logits = [[math.exp(scale) * float(i @ t) for t in texts] for i in images]
    total = 0.0
    for table, true in (
        (logits, matches),
        (list(zip(*logits, strict=True)), list(zip(*matches, strict=True))),
    ):
        for row, marks in zip(table, true, strict=True):
            norm = math.log(sum(math.exp(x) for x in row))
            chosen = [norm - x for x, mark in zip(row, marks, strict=True) if mark]
            total += sum(chosen) / len(chosen) / len(images) / 2
    return total  # fmt: skip


def test_softmax_loss_equals_plain_loops():
    images, texts = sides()
    diagonal = [[i == j for j in range(5)] for i in range(5)]
    loss = softmax_contrastive_loss(images, texts, logit_scale=torch.tensor(1.3))
    assert float(loss) == pytest.approx(slow_softmax(images, texts, 1.3, diagonal), rel=1e-5)
    matches = torch.eye(5, dtype=torch.bool)
    matches[0, 3] = matches[4, 1] = True
    shared = softmax_contrastive_loss(
        images, texts, logit_scale=torch.tensor(1.3), matches_BB=matches
    )
    assert float(shared) == pytest.approx(
        slow_softmax(images, texts, 1.3, matches.tolist()), rel=1e-5
    )
    parts = [
        softmax_contrastive_loss(images, texts, logit_scale=torch.tensor(1.3), own=own)
        for own in (slice(0, 2), slice(2, 5))
    ]
    assert float(2 * parts[0] + 3 * parts[1]) / 5 == pytest.approx(float(loss), rel=1e-5)


def test_logits_are_float32_under_autocast():
    """At a scale of 117 (SigLIP's own) bfloat16's products would be off by a quarter."""
    images, texts = sides(64, 32)
    settings = {"logit_scale": torch.tensor(4.76), "matches_BB": torch.eye(64, dtype=torch.bool)}
    for loss, more in (
        (sigmoid_contrastive_loss, {"logit_bias": torch.tensor(-16.0)}),
        (softmax_contrastive_loss, {}),
    ):
        exact = loss(images, texts, **settings, **more)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = loss(images, texts, **settings, **more)
        assert found == exact
