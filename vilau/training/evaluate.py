"""Evaluation of a finished model: it answers and draws; callbacks measure."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from vilau.errors import ConfigError
from vilau.generation.guidance import Guidance
from vilau.generation.sampling import image_seed, per_depth
from vilau.layers.pixels import to_float, to_uint8
from vilau.models.loading import load
from vilau.models.questions import answers_about, likeliest_letters, without_images
from vilau.types import (
    AnswerOutput,
    ClipOutput,
    ClipPromptBatch,
    DrawingOutput,
    PromptBatch,
    QuestionBatch,
)


class Evaluation(LightningModule):
    """Answer every ``QuestionBatch`` and draw every ``PromptBatch`` of a test set."""

    def __init__(
        self,
        checkpoint: str,
        guidance_scale: float = 3.0,
        temperature: float | list[float] = 1.0,
        top_k: int | list[int] = 900,
        top_p: float | list[float] = 0.96,
        max_new_tokens: int | dict[str, int] = 16,
        seed: int = 0,
        guidance_start: float | None = None,
        negative_prompt: str | None = None,
        show_images: bool = True,
    ) -> None:
        """Take a finished model, whatever ``vilau.load`` opens, and the sampling settings of drawings.

        Answers are greedy and end after ``max_new_tokens`` at the latest, one number or one for each benchmark by
        name. Guidance, top-k and top-p default to VILA-U's published ones (Liquid's are 7, 4096 and 0.96). With
        ``guidance_start`` the guidance scale goes linearly from there to ``guidance_scale``; ``temperature``, ``top_k``
        and ``top_p`` may be a list, one value per residual depth; ``negative_prompt`` is what guidance leads away from
        (None: what the model read in the place of dropped captions). With ``show_images`` false the questions are asked
        without their pictures and clips: the blind baseline of a benchmark. Of a model that was never taught to answer
        so (``hidden_share`` of `vilau.data.instructions.Instructions`) it is the least that its language model can
        tell. Drawings are as ever.
        """
        super().__init__()
        self.save_hyperparameters()
        self.model = load(checkpoint, dtype=torch.float32)
        self.seed = seed
        self.max_new_tokens = max_new_tokens
        self.show_images = show_images
        self.sampling: dict[str, Any] = {
            "guidance_scale": guidance_scale,
            "guidance_start": guidance_start,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "negative_prompt": negative_prompt,
        }
        self._check_sampling(temperature, top_k, top_p)
        limits = max_new_tokens.values() if isinstance(max_new_tokens, dict) else [max_new_tokens]
        if not limits or min(limits) < 1:
            raise ConfigError(
                f"model.max_new_tokens is {max_new_tokens}; write 1 or more, or as much for each benchmark."
            )

    def _check_sampling(self, temperature: Any, top_k: Any, top_p: Any) -> None:
        """Raise ``ConfigError`` for settings that make no sense, before anything is drawn."""
        depth = self.model.tokenizer.spec.depth
        try:
            Guidance(self.sampling["guidance_scale"], self.sampling["guidance_start"])
            per_depth(depth, temperature=temperature, top_k=top_k, top_p=top_p)
        except ConfigError as error:
            raise ConfigError(f"model.{error}") from None

    def test_step(  # type: ignore[override]  # callbacks read typed outputs
        self,
        batch: QuestionBatch | PromptBatch | ClipPromptBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> AnswerOutput | DrawingOutput | ClipOutput:
        """Answer or draw one batch."""
        if isinstance(batch, QuestionBatch):
            return AnswerOutput(self._answers(batch), images_shown=self.show_images)
        if isinstance(batch, ClipPromptBatch):
            return ClipOutput(self._draw_clips(batch))
        return DrawingOutput(self._draw(batch.prompts, self.seeds(batch)))

    def _answers(self, batch: QuestionBatch) -> list[str]:
        images, questions, frames = batch.images, batch.questions, batch.frames
        if not self.show_images:
            images, questions, frames = without_images(images, questions)
        if not batch.options:
            return self.answer(images, questions, frames, benchmark=batch.benchmark)
        return likeliest_letters(self.model, to_float(images), questions, batch.options, frames)

    def seeds(self, batch: PromptBatch | ClipPromptBatch) -> list[int]:
        """The seed of each prompt's noise: that of its place in the set, whatever the batches."""
        return [image_seed(self.seed, batch.first_index + i) for i in range(len(batch.prompts))]

    def answer(
        self,
        images: Tensor,
        questions: Sequence[str],
        frames: Sequence[int] = (),
        *,
        benchmark: str = "",
    ) -> list[str]:
        """Greedy answers about uint8 images; ``frames``: how many of them each question is about.

        Raises ``ConfigError`` where ``max_new_tokens`` is one for each benchmark, and none for this.
        """
        return answers_about(
            self.model,
            to_float(images),
            questions,
            frames,
            max_new_tokens=self._longest_answer(benchmark),
        )

    def _longest_answer(self, benchmark: str) -> int:
        limits = self.max_new_tokens
        if not isinstance(limits, dict):
            return limits
        if benchmark not in limits:
            raise ConfigError(
                f"model.max_new_tokens names {', '.join(limits)}, but data.benchmarks holds '{benchmark}'; write one "
                "for it too, or one number for all."
            )
        return limits[benchmark]

    def on_test_start(self) -> None:
        """Raise ``ConfigError`` for a benchmark without a longest answer before the others are asked."""
        datamodule = getattr(self.trainer, "datamodule", None)
        for benchmark in getattr(datamodule, "benchmarks", ()):
            self._longest_answer(benchmark)

    def rebuild(self, images: Tensor) -> Tensor:
        """What the tokenizer keeps of uint8 images."""
        tokenizer = self.model.tokenizer
        return to_uint8(tokenizer.decode(tokenizer.encode(to_float(images))))

    def _draw_clips(self, batch: ClipPromptBatch) -> Tensor:
        clips = self.model.generate_videos(
            batch.prompts, seed=self.seeds(batch), num_frames=batch.num_frames, **self.sampling
        )
        return to_uint8(clips)

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
