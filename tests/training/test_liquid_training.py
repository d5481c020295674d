"""Liquid is trained by the steps that VILA-U is trained by, under its own mean."""

import pytest
import torch

import vilau
from tests.models import tiny
from tests.models.forms import forms_batch
from tests.training import pretrain_ranks, toys
from vilau.costs import counts, estimate
from vilau.costs.families import LiquidSizes
from vilau.errors import ConfigError
from vilau.layers.pixels import to_float
from vilau.models.liquid.model import Liquid
from vilau.models.sizes import PUBLISHED_LANGUAGES, LanguageConfig
from vilau.training.evaluate import Evaluation
from vilau.training.finetune import SupervisedFineTuning
from vilau.training.pretrain import LiquidPretraining


def pretraining(folder, **changes):
    return toys.liquid(folder, **{"caption_dropout": 0.0, **changes})


def test_the_loss_is_one_mean_over_words_and_codes(tmp_path):
    module = pretraining(tmp_path, text_weight=2.0, visual_weight=0.25)
    batch = forms_batch()
    terms = module.model.losses(batch)
    recorder = toys.fit(module, toys.ToyData([batch]), 1)
    weighed = 2.0 * terms.sums["text"] + 0.25 * terms.sums["visual"]
    assert recorder.losses[0] == pytest.approx(float(weighed) / sum(terms.counts.values()))
    torch.testing.assert_close(
        torch.tensor(recorder.logged[0]["train/text_loss"]), terms.means()["text"].detach()
    )


def test_parts_of_a_step_make_the_gradient_of_the_whole(tmp_path):
    whole, loss = pretrain_ranks.gradients(pretraining(tmp_path), [pretrain_ranks.whole_step()])
    parts, summed = pretrain_ranks.gradients(pretraining(tmp_path / "parts"), pretrain_ranks.PARTS)
    assert parts.keys() == whole.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-5, atol=1e-6, msg=name)
    assert summed == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize(
    "settings", [{"packing": True}, {"length_groups": 3, "share_images": True}]
)
def test_less_work_is_the_same_loss(tmp_path, settings):
    plain, quick = pretraining(tmp_path), pretraining(tmp_path, **settings)
    losses = [
        toys.fit(module, toys.ToyData([forms_batch()]), 1).losses[0] for module in (plain, quick)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_from_pretraining_to_answers_and_drawings(tmp_path):
    module = pretraining(tmp_path)
    before = {k: v.clone() for k, v in module.model.state_dict().items()}
    recorder = toys.fit(module, toys.multimodal_data(), 3, val_check_interval=1)
    assert {"val/text_loss", "val/visual_loss"} <= set(recorder.logged[-1])
    after = module.model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if name.startswith("language.")}
    assert module.draw(["a red circle"], seed=1).dtype == torch.uint8

    module.export(str(tmp_path / "pretrained"))
    tuning = SupervisedFineTuning(str(tmp_path / "pretrained"), optimizer=tiny.optimizer())
    assert isinstance(tuning.model, Liquid)
    toys.fit(tuning, toys.multimodal_data(), 1)
    tuning.export(str(tmp_path / "tuned"))

    module = Evaluation(str(tmp_path / "tuned"), guidance_scale=2.0).eval()
    loaded = vilau.load(tmp_path / "tuned")
    image = to_float(tiny.images(1))
    assert module.model.answer(image, ["what"]) == [loaded.generate_text(image, "what")]


def test_only_the_language_model_is_sharded(tmp_path):
    module = pretraining(tmp_path)
    assert module.blocks_to_shard() == list(module.model.language.model.layers)


def test_a_tower_of_several_codes_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="Liquid reads one code a position"):
        LiquidPretraining(tiny.tower_folder(tmp_path), tiny.language(), tiny.PROMPT)


@pytest.mark.parametrize("null", ["prompt", "learned"])
@pytest.mark.parametrize("form", ["plain", "published"])
def test_its_cost_is_that_of_what_is_built(tmp_path, null, form):
    """From the config of its stage, and from the folder it leaves."""
    tiny.tower(depth=1).save(tmp_path / "tower")
    language = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "mlp_size": 48}
    arguments = {
        "tower_checkpoint": str(tmp_path / "tower"),
        "language": language,
        "prompt": {"system": "", "null": null, "form": form},
    }
    data = {
        "class_path": "vilau.data.mixture.MultimodalMixture",
        "init_args": {
            "global_batch_size": 4,
            "image_to_text_share": 0.5,
            "text_to_image_share": 0.5,
        },
    }
    cost = estimate(stage("vilau.training.pretrain.LiquidPretraining", arguments, data))
    prompt = {**vars(tiny.PROMPT), "null": null, "form": form}
    module = LiquidPretraining(
        str(tmp_path / "tower"), tiny.language(), type(tiny.PROMPT)(**prompt)
    )
    parameters = sum(p.numel() for p in module.parameters())
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    assert (cost["parameters"], cost["trained_parameters"]) == (parameters, trained)
    module.export(str(tmp_path / "model"))
    tuned = stage(
        "vilau.training.finetune.SupervisedFineTuning",
        {"checkpoint": str(tmp_path / "model")},
        data,
    )
    assert estimate(tuned)["parameters"] == parameters


def test_a_drawn_position_costs_a_row_of_logits():
    language = tiny.language(vocab_size=690)
    tower = counts.tower(tiny.sizes(), tiny.quantizer(depth=1), tiny.decoder())
    model = LiquidSizes(tower, language)
    seen = model.document(30, 4, read=1, drawn=0)
    drawn = model.document(30, 4, read=0, drawn=1)
    _, logits = counts.language_model(language, 1)
    assert drawn.flops - seen.flops == 16 * logits.flops == 16 * 2 * 690 * 32
    assert drawn.parameters == seen.parameters


@pytest.mark.parametrize(
    ("source", "numbers"),
    [("google/gemma-7b", 2 * 16 * 256), ("meta-llama/Llama-3.2-1B", 2 * 8 * 64)],
)
def test_what_a_token_keeps_in_the_cache_of_a_layer(source, numbers):
    language = LanguageConfig(**PUBLISHED_LANGUAGES[source])
    tower = counts.tower(tiny.sizes(), tiny.quantizer(), tiny.decoder())
    model = LiquidSizes(tower, language)
    assert model.cache_width == numbers


def stage(class_path, arguments, data):
    return {
        "command": "fit",
        "model": {"class_path": class_path, "init_args": arguments},
        "data": data,
        "trainer": {"max_steps": 2},
    }
