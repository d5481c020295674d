"""One stage in this process: finishing, resuming, measuring, full disks, and readable mistakes."""

import json
import resource
import signal
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.study.toys import ToyTraining, stage_numbers
from vilau.errors import CheckpointError, ConfigError, VilauError
from vilau.study.checkpoints import newest_checkpoint
from vilau.study.stage import BUSY, STOPPED, run_stage
from vilau.study.store import run_lock

CONFIG: dict[str, Any] = {
    "seed_everything": 3,
    "model": {"class_path": "tests.study.toys.ToyTraining", "init_args": {"noise": 0.2}},
    "data": {"class_path": "tests.study.toys.ToyData"},
    "trainer": {
        "max_steps": 20,
        "accelerator": "cpu",
        "devices": 1,
        "val_check_interval": 8,
        "check_val_every_n_epoch": None,
        "callbacks": [{"class_path": "tests.study.toys.ToyImages"}],
    },
    "checkpoint_every_n_steps": 6,
}


def write(folder: Path, **changes: Any) -> str:
    config = deepcopy(CONFIG)
    for key, value in changes.items():
        *way, last = key.split("__")
        node = config
        for word in way:
            node = node.setdefault(word, {})
        node[last] = value
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    return str(folder / "run.yaml")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("plain")
    assert run_stage("fit", write(folder)) == 0
    return folder


def test_a_finished_run_holds_everything(plain: Path) -> None:
    metrics = json.loads((plain / "metrics.json").read_text())
    assert metrics["finished"] is True
    assert metrics["command"] == "fit"
    assert metrics["steps"] == 20
    assert set(metrics["metrics"]) == {"val/accuracy", "val/loss"}
    assert set(metrics["train_metrics"]) == {"train/loss"}
    assert metrics["passports"]["val/accuracy"]["reference"] == "toy-set"
    assert metrics["parameters"] == metrics["trainable_parameters"] == 58
    assert metrics["seconds"] > 0
    assert (plain / "model/model.safetensors").exists()
    assert [p.name for p in (plain / "checkpoints").iterdir()] == ["step=00000020.ckpt"]
    assert json.loads((plain / "status.json").read_text())["step"] == 20
    assert "torch==" in (plain / "environment.txt").read_text()
    assert not list(plain.glob("**/*partial*"))


def test_the_metrics_belong_to_the_last_step(plain: Path) -> None:
    """Validation ran at steps 8 and 16; the numbers must be those of the exported weights."""
    module = ToyTraining(noise=0.2, checkpoint=str(plain / "model"))
    from tests.study.toys import ToyData
    from vilau.callbacks.step_seed import StepSeed

    class At20(StepSeed):
        def on_validation_batch_start(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
            trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = 20
            super().on_validation_batch_start(trainer, *args, **kwargs)

    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[At20(3)],
        enable_model_summary=False,
    )  # fmt: skip
    (found,) = trainer.validate(module, datamodule=ToyData(), verbose=False)
    assert found == json.loads((plain / "metrics.json").read_text())["metrics"]


def test_tensorboard_shows_scalars_pictures_and_hyper_parameters(plain: Path) -> None:
    events = EventAccumulator(str(plain)).Reload()
    tags = events.Tags()
    assert {"train/loss", "val/accuracy"} <= set(tags["scalars"])
    assert tags["images"] == ["val/reconstructions"]
    assert len(events.Scalars("train/loss")) == 20
    content = b"".join(p.read_bytes() for p in plain.glob("events*"))
    assert b"_hparams_/session_start_info" in content
    assert b"model.noise" in content


def test_a_finished_run_is_left_alone(plain: Path) -> None:
    before = (plain / "metrics.json").stat().st_mtime_ns
    assert run_stage("fit", str(plain / "run.yaml")) == 0
    assert (plain / "metrics.json").stat().st_mtime_ns == before


