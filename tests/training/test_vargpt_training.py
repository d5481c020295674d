"""VARGPT is trained by the steps that the others are trained by, all of it or some of its parts."""

import pytest
import torch

import vilau
from tests.models import tiny
from tests.models.forms import forms_batch
from tests.training import pretrain_ranks, toys
from vilau.errors import CheckpointError, ConfigError
from vilau.layers.pixels import to_float
from vilau.models.sequence.config import PromptConfig
from vilau.models.vargpt.model import Vargpt
from vilau.training.evaluate import Evaluation
from vilau.training.finetune import SupervisedFineTuning
from vilau.training.pretrain import VargptPretraining


def pretraining(folder, **changes):
    return toys.vargpt(folder, **{"caption_dropout": 0.0, **changes})


def moved_by(module, steps=3):
    """The names of what training moves."""
    before = {name: tensor.clone() for name, tensor in module.model.state_dict().items()}
    recorder = toys.fit(module, toys.multimodal_data(), steps, val_check_interval=1)
    after = module.model.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}, recorder


def test_the_loss_is_a_mean_over_words_and_one_over_codes(tmp_path):
    module = pretraining(tmp_path, text_weight=2.0, visual_weight=0.25)
    batch = forms_batch()
    means = module.model.losses(batch).means()
    recorder = toys.fit(module, toys.ToyData([batch]), 1)
    expected = 2.0 * float(means["text"].detach()) + 0.25 * float(means["visual"].detach())
    assert recorder.losses[0] == pytest.approx(expected)


def test_parts_of_a_step_make_the_gradient_of_the_whole(tmp_path):
    whole, loss = pretrain_ranks.gradients(pretraining(tmp_path), [pretrain_ranks.whole_step()])
    parts, summed = pretrain_ranks.gradients(pretraining(tmp_path / "parts"), pretrain_ranks.PARTS)
    assert parts.keys() == whole.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-5, atol=1e-6, msg=name)
    assert summed == pytest.approx(loss, rel=1e-5)


def test_from_pretraining_to_answers_and_drawings(tmp_path):
    module = pretraining(tmp_path)
    moved, recorder = moved_by(module)
    assert {"val/text_loss", "val/visual_loss"} <= set(recorder.logged[-1])
    assert {name.split(".")[0] for name in moved} == {
        "language", "reader", "decoder", "to_language", "to_decoder",
    }  # fmt: skip
    assert not any(name.startswith("reader.vision.") for name in moved)
    assert module.draw(["a red circle"], seed=1).dtype == torch.uint8

    module.export(str(tmp_path / "pretrained"))
    tuning = SupervisedFineTuning(str(tmp_path / "pretrained"), optimizer=tiny.optimizer())
    assert isinstance(tuning.model, Vargpt)
    toys.fit(tuning, toys.multimodal_data(), 1)
    tuning.export(str(tmp_path / "tuned"))

    evaluation = Evaluation(str(tmp_path / "tuned"), guidance_scale=2.0).eval()
    loaded = vilau.load(tmp_path / "tuned")
    image = to_float(tiny.images(1))
    assert evaluation.model.answer(image, ["what"]) == [loaded.generate_text(image, "what")]


@pytest.mark.parametrize(
    ("trained", "moving"),
    [
        (["projectors"], {"to_language", "to_decoder"}),
        (["language", "reader"], {"language", "reader"}),
        (["decoder", "projectors"], {"decoder", "to_language", "to_decoder"}),
    ],
)
def test_a_published_stage_moves_its_parts_alone(tmp_path, trained, moving):
    module = pretraining(tmp_path, trained=trained)
    moved = moved_by(module)[0] - {"decoder.condition_embedding.weight"}
    assert {name.split(".")[0] for name in moved} == moving


def test_the_published_stages_go_on_from_one_another(tmp_path):
    first = pretraining(tmp_path, trained=["projectors"])
    toys.fit(first, toys.multimodal_data(), 1)
    first.export(str(tmp_path / "1"))
    state = first.model.state_dict()
    for number, trained in ((2, ["language", "reader"]), (3, ["decoder", "projectors"])):
        stage = SupervisedFineTuning(
            str(tmp_path / str(number - 1)), trained=trained, optimizer=tiny.optimizer()
        )
        before = stage.model.state_dict()
        assert all(torch.equal(before[name], state[name]) for name in state)
        moved, _ = moved_by(stage, steps=1)
        parts = {name.split(".")[0] for name in moved - {"decoder.condition_embedding.weight"}}
        assert parts == (
            {"language", "reader"} if number == 2 else {"decoder", "to_language", "to_decoder"}
        )
        state = stage.model.state_dict()
        stage.export(str(tmp_path / str(number)))


@pytest.mark.parametrize(
    ("family", "trained", "moving"),
    [
        (toys.pretraining, ["projector", "head"], {"projector", "head"}),
        (toys.liquid, ["language"], {"language"}),
    ],
)
def test_parts_of_other_families_learn_alone_too(tmp_path, family, trained, moving):
    family(tmp_path).export(str(tmp_path / "model"))
    module = SupervisedFineTuning(
        str(tmp_path / "model"), trained=trained, optimizer=tiny.optimizer()
    )
    assert {name.split(".")[0] for name in moved_by(module)[0]} == moving
    with pytest.raises(ConfigError, match="model.trained holds decoder; write some of"):
        SupervisedFineTuning(str(tmp_path / "model"), trained=["decoder"])


def test_a_null_token_that_could_not_learn_is_refused(tmp_path):
    tiny.over_scales().save(tmp_path)
    parts = (
        tiny.language(),
        tiny.picture_reader(),
        tiny.scale_decoder(),
        PromptConfig(null="learned"),
    )
    with pytest.raises(ConfigError, match="prompt.null is learned, but model.trained is"):
        VargptPretraining(str(tmp_path), *parts, trained=["decoder", "projectors"])


def test_the_step_of_several_rows_is_that_of_all(tmp_path):
    plain = pretraining(tmp_path)
    quick = pretraining(tmp_path, length_groups=3, share_images=True)
    losses = [
        toys.fit(module, toys.ToyData([forms_batch()]), 1).losses[0] for module in (plain, quick)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_another_kind_of_image_tokenizer_is_refused(tmp_path):
    with pytest.raises(
        CheckpointError, match="holds a VisionTower, but VARGPT draws scale by scale"
    ):
        VargptPretraining(tiny.tower_folder(tmp_path), tiny.language())


def test_parts_that_there_are_not_are_refused(tmp_path):
    with pytest.raises(
        ConfigError, match="model.trained holds tower; write some of language, reader"
    ):
        pretraining(tmp_path, trained=["tower"])
