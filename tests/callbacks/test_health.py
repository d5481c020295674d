"""The health callback: one sentence per cause, the batch of a NaN in a file, a summary."""

import math
from pathlib import Path

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.callbacks.toys import Toy, image_batch, loader, trainer
from vilau.callbacks.codebook_usage import CodebookUsage
from vilau.callbacks.health import Health, TrainingDivergedError
from vilau.callbacks.health_rules import Alarms, SpikeWindow, depth_findings
from vilau.callbacks.replay import from_plain, load_step, save_step, to_plain
from vilau.callbacks.step_seed import StepSeed
from vilau.errors import ConfigError, DataError
from vilau.types import Document, ImageSegment, ImageTextBatch, MultimodalBatch, TextSegment


class Scripted(Toy):
    """Its loss at batch i is ``losses[i]``, with a gradient of that size; it logs ``logged[i]``."""

    def __init__(self, losses: list[float], logged: dict[str, list[float]] | None = None) -> None:
        super().__init__()
        self.losses, self.logged = losses, logged or {}

    def training_step(self, batch, batch_idx: int) -> torch.Tensor:
        for name, values in self.logged.items():
            self.log(name, values[batch_idx])
        return self.losses[batch_idx] + 0 * self.weight.sum()


class RootOfZero(Toy):
    """A finite loss with an infinite gradient: the weight starts at 0."""

    def training_step(self, batch, batch_idx: int) -> torch.Tensor:
        return self.weight.abs().sqrt().sum()


def batches(number: int) -> list[ImageTextBatch]:
    images = torch.arange(number * 2 * 3 * 16 * 16) % 251
    parts = images.to(torch.uint8).view(number, 2, 3, 16, 16)
    return [image_batch(part) for part in parts]


def fit(folder: Path, module: Toy, *callbacks, steps: int, **settings):
    run = trainer(folder, *callbacks, max_steps=steps, num_sanity_val_steps=0, **settings)
    train = loader(*batches(steps * settings.get("accumulate_grad_batches", 1)))
    run.fit(module, train, settings.get("val"))
    return run


# ---------------------------------------------------------------------- NaN


def test_nan_stops_before_the_weights_and_leaves_its_batch(tmp_path, capsys) -> None:
    module = Scripted([1.0, 1.0, math.nan, 1.0])
    with pytest.raises(TrainingDivergedError) as raised:
        fit(tmp_path, module, Health(), StepSeed(7), steps=4)
    file = tmp_path / "health" / "step00000002-rank0.pt"
    words = str(raised.value)
    assert words.startswith("Step 2: the loss is not a finite number (loss nan; gradient norm ")
    assert str(file) in words
    assert "What usually helps: go back to the last checkpoint" in words
    assert module.weight.isfinite().all()
    raw = torch.load(file, weights_only=True)
    assert raw["batches"][0]["kind"] == "ImageTextBatch"
    step = load_step(file)
    assert (step["step"], step["rank"], step["seed"], step["batch_indices"]) == (2, 0, 7, [2])
    (batch,) = step["batches"]
    assert isinstance(batch, ImageTextBatch)
    assert torch.equal(batch.images, batches(4)[2].images)
    assert batch.texts == ["a picture"] * 2
    assert "health, step 2: non-finite: the loss" in capsys.readouterr().err


def test_an_infinite_gradient_names_its_parameter(tmp_path) -> None:
    module = RootOfZero()
    with torch.no_grad():
        module.weight.fill_(1e-300)
    with pytest.raises(TrainingDivergedError, match=r"a gradient is not.*first in weight\)"):
        fit(tmp_path, module, Health(), steps=1, gradient_clip_val=1.0)
    assert load_step(tmp_path / "health" / "step00000000-rank0.pt")["parameters"] == ["weight"]


def test_all_batches_of_an_accumulated_step_are_saved(tmp_path) -> None:
    module = Scripted([1.0, 1.0, math.inf, 1.0])
    with pytest.raises(TrainingDivergedError, match="Step 1: the loss"):
        fit(tmp_path, module, Health(), steps=2, accumulate_grad_batches=2)
    step = load_step(tmp_path / "health" / "step00000001-rank0.pt")
    assert step["batch_indices"] == [2, 3]
    assert [math.isfinite(loss) for loss in step["losses"]] == [False, True]


