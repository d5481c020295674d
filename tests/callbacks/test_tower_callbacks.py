import math

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.callbacks.toys import Mute, Toy, image_batch, loader, trainer
from vilau.callbacks.category_fid import CategoryFID
from vilau.callbacks.codebook_usage import CodebookUsage
from vilau.callbacks.generation_fid import GenerationFID
from vilau.callbacks.image_grid import ImageGrid
from vilau.callbacks.reconstruction_fid import ReconstructionFID
from vilau.callbacks.zero_shot import ZeroShot
from vilau.errors import CheckpointError, ConfigError, DataError
from vilau.metrics.detector_card import drawn_images
from vilau.metrics.similarity import PairedSimilarity
from vilau.types import LabelledImageBatch


@pytest.fixture(scope="module")
def drawn() -> tuple[torch.Tensor, list[str]]:
    return drawn_images(48)


def labelled(*colors: str) -> LabelledImageBatch:
    names = ["red", "green", "blue"]
    images = torch.zeros(len(colors), 3, 16, 16, dtype=torch.uint8)
    for index, color in enumerate(colors):
        images[index, names.index(color)] = 200
    return LabelledImageBatch(
        images,
        torch.tensor([names.index(color) for color in colors]),
        [[f"a {name}", f"a dark {name}"] for name in names],
        torch.tensor([False, False, True]),
    )


def test_reconstruction_fid(tmp_path, drawn) -> None:
    images, scenes = drawn
    callback = ReconstructionFID()
    run = trainer(tmp_path, callback)
    batches = [
        image_batch(images[start : start + 16], scenes[start : start + 16]) for start in (0, 16, 32)
    ]
    (values,) = run.validate(Toy(), loader(*batches), verbose=False)
    error = (images.double() - Toy.worse(images, 0).double()).square().mean(dim=(1, 2, 3))
    psnr = float((10 * torch.log10(255**2 / error)).mean())
    assert values["val/psnr"] == pytest.approx(psnr, rel=1e-4)
    assert 0 < values["val/rfid"] < 20
    assert values["val/ssim"] > 0.9
    assert values["val/recon_scene_exact"] > 0.9
    assert values["val/recon_object_shape"] > 0.9
    passport = callback.passports["val/rfid"]
    assert passport.num_samples == 48
    assert "world features" in passport.features
    assert "no crop, to 64 by antialiased bilinear resize" in passport.details
    lacking = f"; covariance lacks rank: 48 images for {callback.whole.distance.inception.num_features} features"
    assert passport.details.endswith(lacking)
    assert callback.passports["val/psnr"].details == ""
    assert "verifier" in callback.passports["val/recon_scene_exact"].features
    assert callback.passports.keys() == values.keys()
    # A second round starts anew and says the same.
    (again,) = run.validate(Toy(), loader(*batches), verbose=False)
    assert again == values


def test_reconstruction_of_photographs_has_no_scenes(tmp_path, drawn) -> None:
    callback = ReconstructionFID()
    (values,) = trainer(tmp_path, callback).validate(
        Toy(), loader(image_batch(drawn[0])), verbose=False
    )
    assert set(values) == {"val/rfid", "val/psnr", "val/ssim"}
    assert callback.whole is not None
    assert callback.whole.scenes.judge is None


class NeverReached(Toy):
    def validation_step(self, batch, batch_idx: int):
        raise AssertionError("the run began")


