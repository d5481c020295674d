"""A tower and its discriminator, trained by two optimisers."""

import copy
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.models import tiny
from tests.training import toys
from tests.training.test_modules import Reseed, plain
from vilau.errors import ConfigError
from vilau.layers.pixels import to_float
from vilau.models.loading import load_tower
from vilau.training.reconstruction_checks import check_run, check_strategy
from vilau.training.tower import TowerTraining

SMALL = {"channels": 4, "r1_weight": 2.0, "lecam_weight": 0.3, "optimizer": {"learning_rate": 1e-3}}


def tower(folder, build=toys.tower, discriminator=None, **changes):
    settings = {"adversarial_weight": 0.75, "discriminator": {**SMALL, **(discriminator or {})}}
    return build(folder, **{**settings, **changes})


class Gradients(Callback):
    """Keeps what each optimiser finds."""

    def __init__(self):
        self.found = []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        mine = {id(p) for group in optimizer.param_groups for p in group["params"]}
        named = [(n, p) for n, p in module.named_parameters() if id(p) in mine]
        self.found.append({n: None if p.grad is None else p.grad.clone() for n, p in named})


def by_hand(module, batch):
    """Losses and gradients of tower and discriminator, each by itself, from formulas written out again."""
    adversary, target = module.adversary, to_float(batch.images)
    seen = module.tower(target)
    error = seen.images - target
    pixels = 4.0 * error.square().mean() + 0.5 * error.abs().mean()
    fake = -adversary.discriminator(seen.images).mean()
    last = module.tower.decoder.conv_out.weight
    above, below = (
        torch.autograd.grad(x, last, retain_graph=True)[0].norm() for x in (pixels, fake)
    )
    adaptive = (above / (below + 1e-4)).detach()
    aligned = module.loss_terms(seen, batch)["contrastive"]
    reconstruction = pixels + 0.25 * seen.quantized.commitment_loss + 0.75 * adaptive * fake
    total = 2.0 * reconstruction + aligned
    real_logits = adversary.discriminator(target)
    fake_logits = adversary.discriminator(seen.images.detach())
    hinge = 0.5 * (torch.relu(1 - real_logits).mean() + torch.relu(1 + fake_logits).mean())
    pixels_in = target.clone().requires_grad_()
    image_logits = adversary.discriminator(pixels_in).mean(dim=(1, 2, 3)).sum()
    (slope,) = torch.autograd.grad(image_logits, pixels_in, create_graph=True)
    r1 = 0.5 * slope.square().sum(dim=(1, 2, 3)).mean()
    lecam = (real_logits - fake_logits.mean().detach()).square().mean()
    lecam = lecam + (fake_logits - real_logits.mean().detach()).square().mean()
    own = hinge + 2.0 * r1 + 0.3 * lecam
    slopes = {}
    for prefix, loss in (("tower.", total), ("adversary.", own)):
        named = [
            (n, p) for n, p in module.named_parameters() if n.startswith(prefix) and p.requires_grad
        ]
        found = torch.autograd.grad(loss, [p for _, p in named], retain_graph=True)
        slopes |= {n: g for (n, _), g in zip(named, found, strict=True)}
    values = {
        "loss": total, "adversarial_loss": fake, "adversarial_adaptive_weight": adaptive,
        "discriminator_loss": hinge, "r1_loss": r1, "lecam_loss": lecam,
    }  # fmt: skip
    return {name: float(value.detach()) for name, value in values.items()}, slopes


WEIGHTS = {"l2_weight": 4.0, "l1_weight": 0.5, "reconstruction_weight": 2.0}


def test_losses_and_gradients_of_both_sides(tmp_path):
    module, batch = tower(tmp_path, **WEIGHTS), tiny.pairs()
    module.tower.quantizer.eval()
    values, slopes = by_hand(copy.deepcopy(module), batch)
    gradients, recorder = Gradients(), toys.Recorder()
    toys.trainer(1, callbacks=[gradients, recorder]).fit(module, toys.ToyData([batch]))
    for name, value in values.items():
        assert recorder.logged[0][f"train/{name}"] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    assert recorder.losses[0] == pytest.approx(values["loss"], rel=1e-5)
    assert [next(iter(found)).split(".")[0] for found in gradients.found] == ["tower", "adversary"]
    found = gradients.found[0] | gradients.found[1]
    assert found.keys() == slopes.keys()
    for name, slope in slopes.items():
        torch.testing.assert_close(found[name], slope, rtol=1e-3, atol=1e-5)


