"""What every LightningModule of the kit must do: fit, validate, be stored safely, come back, export."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, seed_everything, strategies
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.models import tiny
from tests.training import toys
from vilau.errors import ConfigError
from vilau.models.encoders.load import load_encoders
from vilau.models.loading import load, load_tower
from vilau.training.ablations.contrastive import ContrastiveAblation
from vilau.training.base import given
from vilau.training.clip import ClipPretraining
from vilau.training.finetune import SupervisedFineTuning
from vilau.training.optimizers import OptimizerConfig
from vilau.training.pretrain import MultimodalPretraining
from vilau.training.tower import TowerTraining
from vilau.types import EmbeddingOutput, Exports, TowerOutput

MODULES = {
    ClipPretraining: (toys.clip, toys.pair_data, lambda f: load_encoders(f)[0], "model"),
    TowerTraining: (toys.tower, toys.pair_data, load_tower, "tower"),
    ContrastiveAblation: (toys.ablation, toys.pair_data, load_tower, "tower"),
    MultimodalPretraining: (toys.pretraining, toys.multimodal_data, load, "model"),
    SupervisedFineTuning: (toys.finetuning, toys.multimodal_data, load, "model"),
}


def plain(value) -> bool:
    if isinstance(value, dict):
        return all(isinstance(k, str) and plain(v) for k, v in value.items())
    if isinstance(value, list):
        return all(plain(v) for v in value)
    return value is None or type(value) in (str, int, float, bool)


@pytest.mark.parametrize("kind", MODULES, ids=lambda kind: kind.__name__)
def test_fits_is_stored_comes_back_and_exports(kind, tmp_path):
    build, data, reopen, part = MODULES[kind]
    module = build(tmp_path)
    before = {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}
    seed_everything(0, verbose=False)
    recorder = toys.Recorder()
    trainer = toys.trainer(2, callbacks=[recorder], val_check_interval=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, data())
    assert len(recorder.losses) == 2
    after = dict(module.named_parameters())
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(moved) > 0.8 * len(before)

    assert dict(module.hparams)
    assert plain(dict(module.hparams)), dict(module.hparams)
    path = tmp_path / "run.ckpt"
    trainer.save_checkpoint(path)
    stored = torch.load(path, weights_only=True)
    assert plain(stored["hyper_parameters"])
    again = kind.load_from_checkpoint(path, weights_only=True)
    assert dict(again.hparams) == dict(module.hparams)
    state, restored = module.state_dict(), again.state_dict()
    assert state.keys() == restored.keys()
    assert all(torch.equal(state[name], restored[name]) for name in state)

    assert isinstance(module, Exports)
    module.export(str(tmp_path / "model"))
    exported = reopen(str(tmp_path / "model")).state_dict()
    own = getattr(module, part).state_dict()
    assert all(torch.equal(own[name], exported[name]) for name in own)


class Reseed(Callback):
    """Random numbers that depend on the step alone, as the kit's stages have."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        torch.manual_seed(trainer.global_step)


@pytest.mark.parametrize("build", [toys.tower, toys.pretraining], ids=["tower", "pretraining"])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(build, tmp_path):
    seeds = range(2)
    batches = [tiny.pairs(seed=s) if build is toys.tower else tiny.multimodal(s) for s in seeds]
    data, whole = toys.ToyData(batches), build(tmp_path)
    toys.trainer(4, callbacks=[Reseed()]).fit(whole, data)

    keep = ModelCheckpoint(
        dirpath=tmp_path, filename="{step}", every_n_train_steps=2, save_top_k=-1
    )
    first = toys.trainer(4, callbacks=[Reseed(), keep], enable_checkpointing=True)
    first.fit(build(tmp_path), data)
    second = build(tmp_path)
    toys.trainer(4, callbacks=[Reseed()]).fit(second, data, ckpt_path=tmp_path / "step=2.ckpt")
    state, again = whole.state_dict(), second.state_dict()
    assert all(torch.equal(state[name], again[name]) for name in state)


def test_validation_hands_typed_outputs_to_callbacks(tmp_path):
    module, recorder = toys.tower(tmp_path), toys.Recorder()
    trainer = toys.trainer(1, callbacks=[recorder])
    trainer.validate(module, toys.pair_data(), verbose=False)
    pairs, zero_shot = recorder.outputs
    assert isinstance(pairs, TowerOutput)
    assert isinstance(zero_shot, EmbeddingOutput)
    assert pairs.reconstructions.dtype == torch.uint8
    assert pairs.reconstructions.shape == (4, 3, tiny.SIDE, tiny.SIDE)
    assert pairs.codes.shape == (4, 16, 3)
    assert pairs.residual_energy.shape == (4, 3)
    torch.testing.assert_close(zero_shot.features.norm(dim=-1), torch.ones(4))
    assert {"val/l2_loss", "val/commitment_loss", "val/contrastive_loss"} <= set(
        trainer.callback_metrics
    )


def test_given_reads_what_checkpoints_keep():
    default = OptimizerConfig(learning_rate=0.5)
    assert given(default, None) is default
    chosen = OptimizerConfig(learning_rate=0.25)
    assert given(default, chosen) is chosen
    read = given(default, {"learning_rate": 0.125, "betas": [0.5, 0.75]})
    assert read == OptimizerConfig(learning_rate=0.125, betas=(0.5, 0.75))


@pytest.mark.parametrize(
    ("build", "data"),
    [(toys.ablation, toys.pair_data), (toys.pretraining, toys.multimodal_data)],
    ids=["tower", "pretraining"],
)
def test_trains_in_bfloat16_near_float32(build, data, tmp_path):
    exact = toys.fit(build(tmp_path), data(), 2)
    module = build(tmp_path)
    rough = toys.fit(module, data(), 2, precision="bf16-mixed")
    assert rough.losses == pytest.approx(exact.losses, rel=0.03)
    tower = module.tower if build is toys.ablation else module.model.tokenizer
    assert tower.quantizer.codebook.weight.dtype == torch.float32


@pytest.mark.parametrize("strategy", ["FSDPStrategy", "DeepSpeedStrategy"])
def test_shards_that_are_not_put_together_are_refused(strategy, tmp_path, monkeypatch):
    made = object.__new__(getattr(strategies, strategy))
    module = toys.clip(tmp_path)
    module._trainer = SimpleNamespace(precision="32-true", strategy=made)
    with pytest.raises(ConfigError, match=f"strategy is {strategy}.*write .*ModelParallelStrategy"):
        module.setup("fit")


@pytest.mark.parametrize(
    ("precision", "better"), [("bf16-true", "bf16-mixed"), ("16-true", "16-mixed")]
)
def test_weights_of_half_precision_are_not_trained(precision, better, tmp_path):
    with pytest.raises(ConfigError, match=f"trainer.precision is {precision}.*write {better}"):
        toys.fit(toys.clip(tmp_path), toys.pair_data(), 1, precision=precision)
