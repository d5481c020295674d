import pytest
import torch

from tests.models import tiny
from tests.training import toys
from vilau.layers.pixels import to_float
from vilau.training.alignment import AlignmentConfig


def block_gradients(module, batch, part):
    """The same gradients another way: autograd.grad on the weights of each block."""
    module.tower.quantizer.eval()
    seen = module.tower(to_float(batch.images))
    losses = module.loss_terms(seen, batch)
    total = (module.reconstruction_total(losses), module.contrastive_total(losses))[part]
    for block in module.tower.siglip.vision_model.encoder.layers[:-1]:
        grads = torch.autograd.grad(total, list(block.parameters()), retain_graph=True)
        yield torch.cat([g.flatten() for g in grads])


def test_logs_the_cosine_and_the_ratio_of_the_two_gradients(tmp_path):
    module, batch = toys.ablation(tmp_path, contrastive_weight=0.5), tiny.pairs()
    pixel, aligned = (
        list(block_gradients(toys.ablation(tmp_path, contrastive_weight=0.5), batch, i))
        for i in (0, 1)
    )
    logged = toys.fit(module, toys.ToyData([batch]), 1).logged[0]
    assert len(pixel) == 2
    for number, (a, b) in enumerate(zip(pixel, aligned, strict=True)):
        cosine = torch.nn.functional.cosine_similarity(a, b, dim=0)
        assert logged[f"train/gradient_cosine_block{number}"] == pytest.approx(
            float(cosine), abs=1e-4
        )
        ratio = float(b.norm() / a.norm())
        assert logged[f"train/gradient_ratio_block{number}"] == pytest.approx(ratio, rel=1e-3)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_measuring_changes_nothing_of_the_training(tmp_path, accumulate):
    parts = {"alignment": AlignmentConfig(negatives="micro_batch")}
    parts["quantizer"] = tiny.quantizer(update="per_step")
    plain, measured = toys.tower(tmp_path, **parts), toys.ablation(tmp_path, **parts)
    runs = [
        toys.fit(
            module, toys.pair_data(), 3, accumulate_grad_batches=accumulate, gradient_clip_val=1.0
        )
        for module in (plain, measured)
    ]
    assert runs[0].losses == runs[1].losses
    assert "train/gradient_cosine_block0" in runs[1].logged[-1]
    for values in runs[1].logged:
        assert all(-1 <= v <= 1 for k, v in values.items() if "cosine" in k)
    state, other = plain.state_dict(), measured.state_dict()
    assert all(torch.equal(state[name], other[name]) for name in state)


def test_measures_every_n_steps_and_never_without_the_contrastive_loss(tmp_path):
    module = toys.ablation(tmp_path, measure_every_n_steps=2)
    seen = []
    measure = module._measure_conflict
    module._measure_conflict = lambda batch: (seen.append(module.global_step), measure(batch))
    toys.fit(module, toys.ToyData([tiny.pairs(seed=s) for s in range(5)]), 5)
    assert seen == [0, 2, 4]
    off = toys.ablation(tmp_path, contrastive_weight=0.0)
    assert "train/gradient_cosine_block0" not in toys.fit(off, toys.pair_data(), 1).logged[0]


def test_a_frozen_encoder_has_no_gradients_to_compare(tmp_path):
    module = toys.ablation(tmp_path, freeze_vision=True)
    logged = toys.fit(module, toys.pair_data(), 1).logged[0]
    assert not any("gradient_cosine" in name for name in logged)


def test_a_frozen_codebook_stays_frozen(tmp_path):
    module = toys.ablation(tmp_path)
    module.tower.quantizer.eval()
    before = module.tower.quantizer.codebook.weight.clone()
    toys.fit(module, toys.pair_data(), 2)
    assert not module.tower.quantizer.training
    assert torch.equal(module.tower.quantizer.codebook.weight, before)


def test_zero_shot_features_of_every_stage_of_quantisation(tmp_path):
    module = toys.ablation(tmp_path).eval()
    batch = toys.labelled()
    output = module.embed_labelled(batch)
    assert set(output.others) == {"unquantized", "depth1", "depth2"}
    pixels, tower = to_float(batch.images), module.tower
    assert torch.equal(output.features, tower.image_features(pixels))
    codes = tower.encode(pixels)
    first = tower.pooled(tower.quantizer.embed(codes, upto=1))
    assert torch.equal(output.others["depth1"], first)
    assert torch.equal(output.others["unquantized"], tower.pooled(tower.features(pixels)))
