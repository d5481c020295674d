"""What the callbacks report is what torch-fidelity and torchmetrics say of the same two folders of PNG files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch_fidelity import calculate_metrics
from torch_fidelity.metric_isc import isc_features_to_metric
from torchmetrics.image.fid import FrechetInceptionDistance

from tests.callbacks.test_evaluation_callbacks import prompt_batches
from tests.callbacks.toys import Toy, image_batch, loader, trainer
from tests.metrics.test_distances import WORLD_EXTRACTOR
from vilau.callbacks.generation_fid import GenerationFID
from vilau.callbacks.reconstruction_fid import ReconstructionFID
from vilau.errors import DataError
from vilau.metrics.assets import WORLD_FEATURES, load_world_detector
from vilau.metrics.detector_card import drawn_images
from vilau.metrics.frechet import INCEPTION_FILE, WorldFeatures
from vilau.metrics.image_folder import image_files, read_images


def written(folder: Path, images: torch.Tensor) -> str:
    folder.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{index:04}.png")
    return str(folder)


def torchmetrics_fid(first: str, second: str) -> float:
    """Of the files of two folders, by torchmetrics' own class."""
    network = WorldFeatures(load_world_detector(WORLD_FEATURES))
    metric = FrechetInceptionDistance(feature=network, normalize=False)
    for folder, real in ((first, True), (second, False)):
        files = [np.array(Image.open(file)) for file in sorted(Path(folder).iterdir())]
        metric.update(torch.from_numpy(np.stack(files)).permute(0, 3, 1, 2), real=real)
    return float(metric.compute())


def fidelity(first: str, second: str) -> float:
    return calculate_metrics(
        input1=first, input2=second, cuda=False, fid=True, feature_extractor=WORLD_EXTRACTOR, verbose=False,
        cache=False, save_cpu_ram=True,
    )["frechet_inception_distance"]  # fmt: skip


class Darker(Toy):
    """Draws its references darker."""

    def draw(self, prompts, *, seed, images=None):
        return (images * 0.8).round().to(torch.uint8)


class Paler(Toy):
    """Draws some images paler, one after another."""

    def __init__(self, images):
        super().__init__()
        self.images = iter(images)

    def draw(self, prompts, *, seed, images=None):
        drawn = torch.stack([next(self.images) for _ in prompts])
        return (drawn * 0.6 + 100).round().to(torch.uint8)


def test_rfid_and_fid(tmp_path) -> None:
    images, scenes = drawn_images(120, start=900)
    real = written(tmp_path / "real", images)
    again = written(tmp_path / "again", Toy.worse(images, 0))
    darker = written(tmp_path / "darker", Darker().draw([], seed=0, images=images))
    pairs = [image_batch(images[i : i + 50], scenes[i : i + 50]) for i in (0, 50, 100)]
    (seen,) = trainer(tmp_path, ReconstructionFID()).validate(Toy(), loader(*pairs), verbose=False)
    (drawn,) = trainer(tmp_path, GenerationFID()).test(
        Darker(), loader(*prompt_batches(120, 40)), verbose=False
    )
    prompts = prompt_batches(120, 40)
    for batch in prompts:
        batch.references = None
    callback = GenerationFID(reference=str(tmp_path / "references"))
    (tmp_path / "references").mkdir()
    written(tmp_path / "references" / "a", images[:70])
    written(tmp_path / "references" / "b", images[70:])
    (beside,) = trainer(tmp_path, callback).test(Paler(images), loader(*prompts), verbose=False)
    assert set(beside) == {"test/fid"}
    assert callback.passports["test/fid"].reference.startswith("120 real images ")
    assert "lacks rank" not in callback.passports["test/fid"].details
    paler = written(tmp_path / "paler", Paler(images).draw(["p"] * 120, seed=0))
    for value, folder in (
        (seen["val/rfid"], again), (drawn["test/fid"], darker), (beside["test/fid"], paler),
    ):  # fmt: skip
        assert value == pytest.approx(fidelity(real, folder), rel=1e-3)
        assert value == pytest.approx(torchmetrics_fid(real, folder), rel=1e-5)
        assert value > 0.1


class Logits(torch.nn.Module):
    """In Inception's place, which is compared with torch-fidelity's elsewhere: logits of uint8 images."""

    def __init__(self, **settings: object) -> None:
        super().__init__()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.double().mean(dim=(2, 3)) / 8 + images[:, :, 5, 7].double() / 40


def test_inception_score(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("vilau.metrics.inception.NoTrainInceptionV3", Logits)
    (tmp_path / "checkpoints").mkdir()
    torch.save({"weight": torch.zeros(1)}, tmp_path / "checkpoints" / INCEPTION_FILE)
    callback = GenerationFID(inception_score=True)
    batches = prompt_batches(28, 8)
    images = torch.cat([batch.references for batch in batches])
    # Their first_index says which places of the set they hold.
    mixed = [batches[place] for place in (3, 0, 2, 1)]
    (values,) = trainer(tmp_path, callback).test(Toy(), loader(*mixed), verbose=False)
    theirs = isc_features_to_metric(Logits()(images), splits=10)
    ours = [values[f"test/inception_score{end}"] for end in ("", "_sd")]
    expected = [theirs[f"inception_score_{name}"] for name in ("mean", "std")]
    assert ours == pytest.approx(expected, rel=1e-5)
    assert ours[0] > 1.1
    passport = callback.passports["test/inception_score"]
    assert passport.num_samples == 28
    assert "10 splits" in passport.details
    assert passport.features.startswith("Inception logits without bias ")
    # FID of so few in so many features is no number to compare with, and says so.
    details = [callback.passports[f"test/{name}"].details for name in ("fid", "fid_floor")]
    assert "lacks rank: 28 images for 64 features" in details[0]
    assert "lacks rank: 14 images for 64 features" in details[1]


def test_a_reference_folder_that_cannot_serve_is_named_before_anything_is_drawn(tmp_path) -> None:
    class NeverReached(Toy):
        def test_step(self, batch, batch_idx):
            raise AssertionError("the run began")

    (batch,) = prompt_batches(2, 2)

    def told(match: str) -> None:
        callback = GenerationFID(reference=str(tmp_path / "real"))
        with pytest.raises(DataError, match=match):
            trainer(tmp_path, callback).test(NeverReached(), loader(batch), verbose=False)

    told("real is not there; write a folder of real images")
    folder = tmp_path / "real"
    written(folder, batch.references[:1])
    (folder / "notes.txt").write_text("no image")
    told(r"holds 1 images .* needs 2 or more, and more than there are features .* put more images")
    (folder / "broken.png").write_bytes(b"\x89PNG")
    told(r"broken\.png in the reference folder cannot be read as an image")


def test_images_of_a_folder_come_as_rgb_and_as_large_as_they_are(tmp_path) -> None:
    Image.new("L", (9, 7), 40).save(tmp_path / "a.png")
    Image.new("CMYK", (9, 7), (0, 0, 0, 0)).save(tmp_path / "b.jpg")
    Image.new("RGBA", (5, 5), (10, 20, 30, 255)).save(tmp_path / "c.png")
    parts = list(read_images(image_files(str(tmp_path))))
    assert [tuple(part.shape) for part in parts] == [(2, 3, 7, 9), (1, 3, 5, 5)]
    assert parts[0][0].unique().tolist() == [40]
    assert parts[0][1].unique().tolist() == [255]
    assert parts[1][0, :, 0, 0].tolist() == [10, 20, 30]
