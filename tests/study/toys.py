"""Toy stages for the engine's tests: a two-layer net on drawn numbers, its data, its evaluation."""

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vilau.errors import CheckpointError, ConfigError
from vilau.types import Passport


@dataclass
class ToySizes:
    image_size: int = 32
    patch_size: int = 16

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            low = self.image_size // self.patch_size * self.patch_size
            raise ConfigError(
                f"model.sizes.image_size is {self.image_size}, which {self.patch_size}-pixel patches"
                f" do not divide; write {low} or {low + self.patch_size}."
            )


class ToyTraining(LightningModule):
    """Learn to tell the sign of a sum; dropout and noise make every step depend on randomness."""

    def __init__(
        self,
        width: int = 8,
        lr: float = 0.05,
        noise: float = 0.1,
        kind: Literal["plain", "fancy"] = "plain",
        checkpoint: str | None = None,
        sizes: ToySizes = ToySizes(),  # noqa: B008 - jsonargparse shows the default
        exit_at: str | None = None,
        step_s: float = 0.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["exit_at"])
        if lr > 5:
            raise ConfigError(f"model.lr is {lr}; write a value below 5.")
        if lr > 4:
            raise ValueError("the constructor itself is broken")
        self.lr, self.noise, self.exit_at, self.step_s = lr, noise, exit_at, step_s
        self.net = nn.Sequential(
            nn.Linear(4, width), nn.Dropout(0.1), nn.ReLU(), nn.Linear(width, 2)
        )
        self.sizes = sizes
        if checkpoint:
            config = json.loads((Path(checkpoint) / "config.json").read_text())
            if config["width"] != width:
                raise CheckpointError(f"{checkpoint} has width {config['width']}, not {width}.")
            if not self.net[0].weight.is_meta:
                self.net.load_state_dict(load_file(Path(checkpoint) / "model.safetensors"))
        self.width = width

    def forward(self, numbers: Tensor) -> Tensor:
        return self.net(numbers)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        time.sleep(self.step_s)
        _crash_at(self.exit_at, f"train:{self.global_step}")
        numbers, labels = batch
        noisy = numbers + self.noise * torch.randn_like(numbers)
        loss = nn.functional.cross_entropy(self(noisy), labels)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        _crash_at(self.exit_at, f"validate:{self.global_step}")
        numbers, labels = batch
        noisy = numbers + self.noise * torch.randn_like(numbers)
        self.log("val/accuracy", (self(noisy).argmax(1) == labels).float().mean())
        self.log("val/loss", nn.functional.cross_entropy(self(noisy), labels))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.lr)

    def export(self, folder: str) -> None:
        _crash_at(self.exit_at, "export")
        (Path(folder) / "config.json").write_text(json.dumps({"width": self.width}))
        if not self.net[0].weight.is_meta:
            save_file(self.net.state_dict(), Path(folder) / "model.safetensors")


class ToyEvaluation(LightningModule):
    """Answer questions of two families with an exported toy."""

    def __init__(self, checkpoint: str, width: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.toy = ToyTraining(width=width, checkpoint=checkpoint)
        self.passports = {"test/accuracy": Passport("accuracy", num_samples=64)}

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        numbers, labels = batch
        right = (self.toy(numbers).argmax(1) == labels).float()
        self.log("test/accuracy", right.mean())
        self.log("test/chance", 0.5)
        self.log("test/vqa/count", right[::2].mean())
        self.log("test/vqa/identity", right[1::2].mean())


@dataclass
class Position:
    epoch: int = 0
    item: int = 0


@dataclass
class ToyLoader:
    """A loader that can be resumed: its order follows from (seed, epoch)."""

    numbers: Tensor
    labels: Tensor
    batch_size: int
    seed: int
    shuffle: bool
    position: Position = field(default_factory=Position)

    def __len__(self) -> int:
        return len(self.numbers) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.arange(len(self.numbers))
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed + 1000 * self.position.epoch)
            order = torch.randperm(len(self.numbers), generator=generator)
        first, self.position.item = self.position.item, self.position.item
        for batch in range(first, len(self)):
            index = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            self.position.item = batch + 1
            if self.position.item == len(self):
                self.position = Position(self.position.epoch + 1, 0)
            yield self.numbers[index], self.labels[index]

    def state_dict(self) -> dict[str, int]:
        return asdict(self.position)

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = Position(**state)


class ToyData(LightningDataModule):
    def __init__(
        self,
        num_samples: int = 64,
        global_batch_size: int = 8,
        seed: int = 0,
        path: str = "drawn",
        image_size: int = 32,
    ) -> None:
        super().__init__()
        self.num_samples, self.global_batch_size, self.seed = num_samples, global_batch_size, seed
        if path != "drawn" and not Path(path).exists():
            raise ConfigError(f"data.path is {path}, which is not there; write drawn or a folder.")

    def _loader(self, seed: int, shuffle: bool) -> ToyLoader:
        generator = torch.Generator().manual_seed(seed)
        numbers = torch.randn(self.num_samples, 4, generator=generator)
        labels = (numbers.sum(1) > 0).long()
        return ToyLoader(numbers, labels, self.global_batch_size, self.seed, shuffle)

    def train_dataloader(self) -> ToyLoader:
        return self._loader(self.seed, True)

    def val_dataloader(self) -> ToyLoader:
        return self._loader(self.seed + 1, False)

    def test_dataloader(self) -> ToyLoader:
        return self._loader(self.seed + 2, False)


class ToyImages(Callback):
    """Log a grid of squares, and carry the passport of the accuracy."""

    def __init__(self, reference: str = "toy-set") -> None:
        self.passports = {"val/accuracy": Passport("accuracy", reference=reference, num_samples=64)}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.logger is None:
            return
        grid = torch.zeros(3, 34, 134)
        for square in range(4):
            colour = torch.tensor([square / 3, 0.4, 1 - square / 3])[:, None, None]
            grid[:, 2:32, 2 + 33 * square : 32 + 33 * square] = colour
        trainer.logger.experiment.add_image("val/reconstructions", grid, trainer.global_step)


def _crash_at(place: str | None, here: str) -> None:
    """Die as by ``kill -9``, once: the file named behind the place remembers that it happened."""
    if place is None:
        return
    where, _, marker = place.partition("@")
    if where == here and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)


def stage_numbers(run_dir: Path) -> Any:
    """Return what must be equal for equal runs: exported weights and metrics."""
    metrics = json.loads((run_dir / "metrics.json").read_text())
    weights = {}
    if (run_dir / "model").exists():
        weights = {k: v.tolist() for k, v in load_file(run_dir / "model/model.safetensors").items()}
    return metrics["metrics"], metrics.get("train_metrics"), weights
