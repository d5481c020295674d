"""What a tower starts from, and which settings go together."""

import pytest
import torch

from tests.models import tiny
from tests.training import toys
from vilau.errors import CheckpointError, ConfigError
from vilau.layers.pixels import to_float
from vilau.study.stage_cli import StageCLI
from vilau.training.alignment import AlignmentConfig
from vilau.training.tower import TowerTraining
from vilau.training.tower_start import StartConfig


def start(folder, given, **changes):
    source = tiny.siglip_folder(folder / "siglip")
    torch.manual_seed(1)  # not that of the folder
    settings = {"start": StartConfig(**given), "freeze_text": False, "perceptual_weight": 0.0}
    return TowerTraining(source, tiny.quantizer(), tiny.decoder(), **{**settings, **changes})


def trained(folder):
    """A tower that was trained without texts, and its folder."""
    module = toys.tower(folder, contrastive_weight=0.0)
    toys.fit(module, toys.pair_data(), 1)
    module.export(str(folder / "trained"))
    return module.tower.state_dict(), str(folder / "trained")


def same(state, other, prefix):
    names = [name for name in state if name.startswith(prefix) and state[name].ndim > 1]
    assert names
    return all(torch.equal(state[name], other[name]) for name in names)


TEXT, VISION = "siglip.text_model.", "siglip.vision_model."
ENCODER = (f"{VISION}embeddings.", f"{VISION}encoder.layers.0.", f"{VISION}encoder.layers.1.")
REST = (f"{VISION}encoder.layers.2.", f"{VISION}head.")


def test_text_weights_only_or_none(tmp_path):
    paper = toys.tower(tmp_path).tower.state_dict()
    text = start(tmp_path, {"initialisation": "text", "logit_bias": -3.0}).tower
    assert same(text.state_dict(), paper, TEXT)
    assert not same(text.state_dict(), paper, VISION)
    assert float(text.siglip.logit_bias) == -3.0
    random = start(tmp_path, {"initialisation": "random"}).tower
    assert random.sizes == text.sizes
    assert not any(same(random.state_dict(), paper, prefix) for prefix in (TEXT, VISION))
    sizes = tiny.sizes(num_layers=2)
    other = start(tmp_path, {"initialisation": "random", "siglip": sizes}).tower
    assert len(other.siglip.vision_model.encoder.layers) == 2


def test_a_trained_autoencoder_with_the_rest_as_told(tmp_path):
    before, folder = trained(tmp_path)
    paper = toys.tower(tmp_path).tower.state_dict()
    for kind in ("siglip", "random"):
        found = start(tmp_path, {"initialisation": kind, "checkpoint": folder}).tower.state_dict()
        for prefix in (*ENCODER, "quantizer.", "post_quant_conv.", "decoder."):
            assert same(found, before, prefix), prefix
        for prefix in (*REST, TEXT):
            assert same(found, paper, prefix) == (kind == "siglip"), prefix
    whole = start(tmp_path, {"initialisation": "tower", "checkpoint": folder}).tower
    assert all(torch.equal(value, before[name]) for name, value in whole.state_dict().items())


def test_the_checkpoint_gives_sizes_and_must_fit(tmp_path):
    _, folder = trained(tmp_path)
    given = StartConfig(initialisation="tower", checkpoint=folder)
    module = TowerTraining("nowhere", start=given, perceptual_weight=0.0)
    assert module.tower.config.quantizer.codebook_size == 24
    changed = tiny.quantizer(initialisation="data", decay=0.9)
    again = TowerTraining("nowhere", changed, start=given, perceptual_weight=0.0)
    assert bool(again.tower.quantizer.initialised)  # its codes are not drawn again
    with pytest.raises(CheckpointError, match=r"has quantizer.codebook.*\(24,\).*write quantizer"):
        TowerTraining(
            "nowhere", tiny.quantizer(codebook_size=8), start=given, perceptual_weight=0.0
        )
    with torch.device("meta"):
        TowerTraining("nowhere", start=given, perceptual_weight=0.0)


def test_a_frozen_encoder_stays_and_what_reads_codes_learns(tmp_path):
    module = toys.tower(tmp_path, freeze_vision=True)
    before = {name: value.clone() for name, value in module.tower.state_dict().items()}
    toys.fit(module, toys.pair_data(), 2)
    after = module.tower.state_dict()
    assert all(same(after, before, prefix) for prefix in (*ENCODER, TEXT))
    assert not any(same(after, before, p) for p in (*REST, "decoder.", "quantizer."))


