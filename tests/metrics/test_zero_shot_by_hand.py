"""Zero-shot accuracy of a tower equals a loop over images, classes and templates, written out."""

import pytest
import torch

from tests.models import tiny
from vilau.metrics.zero_shot import ZeroShotAccuracy, class_vectors

CLASSES = (
    "red circle",
    "blue star",
    "green ring",
    "white moon",
    "cyan cross",
    "red star",
    "orange square",
)
TEMPLATES = ("A {}!", "a photo of the {}.", "{}, on grass")


@torch.no_grad()
def by_hand(tower, images: torch.Tensor, labels: list[int]) -> tuple[float, float]:
    """Top-1 and top-5, one image, one class and one prompt at a time, texts made plain by hand."""
    first = five = 0
    for image, label in zip(images, labels, strict=True):
        seen = tower.image_features(image[None])[0]
        seen = seen / seen.norm()
        scores = []
        for name in CLASSES:
            mean = torch.zeros_like(seen)
            for template in TEMPLATES:
                plain = (
                    template.replace("{}", name).lower().translate({ord(c): None for c in "!.,"})
                )
                feature = tower.text_features([plain])[0]
                mean = mean + feature / feature.norm() / len(TEMPLATES)
            scores.append(float(seen @ (mean / mean.norm())))
        order = sorted(range(len(CLASSES)), key=lambda index: -scores[index])
        first += order[0] == label
        five += label in order[:5]
    return first / len(labels), five / len(labels)


def test_tower_with_templates_and_punctuation() -> None:
    tower = tiny.tower()
    images = torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    labels = [index % len(CLASSES) for index in range(len(images))]
    texts = [[template.replace("{}", name) for template in TEMPLATES] for name in CLASSES]
    vectors = class_vectors(tower.text_features, texts)
    metric = ZeroShotAccuracy()
    with torch.no_grad():
        for start in (0, 10):
            rows = slice(start, start + 10 if start == 0 else None)
            features = tower.image_features(images[rows])
            metric.update(features, torch.tensor(labels[rows]), vectors)
    values = metric.compute()
    top1, top5 = by_hand(tower, images, labels)
    assert float(values["top1"]) == pytest.approx(top1)
    assert float(values["top5"]) == pytest.approx(top5)
    assert 0 < top5 < 1
    # Capitals and punctuation mean nothing to SigLIP's texts; words do.
    loud = class_vectors(tower.text_features, [[t.upper() + "!?" for t in ts] for ts in texts])
    assert torch.allclose(vectors, loud, atol=1e-6)
    bare = class_vectors(tower.text_features, [[name] for name in CLASSES])
    assert not torch.allclose(vectors, bare, atol=1e-3)