def test_going_on_after_nan_says_it_once_and_saves_a_few(tmp_path, capsys) -> None:
    module = Scripted([math.nan] * 4 + [1.0, math.nan])
    callback = Health(stop_on_nan=False, max_saved=2)
    fit(tmp_path, module, callback, steps=6)
    printed = capsys.readouterr().err
    assert printed.count("non-finite: the loss") == 2
    assert printed.count("non-finite: over.") == 1
    assert "Health.max_saved is 2" in printed
    assert len(list((tmp_path / "health").iterdir())) == 2
    assert "non-finite: step 0 (over at 4), step 5 (still on)" in printed


# ---------------------------------------------------------------------- spikes


def test_a_spike_is_told_once_until_it_is_over(tmp_path, capsys) -> None:
    losses = [2.0 + 0.05 * math.sin(i) for i in range(60)]
    losses[30] = losses[31] = 9.0
    logger = TensorBoardLogger(tmp_path, name="", version="")
    fit(tmp_path, Scripted(losses), Health(window=20), steps=60, logger=logger)
    printed = capsys.readouterr().err
    assert printed.count("loss spike: the loss is 9, usually 2") == 1
    assert "trainer.gradient_clip_val" in printed
    assert "loss spike: step 31 (over at 38)" in printed
    assert "Watched: gradients, loss. Not logged, so not watched: codebook" in printed
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    texts = events.Tensors("health/loss_spike/text_summary")
    assert [event.step for event in texts] == [31, 38]
    assert "usually 2" in texts[0].tensor_proto.string_val[0].decode()


def test_spike_window_on_noise_drift_and_a_new_level() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3000, generator=generator).tolist()
    quiet = SpikeWindow(length=100, deviations=10.0)
    assert not any(quiet.spikes(5.0 * 0.999**i + 0.1 * n) for i, n in enumerate(noise))
    standing = SpikeWindow(length=20, deviations=10.0)
    assert not any(standing.spikes(1.0 + 1e-6 * n) for n in noise[:100])
    assert standing.spikes(1.2)
    mixed = SpikeWindow(length=100, deviations=10.0)  # one batch in six has another, larger loss
    assert not any(mixed.spikes(2.3 if i % 6 == 0 else 0.3 + 0.01 * n) for i, n in enumerate(noise))
    assert mixed.spikes(4.6)
    stepped = SpikeWindow(length=20, deviations=10.0)
    judged = [stepped.spikes(1.0 if i < 50 else 3.0) for i in range(100)]
    assert not any(judged[:50])
    assert judged[50]
    assert not judged[-1]  # the new level is the normal one


# ---------------------------------------------------------------------- what modules log


def test_discriminator_and_logit_scale(tmp_path, capsys) -> None:
    logged = {
        "train/discriminator_accuracy": [0.6] * 20 + [0.99] * 20 + [0.5] * 20,
        "train/discriminator_loss": [0.0] * 60,  # not asked: there is an accuracy
        "scale": [50.0] * 30 + [99.95] * 30,
    }
    callback = Health(
        window=10, every_n_steps=2, largest_logit_scale=100.0, names={"logit_scale": "scale"}
    )
    fit(tmp_path, Scripted([1.0] * 60, logged), callback, steps=60)
    printed = capsys.readouterr().err
    assert printed.count("discriminator winning: its mean accuracy is 0.99") == 1
    assert "discriminator winning: step 30 (over at 42)" in printed
    assert printed.count("logit scale: it is 99.95 (the alarm stands at 100)") == 1
    assert "logit scale: step 32 (still on)" in printed


def test_a_discriminator_without_accuracy_wins_by_its_loss(tmp_path, capsys) -> None:
    logged = {"train/discriminator_loss": [0.01] * 12}
    fit(tmp_path, Scripted([1.0] * 12, logged), Health(window=8, every_n_steps=1), steps=12)
    assert "discriminator winning: its mean loss is 0.01" in capsys.readouterr().err


class Collapsing(Toy):
    """Depth 2 takes nothing away and uses one code, until ``healed``."""

    healed = False

    def validation_step(self, batch, batch_idx: int):
        output = super().validation_step(batch, batch_idx)
        output.residual_energy = output.residual_energy / 2
        if not self.healed:
            output.codes = output.codes.clone()
            output.codes[..., 1] = 3
            output.residual_energy = torch.full_like(output.residual_energy, 0.5)
        return output


