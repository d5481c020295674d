from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset
from torch_fidelity import calculate_metrics, register_feature_extractor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.image.fid import FrechetInceptionDistance

from vilau.errors import CheckpointError, DataError
from vilau.layers.detector import SceneDetector
from vilau.metrics.assets import WORLD_FEATURES, WORLD_VERIFIER, load_world_detector
from vilau.metrics.detector_card import changes, drawn_images
from vilau.metrics.frechet import FrechetDistance, inception_weights
from vilau.metrics.similarity import LARGEST_PSNR, PairedSimilarity, PerceptualDistance


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return drawn_images(300)[0]


class WorldExtractor(FeatureExtractorBase):
    """The shipped features in torch-fidelity's form."""

    def __init__(self, name, features_list, **kwargs):
        super().__init__(name, features_list)
        self.detector = load_world_detector(WORLD_FEATURES)

    @staticmethod
    def get_provided_features_list():
        return ("pool",)

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
        return "pool"

    @staticmethod
    def can_be_compiled():
        return False

    @staticmethod
    def get_dummy_input_for_compile():
        return None

    def forward(self, images):
        return (self.detector.features(images),)


WORLD_EXTRACTOR = "vilau-world"
register_feature_extractor(WORLD_EXTRACTOR, WorldExtractor)


@dataclass
class Pictures(Dataset):
    images: torch.Tensor

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def test_equals_torch_fidelity_on_the_world_features(pictures) -> None:
    first, second = pictures[:150], pictures[150:]
    distance = FrechetDistance("world")
    for part in first.split(60):
        distance.update(part, real=True)
    for part in second.split(70):
        distance.update(part, real=False)
    theirs = calculate_metrics(
        input1=Pictures(first),
        input2=Pictures(second),
        cuda=False,
        fid=True,
        feature_extractor=WORLD_EXTRACTOR,
        verbose=False,
        cache=False,
        save_cpu_ram=True,
    )["frechet_inception_distance"]
    assert float(distance.compute()) == pytest.approx(theirs, rel=1e-4)


def test_equals_the_formula_in_numpy(pictures) -> None:
    distance = FrechetDistance("world")
    assert isinstance(distance, FrechetInceptionDistance)
    distance.update(pictures[:150], real=True)
    distance.update(pictures[150:], real=False)
    detector = load_world_detector(WORLD_FEATURES)
    a, b = (detector.features(part).double().numpy() for part in pictures.split(150))
    product = np.cov(a.T) @ np.cov(b.T)
    trace = np.sqrt(np.linalg.eigvals(product).astype(complex)).real.sum()
    by_hand = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T)) - 2 * trace
    assert float(distance.compute()) == pytest.approx(by_hand, rel=1e-4)
    assert distance.real_features_sum.dtype == torch.float64


def test_it_notices_spoilt_pictures(pictures) -> None:
    def to_changed(name: str) -> float:
        distance = FrechetDistance("world")
        distance.update(pictures, real=True)
        distance.update(changes()[name](pictures), real=False)
        return float(distance.compute())

    assert to_changed("clean") == pytest.approx(0.0, abs=1e-3)
    assert to_changed("blur x1") > 0.2
    assert to_changed("blur x3") > to_changed("blur x1")
    assert to_changed("noise 16") > to_changed("noise 8") > 0.05


def test_frechet_distance_takes_bytes_and_two_images(pictures) -> None:
    distance = FrechetDistance("world")
    with pytest.raises(TypeError, match="uint8"):
        distance.update(pictures[:2].float(), real=True)
    distance.update(pictures[:1], real=True)
    distance.update(pictures[:2], real=False)
    with pytest.raises(DataError, match="has 1 real and 2 to compare"):
        distance.compute()


def test_missing_inception_weights_are_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(CheckpointError, match=r"put weights-inception.*features: world"):
        FrechetDistance("inception")
    with pytest.raises(CheckpointError, match=r"at .*mine\.pth"):
        inception_weights(str(tmp_path / "mine.pth"))


def test_a_detector_of_another_world_is_refused(tmp_path) -> None:
    detector = load_world_detector(WORLD_VERIFIER)
    other = SceneDetector(
        attributes=detector.attributes,
        backgrounds=detector.backgrounds,
        channels=(4, 4, 4),
        trained_on="drawn-world v0",
    )
    other.save(tmp_path)
    with pytest.raises(CheckpointError, match=r"trained on 'drawn-world v0'.*world_judges"):
        load_world_detector(tmp_path)


def test_psnr_and_ssim_are_means_over_images() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=generator)
    others = images.clone()
    others[1] = (images[1].int() + 10).clamp(max=255).to(torch.uint8)
    others[2] = 255 - images[2]
    metric = PairedSimilarity()
    metric.update(images[1:2], others[1:2])
    error = (images[1].double() - others[1].double()).square().mean()
    first = 10 * torch.log10(255**2 / error)
    assert metric.compute()["psnr"] == pytest.approx(float(first), rel=1e-5)
    metric.update(images[:1], others[:1])
    assert metric.compute()["psnr"] == pytest.approx((float(first) + LARGEST_PSNR) / 2, rel=1e-5)
    metric.reset()
    metric.update(images[:4], others[:4])
    metric.update(images[4:], others[4:])
    whole = structural_similarity_index_measure(others.float(), images.float(), data_range=255.0)
    assert metric.compute()["ssim"] == pytest.approx(float(whole), rel=1e-5)


def test_missing_lpips_weights_are_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(CheckpointError, match=r"put vgg16-397923af\.pth .* at .*lpips: null"):
        PerceptualDistance("vgg")