def test_a_run_cut_off_by_sigterm_resumes_to_the_same_bits(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write(tmp_path / "run")
    step = ToyTraining.training_step

    def stop_at_nine(self: ToyTraining, *args: Any) -> Any:
        if self.global_step == 9:
            signal.raise_signal(signal.SIGTERM)
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(ToyTraining, "training_step", stop_at_nine)
        assert run_stage("fit", config) == STOPPED
    assert not (tmp_path / "run/metrics.json").exists()
    # It stopped after step 10 and saved there, not at the multiples of 6 alone.
    assert newest_checkpoint(tmp_path / "run/checkpoints").name == "step=00000010.ckpt"  # type: ignore[union-attr]
    assert run_stage("fit", config) == 0
    assert stage_numbers(tmp_path / "run") == stage_numbers(plain)


def test_a_run_asked_to_stop_ends_the_step_it_gathers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = (write(tmp_path / name, trainer__accumulate_grad_batches=3) for name in "ab")
    assert run_stage("fit", whole) == 0
    step, called = ToyTraining.training_step, []

    def stop_at_the_second_part(self: ToyTraining, *args: Any) -> Any:
        called.append(self.global_step)
        if called.count(4) == 2:
            signal.raise_signal(signal.SIGTERM)
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(ToyTraining, "training_step", stop_at_the_second_part)
        assert run_stage("fit", cut) == STOPPED
    assert called.count(4) == 3
    assert newest_checkpoint(tmp_path / "b/checkpoints").name == "step=00000005.ckpt"  # type: ignore[union-attr]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert run_stage("fit", cut) == 0
    assert stage_numbers(tmp_path / "b") == stage_numbers(tmp_path / "a")


def test_a_damaged_checkpoint_is_never_used(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = write(tmp_path)

    def die(self: ToyTraining, *args: Any) -> Any:
        if self.global_step == 15:
            raise RuntimeError("power cut")
        return step(self, *args)

    step = ToyTraining.training_step
    with monkeypatch.context() as patch:
        patch.setattr(ToyTraining, "training_step", die)
        with pytest.raises(RuntimeError, match="power cut"):
            run_stage("fit", config)
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["step=00000006.ckpt", "step=00000012.ckpt"]
    newest = tmp_path / "checkpoints/step=00000012.ckpt"
    newest.write_bytes(newest.read_bytes()[:2000])
    (tmp_path / "checkpoints/step=00000018.ckpt.partial").write_bytes(b"half")
    caplog.clear()
    assert run_stage("fit", config) == 0
    assert "step=00000012.ckpt cannot be read" in caplog.text
    assert "resuming from step=00000006.ckpt" in caplog.text
    assert stage_numbers(tmp_path) == stage_numbers(plain)


def test_a_full_disk_is_one_sentence_and_nothing_half_written_counts(
    plain: Path, tmp_path: Path
) -> None:
    config = write(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))  # a checkpoint is about 6 kB
    try:
        message = r"the disk is full \(\d+ MiB free\); free some space and start again"
        with pytest.raises(VilauError, match=message):
            run_stage("fit", config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "metrics.json").exists()
    assert newest_checkpoint(tmp_path / "checkpoints") is None
    assert run_stage("fit", config) == 0
    assert stage_numbers(tmp_path) == stage_numbers(plain)


def test_a_full_disk_during_export_leaves_no_product(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: ToyTraining, folder: str) -> None:
        (Path(folder) / "config.json").write_text("{}")
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    config = write(tmp_path, trainer__max_steps=2)
    monkeypatch.setattr(ToyTraining, "export", full)
    with pytest.raises(VilauError, match="the disk is full"):
        run_stage("fit", config)
    assert not (tmp_path / "model").exists()
    assert not (tmp_path / "metrics.json").exists()


def test_fresh_erases_a_finished_run(tmp_path: Path) -> None:
    config = write(tmp_path, trainer__max_steps=2)
    assert run_stage("fit", config) == 0
    before = json.loads((tmp_path / "metrics.json").read_text())["finished_at"]
    (tmp_path / "old-file").write_text("")
    assert run_stage("fit", config, fresh=True) == 0
    assert not (tmp_path / "old-file").exists()
    assert json.loads((tmp_path / "metrics.json").read_text())["finished_at"] >= before


def test_a_locked_run_is_not_trained_twice(tmp_path: Path) -> None:
    config = write(tmp_path)
    with run_lock(tmp_path):
        assert run_stage("fit", config) == BUSY
    assert not (tmp_path / "metrics.json").exists()


def test_a_test_stage_measures_an_exported_model(plain: Path, tmp_path: Path) -> None:
    config = write(
        tmp_path,
        model={
            "class_path": "tests.study.toys.ToyEvaluation",
            "init_args": {"checkpoint": str(plain / "model")},
        },
    )
    assert run_stage("test", config) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["metrics"]["test/accuracy"] > 0.6
    assert metrics["passports"]["test/accuracy"]["num_samples"] == 64


def test_threads_and_folder_of_a_config_of_ones_own(tmp_path: Path) -> None:
    config = write(tmp_path, threads=1, trainer__max_steps=1)
    own = tmp_path / "mine.yaml"
    text = Path(config).read_text() + "\n# own\n"
    data = yaml.safe_load(text)
    data["trainer"]["default_root_dir"] = str(tmp_path / "elsewhere")
    own.write_text(yaml.safe_dump(data))
    assert run_stage("fit", str(own)) == 0
    assert (tmp_path / "elsewhere/metrics.json").exists()
    assert torch.get_num_threads() == 1


LINE = r"run\.yaml:\d+: "
MISTAKES = [
    ({"model__init_args": {"noize": 1.0}},
     LINE + r"unknown key `model\.noize`: ToyTraining has none of that name\. Did you mean `noise`"),
    ({"model__init_args": {"lr": "fast"}}, LINE + r"`model\.lr` holds `fast`; write a number\.$"),
    ({"model__init_args": {"kind": "fency"}},
     LINE + r"`model\.kind` holds `fency`; write one of 'plain', 'fancy'\.$"),
    ({"model__init_args": {"checkpoint": [1]}},
     LINE + r"`model\.checkpoint` holds `\[1\]`; write a text or null\.$"),
    ({"model__init_args": {"sizes": {"patch": 1}}},
     LINE + r"unknown key `model\.sizes\.patch`: .* Did you mean `patch_size`"),
    ({"model__init_args": {"sizes": {"patch_size": "x"}}},
     LINE + r"`model\.sizes\.patch_size` holds `x`; write a whole number"),
    ({"model__init_args": {"sizes": {"image_size": 250}}},
     LINE + r"model\.sizes\.image_size is 250, which 16-pixel patches do not divide; write 240 or 256\.$"),
    ({"model__init_args": {"lr": 6.0}}, LINE + r"model\.lr is 6\.0; write a value below 5\.$"),
    ({"model__class_path": "tests.study.toys.ToyTrainnig"},
     LINE + r"`model\.class_path`: module .* has no attribute .* Did you mean `ToyTraining`"),
    ({"model__class_path": "nowhere.Toy"}, r"`model\.class_path`: No module named 'nowhere'"),
    ({"model__class_path": "tests.study.broken_toys.Toy"},
     r"`model\.class_path`: cannot import name 'NoSuchError' from 'vilau\.errors'"),
    ({"model__class_path": "tests.study.toys.ToyData"},
     r"`model\.class_path`: .* does not correspond to a subclass of LightningModule"),
    ({"data__init_args": {"global_batch_size": 4.5}},
     LINE + r"`data\.global_batch_size` holds `4\.5`; write a whole number"),
    ({"data__init_args": {"path": "/nowhere"}}, LINE + r"data\.path is /nowhere, which is not there"),
    ({"trainer__max_step": 3}, LINE + r"unknown key `trainer\.max_step`.*Did you mean `max_steps`"),
    ({"trainer__max_steps": "many"}, LINE + r"`trainer\.max_steps` holds `many`; write a whole"),
    ({"trainer__precision": "bf17"}, LINE + r"`trainer\.precision` holds `bf17`; write .*bf16-mixed"),
    ({"trainer__callbacks": [{"class_path": "tests.study.toys.ToyImages", "init_args": {"refrence": 1}}]},
     r"unknown key `trainer\.callbacks\.ToyImages\.refrence`: .* Did you mean `reference`"),
    ({"trainer__accelerator": "gpu"},
     r"trainer\.accelerator is `gpu`, but PyTorch sees no such device here; use --machine cpu"),
    ({"trainer__devices": "many"}, r"^trainer: `devices`"),
    ({"threads": "two"}, LINE + r"`threads` holds `two`; write a whole number or null"),
    ({"modle": {"class_path": "x"}}, LINE + r"unknown key `modle`: .* Did you mean `model`"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), MISTAKES, ids=[m[1][:50] for m in MISTAKES])
def test_a_mistake_is_one_sentence(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    if "gpu" in str(changes) and torch.accelerator.is_available():
        pytest.skip("this computer has a GPU")
    with pytest.raises(ConfigError, match=message) as caught:
        run_stage("fit", write(tmp_path, **changes))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "metrics.json").exists()


def test_a_checkpoint_of_another_architecture_keeps_its_own_words(
    plain: Path, tmp_path: Path
) -> None:
    arguments = {"checkpoint": str(plain / "model"), "width": 9}
    with pytest.raises(CheckpointError, match="has width 8, not 9"):
        run_stage("fit", write(tmp_path, model__init_args=arguments))


def test_a_fault_of_the_code_is_not_dressed_up_as_the_users(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="^the constructor itself is broken$"):
        run_stage("fit", write(tmp_path, model__init_args={"lr": 4.5}))


def test_a_config_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("trainer: {max_steps: 1}\n")
    with pytest.raises(ConfigError):
        run_stage("fit", str(tmp_path / "run.yaml"))
    (tmp_path / "run.yaml").write_text("[1, 2]\n")
    with pytest.raises(ConfigError, match="write a stage config"):
        run_stage("fit", str(tmp_path / "run.yaml"))


@pytest.mark.multi_rank
def test_two_ranks_write_one_run_and_leave_cleanly(tmp_path: Path) -> None:
    config = write(tmp_path / "run", trainer__devices=2, trainer__strategy="ddp")
    repo = Path(__file__).parents[2]
    for _ in range(2):  # the second start finds it finished
        command = [sys.executable, "-m", "vilau", "fit", "--config", config]
        done = subprocess.run(command, capture_output=True, text=True, cwd=repo)
        assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert (metrics["ranks"], metrics["steps"], metrics["finished"]) == (2, 20, True)
    assert (tmp_path / "run/model/model.safetensors").exists()
    assert len(list((tmp_path / "run/checkpoints").iterdir())) == 1


def test_epochs_instead_of_steps(tmp_path: Path) -> None:
    config = write(tmp_path, trainer__max_steps=-1, trainer__max_epochs=2)
    data = yaml.safe_load(Path(config).read_text())
    del data["checkpoint_every_n_steps"], data["trainer"]["val_check_interval"]
    data["trainer"]["check_val_every_n_epoch"] = 1
    Path(config).write_text(yaml.safe_dump(data))
    assert run_stage("fit", config) == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["steps"] == 16


def test_ctrl_c_reaches_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self: ToyTraining, *args: Any) -> Any:
        signal.raise_signal(signal.SIGINT)

    # A test run in the background starts with SIGINT ignored, and so would everything in it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(ToyTraining, "training_step", stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_stage("fit", write(tmp_path))
    finally:
        signal.signal(signal.SIGINT, before)
    assert not (tmp_path / "metrics.json").exists()
