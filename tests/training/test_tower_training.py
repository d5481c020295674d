import pytest
import torch
import torch.nn.functional as F

from tests.models import tiny
from tests.training import toys
from vilau.layers.contrastive import sigmoid_contrastive_loss
from vilau.layers.pixels import to_float
from vilau.training.tower import TowerTraining
from vilau.types import EmbedsTexts, Reconstructs


def test_the_loss_is_the_weighted_sum_of_its_terms(tmp_path):
    weights = {
        "l2_weight": 4.0, "l1_weight": 0.5, "commitment_weight": 0.3,
        "reconstruction_weight": 2.0, "contrastive_weight": 0.7,
    }  # fmt: skip
    module = toys.tower(tmp_path, **weights).eval()
    batch = tiny.pairs()
    seen, target = module.tower(to_float(batch.images)), to_float(batch.images)
    aligned = sigmoid_contrastive_loss(
        module.tower.pooled(seen.quantized.features),
        module.tower.text_features(batch.texts),
        logit_scale=module.tower.siglip.logit_scale,
        logit_bias=module.tower.siglip.logit_bias,
    )
    pixels = (
        4.0 * F.mse_loss(seen.images, target)
        + 0.5 * F.l1_loss(seen.images, target)
        + 0.3 * seen.quantized.commitment_loss
    )
    recorder = toys.Recorder()
    toys.trainer(1, callbacks=[recorder]).fit(module, toys.ToyData([batch]))
    assert recorder.losses[0] == pytest.approx(float(2.0 * pixels + 0.7 * aligned), rel=1e-5)
    logged = recorder.logged[0]
    assert logged["train/loss"] == pytest.approx(recorder.losses[0])
    assert logged["train/contrastive_loss"] == pytest.approx(float(aligned), rel=1e-5)
    assert {"train/l1_loss", "train/l2_loss", "train/commitment_loss"} <= set(logged)


def test_matches_of_a_batch_reach_the_contrastive_loss(tmp_path):
    module, batch = toys.tower(tmp_path).eval(), tiny.pairs()
    seen = module.tower(to_float(batch.images))
    alone = module.loss_terms(seen, batch)["contrastive"]
    batch.matches = torch.eye(4, dtype=torch.bool)
    assert module.loss_terms(seen, batch)["contrastive"] == alone
    batch.matches[0, 2] = True
    assert module.loss_terms(seen, batch)["contrastive"] != alone


def test_the_text_tower_stays_and_the_rest_learns(tmp_path):
    module = toys.tower(tmp_path)
    before = {k: v.clone() for k, v in module.tower.state_dict().items()}
    toys.fit(module, toys.pair_data(), 2)
    after = module.tower.state_dict()
    for name in before:
        if name.startswith("siglip.text_model."):
            assert torch.equal(before[name], after[name]), name
    for name in (
        "siglip.vision_model.head.probe",
        "siglip.vision_model.encoder.layers.0.mlp.fc1.weight",
        "siglip.logit_scale",
        "quantizer.codebook.weight",
        "decoder.conv_out.weight",
    ):
        assert not torch.equal(before[name], after[name]), name


def test_without_the_contrastive_loss_only_reached_weights_are_trained(tmp_path):
    module = toys.tower(tmp_path, contrastive_weight=0.0)
    recorder = toys.fit(module, toys.pair_data(), 1)
    assert "train/contrastive_loss" not in recorder.logged[0]
    trained = {n for n, p in module.tower.named_parameters() if p.requires_grad}
    assert not any("layers.2." in n or ".head." in n or "text_model" in n for n in trained)
    assert "siglip.vision_model.encoder.layers.1.mlp.fc1.weight" in trained


def test_one_batch_is_learnt_by_heart(tmp_path):
    module = toys.tower(tmp_path, optimizer=tiny.optimizer(learning_rate=3e-3))
    losses = toys.fit(module, toys.ToyData([tiny.pairs(6)] * 40), 40).logged
    assert losses[-1]["train/l2_loss"] < 0.5 * losses[0]["train/l2_loss"]
    assert losses[-1]["train/contrastive_loss"] < 0.5 * losses[0]["train/contrastive_loss"]


def test_callbacks_find_what_they_ask_for(tmp_path):
    module = toys.tower(tmp_path).eval()
    assert isinstance(module, EmbedsTexts)
    assert isinstance(module, Reconstructs)
    images = tiny.images(2)
    shown = module.reconstruct_by_part(images)
    assert shown.dtype == torch.uint8
    assert shown.shape == (3, 2, 3, tiny.SIDE, tiny.SIDE)
    assert module.codebook_size == 24


def test_clip_pretraining_learns_one_batch_and_agrees_with_siglip(tmp_path):
    module = toys.clip(tmp_path, logit_bias=-1.0)
    images = tiny.images(2)
    whole = module.model.vision_model(pixel_values=to_float(images)).pooler_output
    torch.testing.assert_close(module.image_features(images), F.normalize(whole, dim=-1))
    recorder = toys.fit(module, toys.ToyData([tiny.pairs(4)] * 60), 60)
    assert recorder.losses[-1] < 0.5 * recorder.losses[0]


def test_clip_pretraining_goes_on_from_a_checkpoint(tmp_path):
    first = toys.clip(tmp_path)
    toys.fit(first, toys.pair_data(), 1)
    first.export(str(tmp_path / "model"))
    second = toys.ClipPretraining(checkpoint=str(tmp_path / "model"))
    assert second.sizes == first.sizes
    assert torch.equal(second.model.logit_scale, first.model.logit_scale)


def test_codes_learn_by_gradient_and_their_entropy_is_a_term(tmp_path):
    source = tiny.siglip_folder(tmp_path)
    quantizer = tiny.quantizer(learning="gradient", entropy=True, restart_unused_codes=False)
    module = TowerTraining(
        source, quantizer, tiny.decoder(), perceptual_weight=0.0, codebook_weight=2.0,
        entropy_weight=0.3, optimizer=tiny.optimizer(),
    )  # fmt: skip
    before = module.tower.quantizer.codebook.weight.detach().clone()
    batch = tiny.pairs()
    terms = module.loss_terms(module.tower(to_float(batch.images)), batch)
    without = {name: term for name, term in terms.items() if name not in ("codebook", "entropy")}
    added = module.reconstruction_total(terms) - module.reconstruction_total(without)
    torch.testing.assert_close(added, 2.0 * terms["codebook"] + 0.3 * terms["entropy"])
    logged = toys.fit(module, toys.ToyData([batch]), 1).logged[0]
    assert logged["train/codebook_loss"] > 0 > logged["train/entropy_loss"]
    assert not torch.equal(module.tower.quantizer.codebook.weight, before)