def test_accumulated_gradients_are_means_and_clipped(tmp_path):
    batches = [tiny.pairs(seed=s) for s in range(2)]
    settings = {**WEIGHTS, "discriminator": {"lecam_weight": 0.0}, "contrastive_weight": 0.0}
    module = tower(tmp_path, **settings)
    module.tower.quantizer.eval()
    gradients = Gradients()
    trainer = toys.trainer(1, callbacks=[gradients], accumulate_grad_batches=2)
    states = [copy.deepcopy(module) for _ in batches]
    trainer.fit(module, toys.ToyData(batches))
    assert trainer.global_step == 1
    assert len(gradients.found) == 2
    expected = []
    for state, batch in zip(states, batches, strict=True):
        seen = state.tower(to_float(batch.images))
        terms, _ = state.adversary.own_terms(to_float(batch.images), seen.images)
        own = state.adversary.own_total(terms)
        expected.append(torch.autograd.grad(own, list(state.adversary.parameters())))
    for found, parts in zip(gradients.found[1].values(), zip(*expected, strict=True), strict=True):
        torch.testing.assert_close(found, (parts[0] + parts[1]) / 2, rtol=1e-3, atol=1e-6)
    clipped = Gradients()
    toys.trainer(1, callbacks=[clipped], gradient_clip_val=0.01).fit(
        tower(tmp_path, **settings), toys.ToyData(batches)
    )
    for found in clipped.found:
        norm = torch.stack([g.norm() for g in found.values()]).norm()
        assert float(norm) == pytest.approx(0.01, rel=1e-3)


def test_before_its_start_the_discriminator_stays_and_steps_are_the_towers(tmp_path):
    module = tower(tmp_path, discriminator={"start_step": 2})
    states = []

    class Keep(Callback):
        def on_train_batch_end(self, trainer, module, *_):
            weights = module.adversary.discriminator.state_dict()
            states.append((trainer.global_step, {k: v.clone() for k, v in weights.items()}))

    before = {k: v.clone() for k, v in module.adversary.discriminator.state_dict().items()}
    recorder = toys.Recorder()
    data = toys.ToyData([tiny.pairs(seed=s) for s in range(9)])
    seed_everything(0, verbose=False)
    toys.trainer(3, callbacks=[Keep(), recorder]).fit(module, data)
    assert [step for step, _ in states] == [1, 2, 3]
    for _, state in states[:2]:
        assert all(torch.equal(before[name], state[name]) for name in before)
    moved = [name for name in before if not torch.equal(before[name], states[2][1][name])]
    # Where no patch is sure, real and fake ones pull the last bias up and down alike.
    last = [name for name in before if name.endswith("bias")][-1]
    assert set(before) - set(moved) <= {last}
    assert "train/adversarial_loss" not in recorder.logged[1]
    assert "train/adversarial_loss" in recorder.logged[2]
    plain_run = toys.fit(toys.tower(tmp_path), data, 3)
    for name in ("train/learning_rate", "train/l2_loss"):  # the tower's own schedule and steps
        assert [x[name] for x in recorder.logged[:2]] == [x[name] for x in plain_run.logged[:2]]
    assert recorder.logged[2]["train/learning_rate"] == plain_run.logged[2]["train/learning_rate"]
    assert plain_run.logged[2]["train/learning_rate"] < plain_run.logged[1]["train/learning_rate"]


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path):
    settings = {"average": {"decay": 0.8}}
    data = toys.ToyData([tiny.pairs(seed=s) for s in range(2)])
    whole = tower(tmp_path, **settings)
    toys.trainer(4, callbacks=[Reseed()], gradient_clip_val=1.0).fit(whole, data)
    keep = ModelCheckpoint(
        dirpath=tmp_path, filename="{step}", every_n_train_steps=2, save_top_k=-1
    )
    first = toys.trainer(
        4, callbacks=[Reseed(), keep], enable_checkpointing=True, gradient_clip_val=1.0
    )
    first.fit(tower(tmp_path, **settings), data)
    second = tower(tmp_path, **settings)
    trainer = toys.trainer(4, callbacks=[Reseed()], gradient_clip_val=1.0)
    trainer.fit(second, data, ckpt_path=tmp_path / "step=2.ckpt", weights_only=True)
    assert trainer.global_step == 4
    state, again = whole.state_dict(), second.state_dict()
    assert state.keys() == again.keys()
    assert all(torch.equal(state[name], again[name]) for name in state)
    assert any(name.startswith("adversary.lecam") for name in state)
    stored = torch.load(tmp_path / "step=2.ckpt", weights_only=True)
    assert plain(stored["hyper_parameters"])
    loaded = TowerTraining.load_from_checkpoint(tmp_path / "step=2.ckpt", weights_only=True)
    assert loaded.adversary.config == second.adversary.config
    whole.export(str(tmp_path / "model"))
    exported = load_tower(tmp_path / "model").state_dict()
    assert exported.keys() == whole.tower.state_dict().keys()


