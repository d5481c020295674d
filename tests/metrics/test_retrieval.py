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
    values = metric.compute()
    assert {value.item() for name, value in values.items() if "chance" not in name} == {1.0}
    assert values["text_to_image_r5_chance"] == pytest.approx(5 / 12)
    metric.reset()
    metric.update(torch.ones(12, 3), torch.ones(12, 3))
    values = metric.compute()
    assert {value.item() for name, value in values.items() if "chance" not in name} == {0.0}


def test_texts_of_one_key_are_one_text_that_is_true_of_several_images() -> None:
    images = torch.eye(4)
    texts = torch.tensor([[1.0, 0.9, 0, 0], [1.0, 0.9, 0, 0], [0, 0, 1.0, 0], [0, 0, 0.8, 1.0]])
    metric = RetrievalRecall(ks=(1, 2))
    metric.update(images[:2], texts[:2], keys=torch.tensor([7, 7]))
    metric.update(images[2:], texts[2:], keys=torch.tensor([5, 9]))
    values = metric.compute()
    # Three texts. As four, the text of images 0 and 1 would stand before itself.
    assert values["image_to_text_r1"] == 1.0
    assert values["text_to_image_r1"] == 1.0
    # By chance, one of three texts is right of each image; two, one and one of four images of a text.
    assert values["image_to_text_r1_chance"] == pytest.approx(1 / 3)
    assert values["text_to_image_r1_chance"] == pytest.approx((2 / 4 + 1 / 4 + 1 / 4) / 3)
    assert values["text_to_image_r2_chance"] == pytest.approx((5 / 6 + 1 / 2 + 1 / 2) / 3)
    metric.reset()
    wrong = torch.tensor([[0, 1.0, 0, 0], [0, 0, 1.0, 0], [0.1, 0, 0, 1.0]])
    metric.update(images[:3], wrong, keys=torch.tensor([0, 1, 2]))
    assert metric.compute()["image_to_text_r1"] == 0.0
    # Text 0 is also true of image 1, text 2 of image 0; text 8 never came.
    metric.add_true(torch.tensor([1, 0, 2]), torch.tensor([0, 2, 8]))
    assert metric.compute()["image_to_text_r1"] == pytest.approx(2 / 3)
    assert metric.compute()["text_to_image_r1"] == pytest.approx(2 / 3)


def test_texts_without_owners_are_refused() -> None:
    metric = RetrievalRecall()
    with pytest.raises(DataError, match="3 texts for 2 images and no owners"):
        metric.update(torch.eye(2), torch.eye(3)[:, :2])
    with pytest.raises(DataError, match="must be rows 0 to 1 of the images"):
        metric.update(torch.eye(2), torch.eye(2), torch.tensor([0, 2]))
    with pytest.raises(DataError, match="saw no images"):
        metric.compute()
