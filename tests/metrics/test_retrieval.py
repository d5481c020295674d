import pytest
import torch
from torch.nn import functional as F

from vilau.errors import DataError
from vilau.metrics import retrieval
from vilau.metrics.retrieval import RetrievalRecall


def by_hand(images, texts, owners, k: int) -> tuple[float, float]:
    """R@k by sorting, one query at a time."""
    images, texts = F.normalize(images, dim=-1), F.normalize(texts, dim=-1)
    hits = []
    for row in range(len(images)):
        if row in owners:
            order = (texts @ images[row]).argsort(descending=True)[:k]
            hits.append(any(owners[int(i)] == row for i in order))
    back = [
        owners[row] in (images @ texts[row]).argsort(descending=True)[:k].tolist()
        for row in range(len(texts))
    ]
    return sum(hits) / len(hits), sum(back) / len(back)


def test_several_captions_per_image_equal_sorting_by_hand(monkeypatch) -> None:
    monkeypatch.setattr(retrieval, "CHUNK", 7)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(20, 6, generator=generator)
    owners = torch.randint(0, 19, (53,), generator=generator)  # the last image has no caption
    texts = images[owners] + 1.2 * torch.randn(53, 6, generator=generator)
    metric = RetrievalRecall(ks=(1, 3))
    for start in (0, 8):
        rows = slice(start, start + 8 if start == 0 else None)
        mine = (owners >= start) & (owners < (8 if start == 0 else 20))
        metric.update(images[rows], texts[mine], owners[mine] - start)
    values = metric.compute()
    for k in (1, 3):
        there, back = by_hand(images, texts, owners.tolist(), k)
        assert float(values[f"image_to_text_r{k}"]) == pytest.approx(there)
        assert float(values[f"text_to_image_r{k}"]) == pytest.approx(back)
        assert 0.1 < there < 1
    assert values["image_to_text_r1"] < values["image_to_text_r3"]


def test_pairs_and_features_that_are_all_alike() -> None:
    metric = RetrievalRecall()
    metric.update(torch.eye(12), torch.eye(12))
    assert all(value == 1 for value in metric.compute().values())
    metric.reset()
    metric.update(torch.ones(12, 3), torch.ones(12, 3))
    assert all(value == 0 for value in metric.compute().values())


def test_texts_without_owners_are_refused() -> None:
    metric = RetrievalRecall()
    with pytest.raises(DataError, match="3 texts for 2 images and no owners"):
        metric.update(torch.eye(2), torch.eye(3)[:, :2])
    with pytest.raises(DataError, match="must be rows 0 to 1 of the images"):
        metric.update(torch.eye(2), torch.eye(2), torch.tensor([0, 2]))
    with pytest.raises(DataError, match="saw no images"):
        metric.compute()
