"""A module and batches that callbacks can be tried on."""

from collections.abc import Sequence

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vilau.types import (
    AnswerOutput,
    DrawingOutput,
    EmbeddingOutput,
    ImageTextBatch,
    LabelledImageBatch,
    PromptBatch,
    QuestionBatch,
    TowerOutput,
)


class Toy(pl.LightningModule):
    """Reconstructs with a small error, embeds by mean colour, answers "yes", draws references."""

    depth = 2
    codebook_size = 16
    part_name = "depth"

    def __init__(self, answer: str = "yes") -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.answer = answer
        self.texts_embedded: list[str] = []

    def training_step(self, batch, batch_idx: int) -> Tensor:
        return (self.weight - 1).square().sum()

    def validation_step(self, batch, batch_idx: int):
        if isinstance(batch, ImageTextBatch):
            number = len(batch.images)
            codes = torch.arange(4 * self.depth).view(1, 4, self.depth) % self.codebook_size
            return TowerOutput(
                reconstructions=self.worse(batch.images, 0),
                codes=codes.expand(number, -1, -1),
                residual_energy=torch.tensor([0.5**d for d in range(self.depth)]).expand(
                    number, -1
                ),
            )
        if isinstance(batch, LabelledImageBatch):
            return EmbeddingOutput(self.colors(batch.images))
        return None

    def test_step(self, batch, batch_idx: int):
        if isinstance(batch, QuestionBatch):
            return AnswerOutput([self.answer] * len(batch.questions))
        if isinstance(batch, PromptBatch):
            return DrawingOutput(self.draw(batch.prompts, seed=0, images=batch.references))
        return None

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

    @staticmethod
    def worse(images: Tensor, amount: int) -> Tensor:
        return (images.int() + 4 + 20 * amount).clamp(0, 255).to(torch.uint8)

    @staticmethod
    def colors(images: Tensor) -> Tensor:
        return torch.nn.functional.normalize(images.float().mean(dim=(2, 3)) + 1.0, dim=-1)

    def image_features(self, images: Tensor) -> Tensor:
        return self.colors(images)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        self.texts_embedded += texts
        axes = {"red": [1.0, 0, 0], "green": [0, 1.0, 0], "blue": [0, 0, 1.0]}
        return torch.tensor([axes[text.split()[-1]] for text in texts])

    def reconstruct_by_part(self, images: Tensor) -> Tensor:
        steps = [self.worse(images, self.depth - 1 - d) for d in range(self.depth)]
        return torch.stack(steps)

    def draw(self, prompts: Sequence[str], *, seed: int, images: Tensor | None = None) -> Tensor:
        if images is not None:
            return images
        return torch.full((len(prompts), 3, 32, 32), 100 + seed, dtype=torch.uint8)


class Mute(pl.LightningModule):
    """Returns what a validation step should, and can nothing of what callbacks ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def validation_step(self, batch, batch_idx: int):
        if isinstance(batch, ImageTextBatch):
            codes = torch.zeros(len(batch.images), 4, 2, dtype=torch.long)
            return TowerOutput(batch.images, codes, torch.ones(len(batch.images), 2))
        return EmbeddingOutput(Toy.colors(batch.images))


def loader(*batches) -> DataLoader:
    return DataLoader(list(batches), batch_size=None, collate_fn=lambda batch: batch)


def trainer(folder, *callbacks: pl.Callback, **settings) -> pl.Trainer:
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": str(folder),
        "callbacks": list(callbacks),
    }
    return pl.Trainer(**(defaults | settings))


def image_batch(images: Tensor, scenes: list[str] | None = None) -> ImageTextBatch:
    return ImageTextBatch(images, ["a picture"] * len(images), None, scenes or [])