def test_softmax_needs_no_bias(tmp_path):
    module = toys.tower(tmp_path, alignment=AlignmentConfig(loss="softmax"))
    assert not module.tower.siglip.logit_bias.requires_grad
    batch = tiny.pairs()
    module.eval()
    seen = module.tower(to_float(batch.images))
    logits = module.tower.siglip.logit_scale.exp() * (
        module.tower.pooled(seen.quantized.features) @ module.text_features(batch.texts).t()
    )
    own = torch.arange(4)
    cross = torch.nn.functional.cross_entropy
    expected = 0.5 * (cross(logits, own) + cross(logits.t(), own))
    torch.testing.assert_close(module.loss_terms(seen, batch)["contrastive"], expected)


def test_accumulation_is_refused_where_texts_of_the_whole_step_are_asked_for(tmp_path):
    fit = {"accumulate_grad_batches": 2}
    with pytest.raises(ConfigError, match="accumulate_grad_batches is 2.*negatives: micro_batch"):
        toys.fit(toys.tower(tmp_path), toys.pair_data(), 1, **fit)
    book = {"quantizer": tiny.quantizer(update="per_step")}
    toys.fit(toys.tower(tmp_path, contrastive_weight=0.0, **book), toys.pair_data(), 1, **fit)
    parts = AlignmentConfig(negatives="micro_batch")
    toys.fit(toys.tower(tmp_path, alignment=parts, **book), toys.pair_data(), 1, **fit)


@pytest.mark.parametrize(
    ("given", "changes", "message"),
    [
        ({"initialisation": "clip"}, {}, "start.initialisation is 'clip'; write siglip or text"),
        ({"initialisation": "tower"}, {}, "start.checkpoint names none"),
        ({"siglip": tiny.sizes()}, {}, "but start.initialisation is siglip; write start.init"),
        ({"initialisation": "random"}, {"freeze_text": True}, "write model.freeze_text: false"),
        ({"initialisation": "text"}, {"freeze_vision": True}, "write model.freeze_vision: false"),
        ({}, {"entropy_weight": 0.1}, "entropy_weight is 0.1.*write quantizer.entropy: true"),
        ({}, {"l1_weight": -0.5}, "model.l1_weight is -0.5; write 0 or more"),
        ({}, {"alignment": {"loss": "hinge"}}, "alignment.loss is 'hinge'; write sigmoid or softmax"),
        ({}, {"alignment": {"negatives": "all"}}, "alignment.negatives is 'all'; write step or"),
        ({}, {"average": {"decay": 1.0}}, "average.decay is 1.0; write 0 or more, below 1"),
        ({}, {"average": {"start_step": -1}}, "average.start_step is -1; write 0 or more"),
    ],
)  # fmt: skip
def test_contradictory_settings(tmp_path, given, changes, message):
    with pytest.raises(ConfigError, match=message):
        start(tmp_path, given, **changes)


def test_codes_that_nothing_moves_are_refused(tmp_path):
    source = tiny.siglip_folder(tmp_path / "siglip")
    codes = tiny.quantizer(learning="gradient")
    with pytest.raises(ConfigError, match="codebook_weight is 0.*write model.codebook_weight: 1.0"):
        TowerTraining(source, codes, tiny.decoder(), perceptual_weight=0.0, codebook_weight=0.0)


def test_every_setting_can_be_written_in_a_stage(tmp_path):
    source = tiny.siglip_folder(tmp_path / "siglip")
    settings = {
        "pretrained": source, "quantizer": vars(tiny.quantizer()), "decoder": vars(tiny.decoder()),
        "perceptual_weight": 0.0, "adversarial_weight": 0.75, "freeze_text": False,
        "discriminator": {"channels": 4, "optimizer": {"learning_rate": 1.0e-3, "betas": [0.5, 0.9]}},
        "alignment": {"loss": "softmax"}, "average": {"decay": 0.9, "export": True},
        "start": {"initialisation": "random", "siglip": vars(tiny.sizes(num_layers=2))},
    }  # fmt: skip
    measured = "vilau.callbacks.zero_shot.ZeroShot"
    callback = {
        "class_path": "vilau.callbacks.averaged_weights.AveragedWeights",
        "init_args": {"callbacks": [{"class_path": measured}]},
    }
    config = {
        "model": {"class_path": "vilau.training.tower.TowerTraining", "init_args": settings},
        "data": {"class_path": "vilau.data.image_text.ImageTextPairs"},
        "trainer": {"callbacks": [callback]},
    }
    module, _ = StageCLI(config).build_parts()
    assert module.adversary.config.optimizer.betas == (0.5, 0.9)
    assert len(module.tower.siglip.vision_model.encoder.layers) == 2
    built = StageCLI(config)
    built.build(tmp_path)
    (found,) = [c for c in built.trainer.callbacks if type(c).__name__ == "AveragedWeights"]
    assert [type(c).__name__ for c in found.callbacks] == ["ZeroShot"]
