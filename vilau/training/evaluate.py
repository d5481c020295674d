"""Evaluation of a finished model: it answers and draws; callbacks measure."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from vilau.errors import ConfigError
from vilau.generation.sampling import image_seed
from vilau.layers.pixels import to_float, to_uint8
from vilau.models.loading import load
from vilau.types import AnswerOutput, DrawingOutput, PromptBatch, QuestionBatch


class Evaluation(LightningModule):
    """Answer every ``QuestionBatch`` and draw every ``PromptBatch`` of a test set."""

    def __init__(
        self,
        checkpoint: str,
        guidance_scale: float = 3.0,
        temperature: float = 1.0,
        top_k: int = 900,
        top_p: float = 0.96,
        max_new_tokens: int = 16,
        seed: int = 0,
    ) -> None:
        """Take a finished model, whatever ``vilau.load`` opens, and the sampling settings of drawings.

        Answers are greedy. Guidance, top-k and top-p default to the published ones.
        """
        super().__init__()
        if temperature < 0:
            raise ConfigError(f"model.temperature is {temperature}; write 0 (greedy) or more.")
        if not 0 < top_p <= 1:
            raise ConfigError(f"model.top_p is {top_p}; write a share above 0, at most 1 (all).")
        self.save_hyperparameters()
        self.model = load(checkpoint, dtype=torch.float32)
        self.seed = seed
        self.max_new_tokens = max_new_tokens
        self.sampling: dict[str, Any] = {
            "guidance_scale": guidance_scale,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
        }

    def test_step(  # type: ignore[override]  # callbacks read typed outputs
        self, batch: QuestionBatch | PromptBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> AnswerOutput | DrawingOutput:
        """Answer or draw one batch."""
        if isinstance(batch, QuestionBatch):
            return AnswerOutput(self.answer(batch.images, batch.questions))
        seeds = [image_seed(self.seed, batch.first_index + i) for i in range(len(batch.prompts))]
        return DrawingOutput(self._draw(batch.prompts, seeds))

    def answer(self, images: Tensor, questions: Sequence[str]) -> list[str]:
        """Greedy answers about uint8 images."""
        return self.model.answer(to_float(images), questions, max_new_tokens=self.max_new_tokens)

    def draw(self, prompts: Sequence[str], *, seed: int) -> Tensor:
        """Draw prompts; image i depends on ``(seed, i)`` alone. Returns uint8 ``(B, 3, H, W)``."""
        return self._draw(prompts, [image_seed(seed, i) for i in range(len(prompts))])

    def _draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        return to_uint8(self.model.generate_images(prompts, seed=seeds, **self.sampling))

    def configure_model(self) -> None:
        """Nothing to shard: a model that fits one device answers on each."""

    @torch.no_grad()
    def forward(self, images: Tensor, questions: Sequence[str]) -> list[str]:
        """Same as ``answer``."""
        return self.answer(images, questions)
