"""Image tokenizers of Liquid and VARGPT are trained here too, by the losses of VQGAN and VAR."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint

import vilau
from tests.models import tiny
from tests.training import toys
from tests.training.test_modules import Reseed
from vilau.callbacks.codebook_usage import CodebookUsage
from vilau.callbacks.image_grid import ImageGrid
from vilau.callbacks.reconstruction_fid import ReconstructionFID
from vilau.errors import ConfigError
from vilau.layers.pixels import to_float
from vilau.models.liquid.config import TokenizerConfig
from vilau.models.vargpt.config import TokenizerConfig as ScalesConfig
from vilau.models.vargpt.tokenizer import MultiScaleVQVAE
from vilau.training.adversarial import DiscriminatorConfig
from vilau.training.averaging import AverageConfig
from vilau.training.pretrain import LiquidPretraining, VargptPretraining
from vilau.training.tokenizer import LiquidTokenizerTraining, VargptTokenizerTraining
from vilau.types import Averages, Exports, Reconstructs, TowerOutput

SMALL = {
    "image_size": tiny.SIDE, "channels": 8, "multipliers": (1, 1, 2), "num_res_blocks": 1, "embed_dim": 8,
    "codebook_size": 24, "norm_groups": 4,
}  # fmt: skip


def build(kind, codes=None, **changes):
    torch.manual_seed(0)
    config = (
        ScalesConfig(**SMALL, scales=(1, 2, 4), **(codes or {}))
        if kind is VargptTokenizerTraining
        else TokenizerConfig(**SMALL, z_channels=8, **(codes or {}))
    )
    settings = {"perceptual_weight": 0.0, "optimizer": tiny.optimizer(), **changes}
    return kind(config, **settings)


KINDS = pytest.mark.parametrize("kind", [VargptTokenizerTraining, LiquidTokenizerTraining])


@KINDS
def test_the_loss_is_the_weighted_sum_of_its_terms(kind):
    weights = {
        "l2_weight": 4.0, "l1_weight": 0.5, "commitment_weight": 0.3, "codebook_weight": 0.7,
        "reconstruction_weight": 2.0,
    }  # fmt: skip
    module, batch = build(kind, **weights).eval(), tiny.pairs()
    target = to_float(batch.images)
    seen = module.tokenizer(target)
    expected = 2.0 * (
        4.0 * F.mse_loss(seen.images, target)
        + 0.5 * F.l1_loss(seen.images, target)
        + 0.3 * seen.quantized.commitment_loss
        + 0.7 * seen.quantized.codebook_loss
    )
    recorder = toys.fit(module, toys.ToyData([batch]), 1)
    assert recorder.losses[0] == pytest.approx(float(expected.detach()), rel=1e-5)
    assert {"train/l1_loss", "train/codebook_loss", "train/commitment_loss"} <= set(
        recorder.logged[0]
    )


@KINDS
def test_a_pass_of_training_is_encode_and_decode(kind):
    module = build(kind)
    model, images = module.tokenizer.eval(), to_float(tiny.images(3))
    seen = model(images)
    codes = model.encode(images)
    assert torch.equal(seen.quantized.codes, codes)
    torch.testing.assert_close(seen.images, model.decode(codes), rtol=1e-5, atol=1e-5)


def test_patches_are_cells_of_the_finest_level():
    """For small CPUs: as many cells of codes from fewer levels, every pixel kept."""
    torch.manual_seed(0)
    config = ScalesConfig(**{**SMALL, "multipliers": (1, 2), "patch": 2}, scales=(1, 2, 4))
    model, images = MultiScaleVQVAE(config).eval(), to_float(tiny.images(2))
    assert model.encoder.conv_in.weight.shape[:2] == (8, 12)
    assert model.encode(images).shape == (2, 21, 1)
    assert model(images).images.shape == images.shape
    changed = images.clone()
    changed[:, :, 5, 7] += 0.5  # any pixel has its say
    assert not torch.equal(model.coded(changed), model.coded(images))


@KINDS
def test_everything_learns_a_batch_by_heart(kind):
    module = build(
        kind,
        {"initialisation": "data", "restart_unused_codes": True, "decay": 0.9},
        optimizer=tiny.optimizer(learning_rate=3e-3),
    )
    before = {n: p.detach().clone() for n, p in module.named_parameters() if p.requires_grad}
    if kind is VargptTokenizerTraining:  # of four refinements three scales have no use for one
        assert len(dict(module.named_parameters())) - len(before) == 2
    losses = toys.fit(module, toys.ToyData([tiny.pairs(6)] * 60), 60).logged
    measured = "train/l2_loss"
    assert losses[-1][measured] < 0.4 * losses[0][measured]
    after = dict(module.named_parameters())
    still = {name for name, value in before.items() if torch.equal(after[name], value)}
    assert not still


@KINDS
def test_stored_reopened_and_handed_on(kind, tmp_path):
    module = build(kind, average=AverageConfig(decay=0.5))
    assert isinstance(module, Exports)
    assert isinstance(module, Averages)
    recorder = toys.Recorder()
    trainer = toys.trainer(2, callbacks=[recorder])
    trainer.fit(module, toys.ToyData([tiny.pairs(seed=s) for s in range(2)]))
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    again = kind.load_from_checkpoint(tmp_path / "run.ckpt", weights_only=True)
    assert dict(again.hparams) == dict(module.hparams)
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())

    module.export(str(tmp_path / "model"))
    opened = vilau.load_tokenizer(tmp_path / "model")
    assert opened.identity() == module.tokenizer.identity()
    if kind is LiquidTokenizerTraining:
        model = LiquidPretraining(str(tmp_path / "model"), tiny.language(), tiny.PROMPT).model
    else:
        parts = tiny.language(), tiny.picture_reader(), tiny.scale_decoder(), tiny.PROMPT
        model = VargptPretraining(str(tmp_path / "model"), *parts).model
    assert model.tokenizer.identity() == opened.identity()


@KINDS
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(kind, tmp_path):
    codes = {"initialisation": "data", "restart_unused_codes": True, "decay": 0.5}
    data = toys.ToyData([tiny.pairs(seed=s) for s in range(2)])
    keep = ModelCheckpoint(
        dirpath=tmp_path, filename="{step}", every_n_train_steps=2, save_top_k=-1
    )
    whole = build(kind, codes)
    trainer = toys.trainer(4, callbacks=[Reseed(), keep], enable_checkpointing=True)
    trainer.fit(whole, data)
    second = build(kind, codes)
    toys.trainer(4, callbacks=[Reseed()]).fit(second, data, ckpt_path=tmp_path / "step=2.ckpt")
    state = second.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in whole.state_dict().items())


@KINDS
def test_accumulated_parts_are_the_whole_batch(kind):
    codes = {"restart_unused_codes": True, "decay": 0.5}
    batch = tiny.pairs(4)
    halves = [type(batch)(batch.images[at : at + 2], batch.texts[at : at + 2]) for at in (0, 2)]
    whole, parts = build(kind, codes), build(kind, codes)
    toys.fit(whole, toys.ToyData([batch]), 1)
    toys.fit(parts, toys.ToyData(halves), 1, accumulate_grad_batches=2)
    state = parts.state_dict()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(state[name], value, rtol=1e-4, atol=1e-5, msg=name)


@KINDS
def test_an_adversary_learns_beside_it(kind):
    module = build(
        kind,
        adversarial_weight=0.5,
        discriminator=DiscriminatorConfig(num_layers=1, channels=4),
    )
    recorder = toys.fit(module, toys.ToyData([tiny.pairs(seed=s) for s in range(2)]), 2)
    assert {"train/adversarial_loss", "train/discriminator_loss"} <= set(recorder.logged[-1])


def test_callbacks_tell_of_each_scale(tmp_path):
    module = build(VargptTokenizerTraining)
    assert isinstance(module, Reconstructs)
    assert module.part_name == "scale"
    assert module.reconstruct_by_part(tiny.images(2)).shape == (3, 2, 3, tiny.SIDE, tiny.SIDE)
    recorder = toys.Recorder()
    callbacks = [recorder, CodebookUsage(), ImageGrid(num_images=2)]
    trainer = toys.trainer(1, callbacks=callbacks, default_root_dir=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.validate(module, toys.ToyData([], [tiny.pairs(seed=9)]), verbose=False)
    (output,) = recorder.outputs
    assert isinstance(output, TowerOutput)
    assert output.scales == (1, 4, 16)
    measured = trainer.callback_metrics
    codes = output.codes[..., 0]
    for number, part in enumerate(codes.split(output.scales, dim=1), start=1):
        usage = float(measured[f"val/codebook_usage_s{number}"])
        assert usage == pytest.approx(len(part.unique()) / 24)
        energy = float(measured[f"val/residual_energy_s{number}"])
        assert energy == pytest.approx(float(output.residual_energy[:, number - 1].mean()))
    assert float(measured["val/codebook_usage_d1"]) == pytest.approx(len(codes.unique()) / 24)
    assert "val/codebook_usage_s4" not in measured
    assert "val/residual_energy_d1" not in measured
    assert list(tmp_path.rglob("*reconstructions*.png"))


def test_reconstructions_are_measured():
    trainer = toys.trainer(1, callbacks=[ReconstructionFID()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = toys.ToyData([], [tiny.pairs(8)])
        trainer.validate(build(LiquidTokenizerTraining), data, verbose=False)
    assert {"val/rfid", "val/psnr", "val/ssim"} <= set(trainer.callback_metrics)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"codebook_weight": 0.0}, "model.codebook_weight is 0, but the codes learn by gradient"),
        ({"l2_weight": -1.0}, "model.l2_weight is -1.0; write 0 or more"),
        (
            {"adversarial_weight": 1.0, "l1_weight": 0.0, "l2_weight": 0.0},
            "model.adversarial_weight is 1.0, but model.l2_weight",
        ),
    ],
)
def test_weights_that_cannot_work_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        build(VargptTokenizerTraining, **changes)


def test_images_to_classify_are_passed_over_with_a_word():
    module, recorder = build(VargptTokenizerTraining), toys.Recorder()
    data = toys.ToyData([], [tiny.pairs(seed=9), toys.labelled()])
    trainer = toys.trainer(1, callbacks=[recorder, CodebookUsage()])
    with pytest.warns(
        UserWarning, match="data.zero_shot gives images to classify.*write data.zero"
    ):
        trainer.validate(module, data, verbose=False)
    assert isinstance(recorder.outputs[0], TowerOutput)
    assert recorder.outputs[1] is None
    assert "val/codebook_usage_s1" in trainer.callback_metrics


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        ({"initialisation": "ones"}, "tokenizer.initialisation is 'ones'; write normal or data"),
        ({"decay": 2.0}, "tokenizer.decay is 2.0; write a number from 0 to 1"),
        ({"patch": 0}, "tokenizer.patch is 0; write a whole number, 1 or more"),
        ({"patch": 8}, "is 16, which, in patches of 8 cannot be halved 2 times.*a multiple of 32"),
    ],
)
def test_codes_that_cannot_learn_are_refused(codes, said):
    with pytest.raises(ConfigError, match=said):
        build(LiquidTokenizerTraining, codes)


def test_how_codes_learnt_is_no_part_of_what_they_are(tmp_path):
    """Stored codes outlive a setting that no trained tokenizer's codes depend on."""
    plain, started = (
        build(VargptTokenizerTraining, codes).tokenizer
        for codes in ({}, {"initialisation": "data", "decay": 0.5, "restart_unused_codes": True})
    )
    assert plain.identity() == started.identity()


def test_bfloat16_is_near_float32():
    data = toys.ToyData([tiny.pairs(seed=s) for s in range(2)])
    exact = toys.fit(build(VargptTokenizerTraining), data, 2)
    rough = toys.fit(build(VargptTokenizerTraining), data, 2, precision="bf16-mixed")
    assert rough.losses == pytest.approx(exact.losses, rel=0.05)