def test_missing_weights_are_named_before_the_run(tmp_path, drawn, monkeypatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    for callback, file in (
        (ReconstructionFID(features="inception"), "weights-inception"),
        (ReconstructionFID(lpips="alex"), "alexnet-owt"),
        (GenerationFID(features="inception"), "weights-inception"),
        (CategoryFID(weights=str(tmp_path / "none")), "none holds no weights"),
    ):
        with pytest.raises(CheckpointError, match=file):
            trainer(tmp_path, callback).validate(
                NeverReached(), loader(image_batch(drawn[0])), verbose=False
            )


def test_lpips_where_its_weights_are(tmp_path, drawn, monkeypatch) -> None:
    class Difference(PairedSimilarity):
        def __init__(self, backbone: str, weights: str | None) -> None:
            super().__init__()
            self.features_name = f"{backbone} {weights}"

        def update(self, first: torch.Tensor, second: torch.Tensor) -> None:
            assert first.min() >= -1
            assert second.max() <= 1
            super().update((first + 1) * 127.5, (second + 1) * 127.5)

        def compute(self) -> torch.Tensor:
            return super().compute()["psnr"]

    monkeypatch.setattr("vilau.callbacks.reconstructions.PerceptualDistance", Difference)
    callback = ReconstructionFID(lpips="vgg", lpips_weights="mine.pth")
    (values,) = trainer(tmp_path, callback).validate(
        Toy(), loader(image_batch(drawn[0][:8])), verbose=False
    )
    assert values["val/lpips"] == pytest.approx(values["val/psnr"], rel=1e-3)
    assert callback.passports["val/lpips"].metric.startswith("LPIPS vgg")
    assert callback.passports["val/lpips"].features == "vgg mine.pth"


def test_one_image_is_too_few(tmp_path, drawn) -> None:
    with pytest.raises(DataError, match="1 real and 1 to compare"):
        trainer(tmp_path, ReconstructionFID()).validate(
            Toy(), loader(image_batch(drawn[0][:1])), verbose=False
        )


def test_zero_shot(tmp_path) -> None:
    callback, module = ZeroShot(), Toy()
    wrong = labelled("red", "blue")
    wrong.labels = torch.tensor([1, 2])
    run = trainer(tmp_path, callback)
    (values,) = run.validate(module, loader(labelled("red", "green"), wrong), verbose=False)
    assert values["val/zero_shot_top1"] == pytest.approx(3 / 4)
    assert values["val/zero_shot_chance"] == pytest.approx(1 / 3)
    assert callback.passports["val/zero_shot_chance"].metric.startswith("accuracy of a guess")
    assert values["val/zero_shot_seen"] == pytest.approx(2 / 3)
    assert values["val/zero_shot_held_out"] == 1.0
    assert len(module.texts_embedded) == 6  # once, not once per batch
    assert "3 classes" in callback.passports["val/zero_shot_top1"].details
    run.validate(module, loader(labelled("red")), verbose=False)
    assert len(module.texts_embedded) == 12  # again: the text encoder may have changed


@pytest.mark.parametrize("depth", [1, 3])
def test_codebook_usage(tmp_path, drawn, depth: int) -> None:
    module = Toy()
    module.depth = depth
    callback = CodebookUsage()
    batches = [image_batch(drawn[0][:4]), image_batch(drawn[0][4:6])]
    (values,) = trainer(tmp_path, callback).validate(module, loader(*batches), verbose=False)
    names = ("codebook_usage", "codebook_perplexity", "codebook_dead", "residual_energy")
    assert set(values) == {f"val/{name}_d{d}" for name in names for d in range(1, depth + 1)}
    assert values["val/codebook_usage_d1"] == 4 / 16
    assert values["val/codebook_perplexity_d1"] == pytest.approx(4.0)
    assert values["val/codebook_dead_d1"] == 12
    assert values[f"val/residual_energy_d{depth}"] == pytest.approx(0.5 ** (depth - 1))
    assert callback.passports["val/codebook_usage_d1"].num_samples == 6


@pytest.mark.parametrize(
    "callback", [ZeroShot(), CodebookUsage(), ImageGrid(prompts=["a red star"])]
)
def test_a_module_that_cannot_is_named(tmp_path, drawn, callback) -> None:
    batches = loader(image_batch(drawn[0][:4]), labelled("red"))
    name = type(callback).__name__
    with pytest.raises(ConfigError, match=rf"{name}.*Mute"):
        trainer(tmp_path, callback).validate(Mute(), batches, verbose=False)


def test_callbacks_pass_over_batches_and_sanity_checks_that_are_not_theirs(tmp_path, drawn) -> None:
    callbacks = [ReconstructionFID(), ZeroShot(), CodebookUsage(), ImageGrid(num_images=2)]
    module = Toy()
    run = trainer(tmp_path, *callbacks, max_steps=1, limit_train_batches=1, num_sanity_val_steps=2)
    sanity_seen = []

    original = module.validation_step

    def validation_step(batch, batch_idx):
        sanity_seen.append((run.sanity_checking, dict(run.callback_metrics)))
        return original(batch, batch_idx)

    module.validation_step = validation_step
    train = loader(image_batch(drawn[0][:2]))
    run.fit(module, train, loader(image_batch(drawn[0][:4]), image_batch(drawn[0][4:9])))
    assert [sanity for sanity, _ in sanity_seen] == [True, True, False, False]
    assert all(not metrics for _, metrics in sanity_seen)
    assert "val/rfid" in run.callback_metrics
    assert callbacks[0].passports["val/rfid"].num_samples == 9
    assert not any("zero_shot" in name for name in run.callback_metrics)
    assert callbacks[1].passports == {}


def test_image_grid_writes_pictures(tmp_path, drawn) -> None:
    logger = TensorBoardLogger(tmp_path, name="", version="")
    callback = ImageGrid(num_images=3, prompts=["a red star", "a very long text " * 6], seed=7)
    run = trainer(tmp_path, callback, logger=logger)
    run.validate(
        Toy(), loader(image_batch(drawn[0][:2]), image_batch(drawn[0][2:6])), verbose=False
    )
    logger.finalize("success")
    with Image.open(tmp_path / "images" / "val-reconstructions-step0000000.png") as sheet:
        # Three rows and three columns (original, two depths) of pictures enlarged to 128 pixels.
        assert sheet.width == 3 * 132 + 4
        assert 3 * 132 <= sheet.height <= 3 * 132 + 24
        first = torch.tensor(
            list(sheet.crop((4, sheet.height - 132, 132, sheet.height - 4)).getdata())
        )
        original = drawn[0][2].permute(1, 2, 0)
        enlarged = original.repeat_interleave(2, 0).repeat_interleave(2, 1).reshape(-1, 3)
        assert torch.equal(first, enlarged.long())
    with Image.open(tmp_path / "images" / "val-drawings-step0000000.png") as sheet:
        assert sheet.getpixel((10, 10)) == (107, 107, 107)
        assert sheet.getcolors(1 << 16) is not None
        assert len(sheet.getcolors(1 << 16)) > 2  # picture, paper and letters
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0})
    events.Reload()
    assert set(events.Tags()["images"]) == {"val/reconstructions", "val/drawings"}


def test_image_grid_refuses_no_images() -> None:
    with pytest.raises(ConfigError, match="num_images is 0; write 1 or more"):
        ImageGrid(num_images=0)


def test_perplexity_never_exceeds_the_codebook(tmp_path, drawn) -> None:
    callback = CodebookUsage()
    (values,) = trainer(tmp_path, callback).validate(
        Toy(), loader(image_batch(drawn[0])), verbose=False
    )
    assert all(math.isfinite(value) for value in values.values())
    assert max(v for k, v in values.items() if "perplexity" in k) <= 16