def test_trains_in_bfloat16_near_float32_and_beside_the_ablation(tmp_path):
    exact = toys.fit(tower(tmp_path), toys.pair_data(), 2)
    rough = toys.fit(tower(tmp_path), toys.pair_data(), 2, precision="bf16-mixed")
    assert rough.losses == pytest.approx(exact.losses, rel=0.05)
    measured = toys.fit(tower(tmp_path, build=toys.ablation), toys.pair_data(), 2)
    assert measured.losses == exact.losses
    assert "train/gradient_cosine_block0" in measured.logged[0]


def test_a_penalty_through_normalisation_over_ranks_is_refused(tmp_path):
    module = tower(tmp_path, discriminator={"r1_weight": 1.0})
    module.on_fit_start()
    module.adversary.discriminator = torch.nn.SyncBatchNorm.convert_sync_batchnorm(
        module.adversary.discriminator
    )
    with pytest.raises(ConfigError, match="r1_weight is 1, but trainer.sync_batchnorm is true"):
        module.on_fit_start()


def test_half_precision_and_sharding_are_refused():
    trainer = SimpleNamespace(accumulate_grad_batches=1, precision="16-mixed")
    check_run(trainer, adversarial=False)
    with pytest.raises(ConfigError, match="precision is 16-mixed.*write bf16-mixed"):
        check_run(trainer, adversarial=True)
    with pytest.raises(ConfigError, match="adversarial_weight needs whole weights.*strategy: ddp"):
        check_strategy(adversary=object(), average=None)
    with pytest.raises(ConfigError, match="model.average needs whole weights.*average: null"):
        check_strategy(adversary=None, average=object())
    check_strategy(adversary=None, average=None)


@pytest.mark.parametrize(
    ("discriminator", "changes", "message"),
    [
        ({"num_layers": 4}, {}, "num_layers is 4, but halving 16 pixels.*write 2"),
        ({"start_step": -1}, {}, "discriminator.start_step is -1; write 0 or more"),
        ({"lecam_decay": 1.0}, {}, "lecam_decay is 1.0; write 0 or more, below 1"),
        ({}, {"adversarial_weight": -1.0}, "model.adversarial_weight is -1.0; write 0 or more"),
        ({}, {"reconstruction_weight": 0.0}, "reconstruction_weight is 0, so that nothing trains the decoder"),
        ({}, {"l2_weight": 0.0}, "l1_weight, model.perceptual_weight are 0.*adaptive: false"),
    ],
)  # fmt: skip
def test_contradictory_settings(tmp_path, discriminator, changes, message):
    with pytest.raises(ConfigError, match=message):
        tower(tmp_path, discriminator=discriminator, **changes)