def test_codebook_collapse_and_dead_depth(tmp_path, capsys) -> None:
    module = Collapsing()
    images = [image_batch(torch.zeros(8, 3, 16, 16, dtype=torch.uint8))]
    callback = Health(smallest_usage=0.2)
    run = trainer(tmp_path, CodebookUsage(), callback, max_steps=2, num_sanity_val_steps=0)
    run.fit(module, loader(*batches(2)), loader(*images))
    printed = capsys.readouterr().err
    assert "codebook collapse, depth 2: it uses 1 codes with a perplexity of 1.0, of 16" in printed
    assert "restart unused codes" in printed
    assert "dead depth, depth 2: it leaves 0.5 of the features' energy, where 0.5" in printed
    assert "depth 1:" not in printed
    module.healed = True
    trainer(tmp_path, CodebookUsage(), callback).validate(module, loader(*images), verbose=False)
    assert "codebook collapse, depth 2: over." in capsys.readouterr().err
    assert not callback.alarms.on


def test_a_small_validation_set_is_no_collapse(tmp_path, capsys) -> None:
    module = Collapsing()
    module.healed = True
    module.codebook_size = 4096  # the one image shows 4 of them
    images = image_batch(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    run = trainer(tmp_path, CodebookUsage(), Health(), max_steps=1, num_sanity_val_steps=0)
    run.fit(module, loader(*batches(1)), loader(images))
    printed = capsys.readouterr().err
    assert "nothing went wrong" in printed
    assert "codebook" in printed.partition("Not logged")[0]


def test_depths_that_stop_falling() -> None:
    found = [
        wrong for _, wrong, _ in depth_findings({1: 0.5, 2: 0.499, 3: 0.2}, smallest_fall=0.01)
    ]
    assert found == [False, True, False]


# ---------------------------------------------------------------------- what it must not do


def test_it_changes_no_weight_and_draws_no_numbers(tmp_path) -> None:
    def trained(*callbacks) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(3)
        module = Toy()
        fit(tmp_path, module, *callbacks, steps=5)
        return module.weight.detach(), torch.rand(3)

    for plain, watched in zip(trained(), trained(Health()), strict=True):
        assert torch.equal(plain, watched)


def test_alarms_outlive_a_restart() -> None:
    before = Alarms()
    before.note("loss spike", "", wrong=True, step=3)
    before.note("loss spike", "", wrong=False, step=5)
    before.note("dead depth", "depth 2", wrong=True, step=9)
    callback = Health()
    callback.load_state_dict({"alarms": before.state_dict()})
    assert callback.alarms.lines() == before.lines()
    assert not callback.alarms.note("dead depth", "depth 2", wrong=True, step=12)  # told before
    assert callback.state_dict() == {"alarms": before.state_dict()}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"window": 3}, r"Health\.window is 3; write 8 or more"),
        ({"smallest_usage": 5.0}, r"Health\.smallest_usage is 5\.0; write a share"),
        ({"names": {"looss": "x"}}, r"Health\.names holds 'looss'; the keys it knows are loss"),
    ],
)
def test_settings_out_of_range(settings, words) -> None:
    with pytest.raises(ConfigError, match=words):
        Health(**settings)


# ---------------------------------------------------------------------- replay


def test_typed_batches_come_back_from_a_file(tmp_path) -> None:
    segments = (TextSegment("see"), ImageSegment(0), TextSegment("a dog", target=True))
    batch = MultimodalBatch(torch.ones(1, 3, 4, 4, dtype=torch.uint8), [Document(segments)])
    save_step(
        tmp_path / "health" / "a.pt", {"batches": [batch], "where": Path("x"), "pair": (1, None)}
    )
    found = load_step(tmp_path / "health" / "a.pt")
    assert found["batches"][0].documents == batch.documents
    assert torch.equal(found["batches"][0].images, batch.images)
    assert found["pair"] == (1, None)
    assert found["where"] == repr(Path("x"))
    assert [path.name for path in (tmp_path / "health").iterdir()] == ["a.pt"]


def test_files_that_are_no_saved_step(tmp_path) -> None:
    with pytest.raises(DataError, match="does not exist; give a file of a run's folder health/"):
        load_step(tmp_path / "no.pt")
    (tmp_path / "broken.pt").write_bytes(b"not a file of torch")
    with pytest.raises(DataError, match=r"broken\.pt cannot be read"):
        load_step(tmp_path / "broken.pt")
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(DataError, match="holds no saved step"):
        load_step(tmp_path / "list.pt")
    with pytest.raises(DataError, match="kind 'Passport2'"):
        from_plain({"kind": "Passport2"})
    with pytest.raises(DataError, match="kind 'Tensor'"):
        from_plain({"kind": "Tensor"})
    assert to_plain(len) is None
    assert to_plain({1: torch.zeros(1, requires_grad=True)})["1"].requires_grad is False
