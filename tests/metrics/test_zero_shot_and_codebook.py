import math

import pytest
import torch
from torch.nn import functional as F

from vilau.metrics.codebook import CodebookUsage, ResidualEnergy
from vilau.metrics.zero_shot import CHUNK, ZeroShotAccuracy, class_vectors


def test_class_vectors_are_the_renormalised_mean_over_templates() -> None:
    table = {f"{c} {t}": F.normalize(torch.randn(6), dim=0) for c in range(5) for t in range(3)}
    texts = [[f"{c} {t}" for t in range(3)] for c in range(4)] + [["4 0"]]
    calls = []

    def text_features(prompts):
        calls.append(len(prompts))
        return torch.stack([table[prompt] for prompt in prompts])

    vectors = class_vectors(text_features, texts)
    assert calls == [13]
    by_hand = torch.stack(
        [
            (lambda mean: mean / mean.norm())(sum(table[text] for text in group) / len(group))
            for group in texts
        ]
    )
    assert torch.allclose(vectors, by_hand, atol=1e-6)
    # The mean is not the sum of unit vectors of unequal templates: order of the two steps matters.
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(5))


def test_many_prompts_are_embedded_in_pieces() -> None:
    calls = []

    def text_features(prompts):
        calls.append(len(prompts))
        return torch.tensor([[float(prompt), 1.0] for prompt in prompts])

    texts = [[str(i), str(i + 1)] for i in range(CHUNK)]
    vectors = class_vectors(text_features, texts)
    assert calls == [CHUNK, CHUNK]
    assert torch.allclose(vectors[7], F.normalize(torch.tensor([7.5, 1.0]), dim=0))


def test_zero_shot_accuracy_by_group() -> None:
    vectors = torch.eye(8)
    held_out = torch.zeros(8, dtype=torch.bool)
    held_out[[2, 3]] = True
    metric = ZeroShotAccuracy()
    features = torch.eye(8)[[0, 1, 1, 2]] * 5.0 + 0.01 * torch.arange(8)
    metric.update(features, torch.tensor([0, 1, 2, 2]), vectors, held_out)
    metric.update(torch.eye(8)[[3]] + 0.01 * torch.arange(8), torch.tensor([0]), vectors, held_out)
    scores = metric.compute()
    assert scores["top1"] == pytest.approx(3 / 5)
    assert scores["seen"] == pytest.approx(2 / 3)
    assert scores["held_out"] == pytest.approx(1 / 2)
    # Behind the best come classes 7, 6, 5, 4: classes 2 and 0 are not among the first five.
    assert scores["top5"] == pytest.approx(3 / 5)
    metric.reset()
    metric.update(torch.eye(8), torch.arange(8), vectors)
    assert "held_out" not in metric.compute()
    assert metric.compute()["top1"] == 1.0


def test_top5_with_fewer_classes() -> None:
    metric = ZeroShotAccuracy()
    metric.update(torch.tensor([[0.0, 1.0]]), torch.tensor([0]), torch.eye(2))
    assert metric.compute()["top1"] == 0.0
    assert metric.compute()["top5"] == 1.0


def test_codebook_usage_per_depth() -> None:
    metric = CodebookUsage(depth=2, codebook_size=8)
    codes = torch.tensor([[[0, 5], [1, 5]], [[2, 5], [3, 5]]])
    metric.update(codes[:1])
    metric.update(codes[1:])
    values = metric.compute()
    assert values["usage"].tolist() == [0.5, 0.125]
    assert values["perplexity"].tolist() == pytest.approx([4.0, 1.0])
    assert values["dead"].tolist() == [4, 7]


def test_perplexity_is_the_exponential_of_the_entropy() -> None:
    metric = CodebookUsage(depth=1, codebook_size=3)
    metric.update(torch.tensor([0, 0, 0, 1])[:, None])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert metric.compute()["perplexity"] == pytest.approx(math.exp(entropy))


def test_residual_energy_is_a_mean_over_images() -> None:
    metric = ResidualEnergy(depth=2)
    metric.update(torch.tensor([[0.5, 0.2], [0.7, 0.4]]))
    metric.update(torch.tensor([[0.9, 0.0]]))
    assert metric.compute().tolist() == pytest.approx([0.7, 0.2])
