import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from vilau.errors import DataError
from vilau.layers.detector import SceneDetector
from vilau.layers.spoiling import add_noise, blur, degrade, halve_and_restore
from vilau.training.detector import SceneDetectorTraining
from vilau.types import Exports, ImageTextBatch

ATTRIBUTES = {
    "shape": ["circle"],
    "color": ["red", "blue"],
    "size": ["small"],
    "texture": ["solid"],
}


class Discs(IterableDataset):
    """One red or blue disc on black or white."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        yy, xx = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
        for _ in range(self.batches):
            images, scenes = [], []
            for _ in range(16):
                x, y, blue, light = torch.rand(4, generator=generator).tolist()
                x, y, blue, light = 5 + 20 * x, 5 + 20 * y, int(blue > 0.5), int(light > 0.5)
                image = torch.full((3, 32, 32), 200 * light, dtype=torch.uint8)
                disc = (xx - x) ** 2 + (yy - y) ** 2 < 25
                image[:, disc] = 0
                image[2 * blue, disc] = 255
                color, ground = ("red", "blue")[blue], ("black", "white")[light]
                images.append(image)
                scenes.append(
                    f'{{"things":[["circle","{color}","small","solid",{x},{y},5.0]],'
                    f'"on":"{ground}","px":32}}'
                )
            yield ImageTextBatch(torch.stack(images), [""] * 16, None, scenes)


def module(**changes: object) -> SceneDetectorTraining:
    settings = {
        "attributes": ATTRIBUTES,
        "backgrounds": ["black", "white"],
        "image_size": 32,
        "channels": (8, 12, 16),
        "learning_rate": 1e-2,
    }
    return SceneDetectorTraining(**(settings | changes))


def test_it_learns_and_exports(tmp_path) -> None:
    pl.seed_everything(0)
    training = module(augment=False, trained_on="discs")
    trainer = pl.Trainer(
        max_steps=120,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    loader = DataLoader(Discs(120), batch_size=None)
    trainer.fit(training, loader, DataLoader(Discs(2), batch_size=None))
    metrics = trainer.callback_metrics
    assert metrics["val/scene_exact"] > 0.8
    assert metrics["val/full_exact"] > 0.8
    assert metrics["val/count"] >= metrics["val/scene_exact"]
    assert metrics["val/color"] > 0.7
    assert isinstance(training, Exports)
    training.export(str(tmp_path / "model"))
    batch = next(iter(Discs(1)))
    loaded = SceneDetector.load(tmp_path / "model")
    assert loaded.trained_on == "discs"
    assert torch.allclose(
        loaded.features(batch.images), training.detector.eval().features(batch.images), atol=1e-6
    )
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = SceneDetectorTraining.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert again.detector.attributes == ATTRIBUTES


def test_images_without_scenes_are_refused() -> None:
    batch = ImageTextBatch(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), ["", ""])
    with pytest.raises(DataError, match="2 images came with 0 ground-truth scenes"):
        module().training_step(batch, 0)


def test_spoiling_keeps_range_and_follows_the_seed() -> None:
    pixels = torch.rand(64, 3, 16, 16) * 2 - 1
    torch.manual_seed(3)
    first = degrade(pixels)
    torch.manual_seed(3)
    assert torch.equal(first, degrade(pixels))
    assert first.abs().max() <= 1
    changed = (first != pixels).flatten(1).any(dim=1)
    assert changed.any()
    assert not changed.all()  # the judge must see clean pictures too


def test_spoilers() -> None:
    flat = torch.full((1, 3, 8, 8), 0.25)
    assert torch.allclose(blur(flat), flat)
    assert torch.allclose(halve_and_restore(flat), flat)
    dot = torch.zeros(1, 3, 8, 8)
    dot[..., 4, 4] = 1.0
    assert blur(dot)[0, 0, 4, 4] == 0.5
    assert blur(dot)[0, 0, 3, 4] == 0.125
    assert blur(dot).sum() == pytest.approx(3.0)
    noisy = add_noise(torch.zeros(1, 3, 64, 64), 8.0, generator=torch.Generator().manual_seed(0))
    assert float(noisy.std()) == pytest.approx(8 / 127.5, rel=0.05)
