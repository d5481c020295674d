"""The guidance sweep end to end: a tiny model, drawn scenes, every number and the grid."""

import pytest
import torch

from tests.models import tiny
from tests.training import toys
from vilau.callbacks.guidance_curves import GuidanceCurves
from vilau.data.caption_prompts import CaptionPrompts
from vilau.data.world_data import WorldSpec
from vilau.errors import ConfigError
from vilau.generation.sampling import image_seed
from vilau.layers.pixels import to_float, to_uint8
from vilau.models.vila_u.config import TowerConfig
from vilau.models.vila_u.model import VilaU
from vilau.models.vila_u.tower import VisionTower
from vilau.training.ablations.guidance import SCALES, GuidanceSweep
from vilau.training.evaluate import Evaluation
from vilau.types import PromptBatch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model whose pictures depend on the prompt, unlike a freshly made one's."""
    made = tiny.vila_u()
    with torch.no_grad():
        made.head.classifier.weight *= 20
        for part in (made.head.hidden_projection, made.language.model.embed_tokens):
            part.weight *= 3
    place = tmp_path_factory.mktemp("sweep") / "model"
    made.save(place)
    return str(place)


def batch(**settings):
    return PromptBatch(["a red circle", "two squares"], ["", ""], [[], []], first_index=3, **settings)  # fmt: skip


def test_every_scale_draws_what_an_evaluation_at_that_scale_draws(folder):
    sweep = GuidanceSweep(folder, [1.0, 2.0], top_k=12, top_p=0.9, seed=5).eval()
    found = sweep.test_step(batch(), 0)
    assert found.scales == [1.0, 2.0]
    assert found.images.shape == (2, 2, 3, tiny.SIDE, tiny.SIDE)
    assert found.reconstructions is None
    for scale, images in zip(found.scales, found.images, strict=True):
        alone = Evaluation(folder, guidance_scale=scale, top_k=12, top_p=0.9, seed=5).eval()
        assert (
            alone.test_step(batch(), 0).images.int() - images.int()
        ).abs().max() <= 1  # rounding
    assert not torch.equal(found.images[0], found.images[1])


def test_all_scales_share_the_noise_of_a_prompts_place(folder):
    """Where the model does not look at the prompt at all, every scale draws the same picture."""
    model = VilaU.load(folder)
    with torch.no_grad():
        model.head.hidden_projection.weight.zero_()
    sampling = {"temperature": 50.0, "top_k": 0, "top_p": 1.0}
    sweep = GuidanceSweep(folder, [1.0, 1.5, 5.0], seed=5, **sampling).eval()
    sweep.model = model.eval()
    images = sweep.test_step(batch(), 0).images
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], images[2])
    assert not torch.equal(images[0, 0], images[0, 1])
    later = PromptBatch(["two squares"], [""], [[]], first_index=4)
    assert (sweep.test_step(later, 0).images[:, 0].int() - images[:, 1].int()).abs().max() <= 1
    assert sweep.seeds(batch()) == [image_seed(5, 3), image_seed(5, 4)]


def test_originals_are_reconstructed(folder):
    sweep = GuidanceSweep(folder, [1.0]).eval()
    originals = tiny.images(2)
    found = sweep.test_step(batch(originals=originals), 0).reconstructions
    tower = sweep.model.tokenizer
    expected = tower.decode(tower.encode(to_float(originals)))
    assert torch.equal(found, to_uint8(expected))


@pytest.mark.filterwarnings("ignore:A Frechet distance", "ignore::UserWarning")
def test_end_to_end_on_drawn_scenes(tmp_path, monkeypatch):
    monkeypatch.setenv("VILAU_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    sizes, decoder = tiny.sizes(image_size=32), tiny.decoder(attention_grids=(8,))
    tower = VisionTower(TowerConfig(dict(vars(sizes)), tiny.quantizer(), decoder))
    VilaU.start(tower, tiny.language(), tiny.head(), tiny.PROMPT).save(tmp_path / "model")
    world = WorldSpec("easy", num_train=1, num_val=1, num_test=40)
    data = CaptionPrompts(
        image_size=32, world=world, num_prompts=10, num_references=30, global_batch_size=5
    )
    sweep = GuidanceSweep(str(tmp_path / "model"), [1.0, 3.0])
    callback = GuidanceCurves(num_rows=2)
    run = toys.trainer(1, callbacks=[callback], default_root_dir=str(tmp_path))
    (values,) = run.test(sweep, data, verbose=False)
    for name in ("draw_prompt_exact", "draw_scene_exact", "draw_object_recall", "draw_count_right"):
        for end in ("g1", "g3", "real", "reconstruction", "random", "empty"):
            assert 0 <= values[f"test/{name}_{end}"] <= 1
    assert values["test/fid_g1"] > values["test/fid_real"] > 0
    assert callback.passports["test/fid_g3"].num_samples == 10
    assert (tmp_path / "images" / "test-guidance-step0000000.png").is_file()


def test_hyper_parameters_are_plain_and_complete(folder):
    sweep = GuidanceSweep(folder, (1.0, 3), temperature=[1.0, 0.9, 0.8], seed=2)
    assert sweep.hparams["guidance_scales"] == [1.0, 3.0]
    assert sweep.hparams["temperature"] == [1.0, 0.9, 0.8]
    assert GuidanceSweep(folder).scales == list(SCALES)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"guidance_scales": []}, r"model.guidance_scales holds \[\]; write one scale or more"),
        (
            {"guidance_scales": [1.0, 1.0]},
            r"holds \[1.0, 1.0\]; write one scale or more, each once",
        ),
        ({"guidance_scales": [1.0, -2.0]}, "model.guidance_scales is -2.0; write 1"),
        ({"top_k": [5, 5]}, "model.top_k holds 2 values for residual depth 3; write 3 values"),
        ({"temperature": -1.0}, "model.temperature is -1.0; write 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_once(folder, settings, told):
    with pytest.raises(ConfigError, match=told):
        GuidanceSweep(folder, **settings)


def test_an_evaluation_takes_a_ramp_and_a_negative_prompt(folder):
    settings = {"guidance_scale": 4.0, "guidance_start": 1.0, "negative_prompt": "a star"}
    module = Evaluation(folder, **settings, seed=1).eval()
    expected = module.model.generate_images(["two squares"], seed=1, **settings)
    assert torch.equal(module.draw(["two squares"], seed=1), to_uint8(expected))
    with pytest.raises(ConfigError, match="model.guidance_start is -1.0; write 1"):
        Evaluation(folder, guidance_start=-1.0)
