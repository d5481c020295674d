"""Models whose state at one place predicts the codes at the next: VILA-U and Liquid.

N images, P positions, D residual depth, E language-model width.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vilau.errors import ConfigError
from vilau.generation.guidance import Guidance
from vilau.generation.sampling import Sampling, image_seeds, per_depth
from vilau.models.causal.given import leading_codes, repeated
from vilau.models.causal.model import CausalModel
from vilau.models.interface import Progress
from vilau.models.next_token.drawing import draw_codes
from vilau.models.next_token.tokenized import Tokenized, all_tokenized, embedded
from vilau.models.sequence.prompts import VIDEO_START
from vilau.models.sequence.rows import Layout


class NextTokenModel(CausalModel):
    """A frozen tokenizer's codes in, text or codes out; a family says how codes are embedded and predicted."""

    # ---------------------------------------------------------------- what a family fills in

    @abstractmethod
    def encode(self, images: Tensor) -> Tokenized:
        """Encode float images in [-1, 1], ``(N, 3, H, W)``, at least one."""

    @abstractmethod
    def embed_codes(self, codes: Tensor, vectors: Tensor | None = None) -> Tensor:
        """Map codes ``(..., D)`` to inputs of the language model ``(..., E)``."""

    @abstractmethod
    def sample_codes(self, hidden_NE: Tensor, choose: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Draw the codes ``(N, D)`` that states predict."""

    # ---------------------------------------------------------------- images among words

    def see(self, images: Tensor, codes: Tensor | None = None) -> Tokenized:
        """Tokenise images, all but those whose codes are stored."""
        return all_tokenized(self, images, codes)

    def embedded(self, layout: Layout, seen: Tokenized | None) -> Tensor:
        """Embed a layout ``(B, T, E)``, images by their codes."""
        return embedded(self, layout, seen)

    def codes_of(self, seen: Tokenized, index_n: Tensor) -> Tensor:
        """The codes ``(n, P, D)`` of some of the images."""
        return seen.codes[index_n]

    # ---------------------------------------------------------------- generation

    @torch.no_grad()
    def generate_images(  # noqa: PLR0913 - see the interface
        self,
        prompts: str | Sequence[str],
        *,
        guidance_scale: float | Sequence[float] = 3.0,
        guidance_start: float | None = None,
        temperature: float | Sequence[float] = 1.0,
        top_k: int | Sequence[int] = 900,
        top_p: float | Sequence[float] = 0.96,
        seed: int | Sequence[int] = 0,
        num_images: int = 1,
        negative_prompt: str | None = None,
        given_codes: Tensor | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Draw images; see ``UnifiedModel.generate_images``."""
        rows = repeated(prompts, num_images, name="num_images")
        codes = draw_codes(
            self,
            rows,
            num_positions=self.sequence.num_positions,
            guidance=Guidance(guidance_scale, guidance_start),
            choose=self._choosers(temperature, top_k, top_p),
            seeds=image_seeds(seed, len(rows)),
            negative_prompt=negative_prompt,
            given_codes=given_codes,
            progress=progress,
        )
        return self.tokenizer.decode(codes).float().clamp(-1, 1)

    @torch.no_grad()
    def generate_videos(  # noqa: PLR0913 - see the interface
        self,
        prompts: str | Sequence[str],
        *,
        guidance_scale: float | Sequence[float] = 3.0,
        guidance_start: float | None = None,
        temperature: float | Sequence[float] = 1.0,
        top_k: int | Sequence[int] = 900,
        top_p: float | Sequence[float] = 0.96,
        seed: int | Sequence[int] = 0,
        num_videos: int = 1,
        num_frames: int = 8,
        negative_prompt: str | None = None,
        first_frames: Tensor | None = None,
        given_codes: Tensor | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Draw clips; see ``UnifiedModel.generate_videos``."""
        rows = repeated(prompts, num_videos, name="num_videos")
        if num_frames < 1:
            raise ConfigError(f"num_frames is {num_frames}; write 1 or more.")
        codes = draw_codes(
            self,
            rows,
            num_positions=self.sequence.num_positions * num_frames,
            guidance=Guidance(guidance_scale, guidance_start),
            choose=self._choosers(temperature, top_k, top_p),
            seeds=image_seeds(seed, len(rows)),
            negative_prompt=negative_prompt,
            given_codes=leading_codes(self, first_frames, given_codes),
            start=VIDEO_START,
            progress=progress,
        )
        clips = codes.unflatten(1, (num_frames, self.sequence.num_positions))
        # Clip by clip: the decoder's memory is that of one clip, however many are drawn.
        return torch.stack([self.tokenizer.decode(clip).float().clamp(-1, 1) for clip in clips])

    def _choosers(self, temperature: Any, top_k: Any, top_p: Any) -> list[Sampling]:
        settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        return per_depth(self.tokenizer.spec.depth, **settings)
