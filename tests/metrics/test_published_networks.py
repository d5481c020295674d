"""With the same weights, our numbers are those of torch-fidelity, torchmetrics and lpips.

The published weights are not needed: networks of the same shape with random weights serve.
"""

from pathlib import Path

import lpips
import numpy as np
import pytest
import torch
import torch_fidelity.feature_extractor_inceptionv3 as fidelity
import torchvision
from PIL import Image
from torch_fidelity import calculate_metrics
from torch_fidelity.metric_isc import isc_features_to_metric
from torchmetrics.functional.image import peak_signal_noise_ratio
from torchmetrics.image.fid import FrechetInceptionDistance

from tests.metrics.random_networks import random_inception
from vilau.errors import CheckpointError, DataError
from vilau.metrics.detector_card import drawn_images
from vilau.metrics.frechet import FrechetDistance
from vilau.metrics.inception import InceptionScore
from vilau.metrics.similarity import PairedSimilarity, PerceptualDistance, psnr

NUM_IMAGES = 24


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory) -> Path:
    """A file like the published one, with random weights."""
    return random_inception(tmp_path_factory.mktemp("weights") / "inception.pth")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """Drawn pictures, and the same darkened and turned, as PNG files."""
    pictures = drawn_images(NUM_IMAGES)[0]
    pair = []
    for name, images in (("real", pictures), ("other", (pictures * 0.7).round().byte().flip(-1))):
        folder = tmp_path_factory.mktemp(name)
        for index, image in enumerate(images):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{index:03}.png")
        pair.append(folder)
    return pair[0], pair[1]


def read(folder: Path) -> torch.Tensor:
    images = [np.array(Image.open(file)) for file in sorted(folder.iterdir())]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def test_fid_of_two_folders_is_torch_fidelitys_and_torchmetrics(inception_file, folders) -> None:
    ours = FrechetDistance("inception", str(inception_file), layer=64)
    library = FrechetInceptionDistance(
        feature=64, feature_extractor_weights_path=str(inception_file), antialias=False
    )
    antialiased = FrechetInceptionDistance(
        feature=64, feature_extractor_weights_path=str(inception_file), antialias=True
    )
    for folder, real in zip(folders, (True, False), strict=True):
        for images in read(folder).split(10):
            for metric in (ours, library, antialiased):
                metric.update(images, real=real)
    theirs = calculate_metrics(
        input1=str(folders[0]), input2=str(folders[1]), cuda=False, fid=True, verbose=False,
        feature_extractor_weights_path=str(inception_file), feature_layer_fid="64", cache=False,
        save_cpu_ram=True, batch_size=10,
    )["frechet_inception_distance"]  # fmt: skip
    with pytest.warns(UserWarning, match="in 64 features needs 65 images or more on each side"):
        distance = float(ours.compute())
    assert distance == pytest.approx(theirs, rel=1e-3)
    assert distance == pytest.approx(float(library.compute()), rel=1e-6)
    assert distance > 0
    # The resize is no detail, which is why the passport names it.
    assert abs(float(antialiased.compute()) / theirs - 1) > 1e-4  # far more where images shrink
    assert "without antialiasing" in ours.preparation
    assert ours.features_name.startswith("Inception pool 64 ")


def test_inception_score_is_torch_fidelitys(inception_file, folders) -> None:
    images = read(folders[0])[:6]
    score = InceptionScore(str(inception_file), splits=3)
    logits = fidelity.FeatureExtractorInceptionV3(
        "inception-v3-compat",
        ["logits_unbiased"],
        feature_extractor_weights_path=str(inception_file),
    )
    theirs = isc_features_to_metric(logits(images)[0], splits=3)
    score.update(images[:4])
    score.update(images[4:])
    ours = score.compute()
    assert float(ours["mean"]) == pytest.approx(theirs["inception_score_mean"], rel=1e-5)
    assert float(ours["sd"]) == pytest.approx(theirs["inception_score_std"], rel=1e-4)
    assert float(ours["mean"]) > 1.01
    score.reset()
    shared = torch.tensor([1, 3, 5]), torch.tensor([0, 2, 4])
    for indices in shared:  # as two ranks would share them
        score.update(images[indices], indices)
    assert float(score.compute()["mean"]) == pytest.approx(float(ours["mean"]), rel=1e-6)
    score.reset()
    score.update(images[:2])
    with pytest.raises(DataError, match="of 3 splits needs 3 images or more, but has 2"):
        score.compute()


def test_inception_weights_are_tensors_alone(tmp_path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"weights\.pth cannot be read as weights"):
        FrechetDistance("inception", str(file))
    torch.save({"a": print}, file)  # a function: pickle alone could bring it back
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        InceptionScore(str(file))
    torch.save([1.0], file)
    with pytest.raises(CheckpointError, match="holds no state dictionary"):
        FrechetDistance("inception", str(file))


@pytest.mark.parametrize("backbone", ["alex", "squeeze"])
def test_lpips_is_the_librarys(backbone, tmp_path, folders) -> None:
    torch.manual_seed(0)
    name = {"alex": "alexnet", "squeeze": "squeezenet1_1"}[backbone]
    weights = torchvision.models.get_model(name, weights=None).state_dict()
    file = tmp_path / "backbone.pth"
    torch.save(weights, file)
    library = lpips.LPIPS(net=backbone, pnet_rand=True, verbose=False)
    mine = library.net.state_dict()
    features = {name: "features." + ".".join(name.split(".")[1:]) for name in mine}
    library.net.load_state_dict({name: weights[theirs] for name, theirs in features.items()})
    pair = [read(folder)[:5].float() / 127.5 - 1 for folder in folders]
    metric = PerceptualDistance(backbone, str(file))
    metric.update(pair[0][:3], pair[1][:3])
    metric.update(pair[0][3:4], pair[1][3:4])
    metric.update(pair[0][4:], pair[1][4:])
    theirs = float(library(*pair).detach().mean())
    assert float(metric.compute()) == pytest.approx(theirs, rel=1e-4)
    assert theirs > 1e-3
    other = "squeeze" if backbone == "alex" else "alex"
    with pytest.raises(CheckpointError, match=f"is no file of torchvision's {other}: it lacks"):
        PerceptualDistance(other, str(file))


def test_psnr_is_torchmetrics(folders) -> None:
    pair = [read(folder)[:4] for folder in folders]
    metric = PairedSimilarity()
    metric.update(*pair)
    each = [
        peak_signal_noise_ratio(b.float()[None], a.float()[None], data_range=255.0)
        for a, b in zip(*pair, strict=True)
    ]
    assert torch.allclose(psnr(*pair), torch.stack(each), rtol=1e-5)
    assert float(metric.compute()["psnr"]) == pytest.approx(
        float(torch.stack(each).mean()), rel=1e-5
    )
