"""The same prompts with the same noise at every guidance scale (VILA-U, Table 8)."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from vilau.errors import ConfigError
from vilau.generation.guidance import check_scale
from vilau.layers.pixels import to_uint8
from vilau.training.evaluate import Evaluation
from vilau.types import AnswerOutput, ClipOutput, DrawingOutput, GuidedDrawings, PromptBatch

SCALES = (1.0, 1.25, 1.5, 2.0, 3.0, 5.0)
"""The paper's 1, 2, 3, 5, and between 1 and 2, where small models are at their best."""


class GuidanceSweep(Evaluation):
    """An ``Evaluation`` that draws each prompt at several guidance scales at once, from the same random numbers.

    What differs between two scales is then the scale alone. All scales of a batch are drawn side by side, so
    that each prompt, and the null prompt of all, is read once; rows of scale 1 need no unconditional twin and are
    exactly what the model draws without guidance. The callback ``GuidanceCurves`` measures.
    """

    def __init__(
        self,
        checkpoint: str,
        guidance_scales: Sequence[float] = SCALES,
        temperature: float | list[float] = 1.0,
        top_k: int | list[int] = 900,
        top_p: float | list[float] = 0.96,
        negative_prompt: str | None = None,
        max_new_tokens: int = 16,
        seed: int = 0,
    ) -> None:
        """See ``Evaluation``; a batch takes the memory of as many images as prompts times scales."""
        scales = [float(scale) for scale in guidance_scales]
        if not scales or len(set(scales)) < len(scales):
            raise ConfigError(
                f"model.guidance_scales holds {scales}; write one scale or more, each once, "
                f"such as {list(SCALES)}."
            )
        for scale in scales:
            check_scale(scale, name="model.guidance_scales")
        super().__init__(
            checkpoint,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            max_new_tokens=max_new_tokens,
            seed=seed,
            negative_prompt=negative_prompt,
        )
        self.scales = scales
        self.save_hyperparameters({"guidance_scales": scales})

    def test_step(  # type: ignore[override]  # callbacks read typed outputs
        self, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> AnswerOutput | DrawingOutput | ClipOutput | GuidedDrawings:
        """Draw one batch of prompts at every scale; anything else is left to ``Evaluation``."""
        if not isinstance(batch, PromptBatch):
            return super().test_step(batch, batch_idx, dataloader_idx)
        images = self.draw_scales(batch.prompts, self.seeds(batch))
        originals = batch.originals
        again = None if originals is None or not len(originals) else self.rebuild(originals)
        return GuidedDrawings(self.scales, images, again)

    def draw_scales(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Draw prompts at every scale, from one seed for each prompt; uint8 ``(S, B, 3, H, W)``."""
        every = [scale for scale in self.scales for _ in prompts]
        images = self.model.generate_images(
            list(prompts) * len(self.scales),
            seed=list(seeds) * len(self.scales),
            **{**self.sampling, "guidance_scale": every},
        )
        return to_uint8(images).unflatten(0, (len(self.scales), len(prompts)))
