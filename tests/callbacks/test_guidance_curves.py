import pytest
import torch
from PIL import Image

from tests.callbacks.toys import Toy, loader, trainer
from vilau.callbacks.guidance_curves import GuidanceCurves
from vilau.data.caption_prompts import told
from vilau.errors import DataError
from vilau.metrics.detector_card import drawn_images
from vilau.types import GuidedDrawings, PromptBatch
from vilau.world.judge import requirements_to_json
from vilau.world.scene import Scene

SCALES = [1.0, 1.5, 5.0]
QUANTITIES = ("draw_prompt_exact", "draw_scene_exact", "draw_object_recall", "draw_count_right")


def prompt_batches(number: int, size: int) -> list[PromptBatch]:
    images, scenes = drawn_images(2 * number, start=900)
    return [
        PromptBatch(
            prompts=[f"prompt {start + index}" for index in range(size)],
            requirements=[
                requirements_to_json(told(Scene.from_json(text))) for text in scenes[start : start + size]
            ],
            skills=[[] for _ in range(size)],
            references=images[number + start : number + start + size],
            first_index=start,
            originals=images[start : start + size],
            scenes=list(scenes[start : start + size]),
        )
        for start in range(0, number, size)
    ]  # fmt: skip


class Sweep(Toy):
    """Draws black pictures at scale 1, the real ones at 1.5, those of other prompts at 5."""

    def test_step(self, batch, batch_idx: int):
        real = batch.originals
        drawn = torch.stack([torch.zeros_like(real), real, real.roll(1, dims=0)])
        return GuidedDrawings(SCALES, drawn, self.worse(real, 1))


def measured(tmp_path, batches, **settings):
    callback = GuidanceCurves(**settings)
    (values,) = trainer(tmp_path, callback).test(Sweep(), loader(*batches), verbose=False)
    return values, callback


def test_every_quantity_is_logged_at_every_scale_and_for_scale(tmp_path) -> None:
    values, callback = measured(tmp_path, prompt_batches(72, 24))
    endings = ("g1", "g1.5", "g5", "real", "reconstruction", "random", "empty")
    expected = {f"test/{name}_{end}" for name in QUANTITIES for end in endings}
    expected |= {f"test/fid_{end}" for end in endings if end != "random"}
    assert set(values) == expected == set(callback.passports)
    # Equal pictures have equal numbers, whichever line they stand on.
    for drawn, other in (("g1", "empty"), ("g1.5", "real"), ("g5", "random")):
        for name in QUANTITIES:
            assert values[f"test/{name}_{drawn}"] == values[f"test/{name}_{other}"], (name, drawn)
    assert values["test/fid_g1"] == pytest.approx(values["test/fid_empty"])
    assert values["test/fid_g1.5"] == pytest.approx(values["test/fid_real"])
    assert values["test/fid_g5"] == pytest.approx(values["test/fid_real"], rel=1e-4)  # the same set
    assert values["test/fid_real"] < values["test/fid_reconstruction"] < values["test/fid_empty"]
    assert values["test/draw_scene_exact_g1.5"] > 0.9 > 0.1 > values["test/draw_scene_exact_g5"]
    assert values["test/draw_prompt_exact_real"] > 0.85
    assert values["test/draw_scene_exact_empty"] == values["test/draw_object_recall_empty"] == 0
    assert 0 < values["test/draw_object_recall_random"] < 0.5


def test_numbers_of_one_column_share_their_passport(tmp_path) -> None:
    """What differs between two scales is the scale alone."""
    _, callback = measured(tmp_path, prompt_batches(72, 24))
    for name in ("fid", *QUANTITIES):
        found = [callback.passports[f"test/{name}_g{scale:g}"] for scale in SCALES]
        assert found[0] == found[1] == found[2]
    fid = callback.passports["test/fid_g5"]
    assert fid.num_samples == 72
    assert "lacks rank" not in fid.details
    assert fid.reference.startswith("72 real images ")
    assert callback.passports["test/draw_object_recall_g1"].num_samples > 72  # things, not pictures


@pytest.mark.filterwarnings("ignore:A Frechet distance")
def test_the_grid_has_a_row_per_prompt_and_a_column_per_scale(tmp_path) -> None:
    _, callback = measured(tmp_path, prompt_batches(8, 4), num_rows=3)
    assert "covariance lacks rank: 8 images for" in callback.passports["test/fid_g1"].details
    with Image.open(tmp_path / "images" / "test-guidance-step0000000.png") as sheet:
        assert sheet.width == 4 * 132 + 4  # the real image and three scales
        assert sheet.height == 16 + 3 * (132 + 16) + 4


@pytest.mark.filterwarnings("ignore:A Frechet distance")
def test_what_prompts_do_not_come_with_is_left_out(tmp_path) -> None:
    batch = prompt_batches(8, 8)[0]
    drawn = GuidedDrawings(SCALES, torch.stack([batch.originals] * 3))
    batch.originals, batch.scenes, batch.requirements = None, [], [""] * 8

    class Photos(Toy):
        def test_step(self, batch, batch_idx: int):
            return drawn

    run = trainer(tmp_path, GuidanceCurves())
    (values,) = run.test(Photos(), loader(batch), verbose=False)
    assert set(values) == {"test/fid_g1", "test/fid_g1.5", "test/fid_g5"}
    batch.references = None
    with pytest.raises(DataError, match="prompts came without real images, which GuidanceCurves"):
        run.test(Photos(), loader(batch), verbose=False)
