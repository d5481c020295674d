"""What models share that read and write with a causal language model, however they draw: VILA-U, Liquid and VARGPT.

B rows, T tokens, N images, P positions, D residual depth, E language-model width.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from vilau.errors import ConfigError, DataError
from vilau.generation.guidance import Guidance
from vilau.generation.sampling import Choose, Sampling, image_seeds, per_depth
from vilau.models.causal.given import given_images, leading_codes, repeated
from vilau.models.causal.losses import cross_entropies, text_log_likelihoods
from vilau.models.causal.writing import write_answers
from vilau.models.interface import LossTerms, Progress, UnifiedModel, VisualTokenizer
from vilau.models.language import CausalLM
from vilau.models.sequence.config import PromptConfig
from vilau.models.sequence.layout import SequenceLayout
from vilau.models.sequence.prompts import IMAGE_START, VIDEO_START, chat_segments
from vilau.models.sequence.rows import Layout
from vilau.models.sizes import LanguageConfig
from vilau.types import Document, MultimodalBatch, TextSegment


class CausalModel(UnifiedModel):
    """A language model among whose words images stand; a family says how these are shown, predicted and drawn."""

    plain_layout: ClassVar[type[SequenceLayout]] = SequenceLayout
    published_layout: ClassVar[type[SequenceLayout]] = SequenceLayout
    """What lays documents out, by the prompts' form."""

    def __init__(
        self,
        tokenizer: VisualTokenizer,
        language: CausalLM,
        language_config: LanguageConfig,
        prompt: PromptConfig,
        words: Any,
        *,
        read_positions: int | None = None,
    ) -> None:
        """Take the parts; ``read_positions`` are those of an image that is read (None: as of one that is drawn)."""
        super().__init__()
        self.language_config, self.prompt = language_config, prompt
        self.tokenizer = tokenizer.requires_grad_(requires_grad=False).eval()
        self.language = language
        self.words = words
        layout = self.published_layout if prompt.form == "published" else self.plain_layout
        self.sequence = layout(
            words,
            prompt,
            num_positions=tokenizer.spec.num_positions,
            read_positions=read_positions,
            # Published checkpoints keep the length they were trained at beside LLaMA's own.
            max_length=language_config.extra.get("model_max_length", language_config.max_length),
        )

    def train(self, mode: bool = True) -> Self:
        """Switch training mode; the tokenizer stays in evaluation mode (its codebook must not move)."""
        super().train(mode)
        self.tokenizer.eval()
        return self

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.language.device

    # ---------------------------------------------------------------- training

    @abstractmethod
    def learning_parts(self) -> dict[str, list[nn.Module]]:
        """Return the parts that can learn, each alone, and what they are made of; some may share modules."""

    def train_only(self, parts: Sequence[str]) -> None:
        """Let some of ``learning_parts`` learn and freeze the others.

        Raises ``ConfigError`` for a part that there is not, or for none.
        """
        known = self.learning_parts()
        unknown = [part for part in parts if part not in known]
        if unknown or not parts:
            raise ConfigError(
                f"model.trained holds {', '.join(unknown) or 'nothing'}; write some of {', '.join(known)}."
            )
        for name in sorted(
            known, key=lambda name: name in parts
        ):  # those that learn have the last word
            for module in known[name]:
                module.requires_grad_(requires_grad=name in parts)

    def losses(
        self,
        batch: MultimodalBatch,
        *,
        packing: bool = False,
        length_groups: int = 1,
        share_images: bool = False,
    ) -> LossTerms:
        """Text and visual cross entropy over the targets of a batch (reference 3.4).

        Images are uint8, or float in [-1, 1].
        """
        return cross_entropies(
            self, batch, packing=packing, length_groups=length_groups, share_images=share_images
        )

    def count_targets(self, documents: Sequence[Document]) -> dict[str, int]:
        """Predictions of text tokens and of codes; see ``UnifiedModel.count_targets``."""
        texts, images = self.sequence.count_targets(documents)
        spec = self.tokenizer.spec
        return {"text": texts, "visual": images * spec.num_positions * spec.depth}

    # ---------------------------------------------------------------- what a family fills in, see ``Parts``

    @abstractmethod
    def see(self, images: Tensor, codes: Tensor | None = None) -> Any:
        """Prepare images, uint8 or float in [-1, 1], and the stored codes ``(N, P, D)`` of some of them."""

    @abstractmethod
    def embedded(self, layout: Layout, seen: Any) -> Tensor:
        """Embed a layout ``(B, T, E)`` with what ``see`` prepared."""

    @abstractmethod
    def codes_of(self, seen: Any, index_n: Tensor) -> Tensor:
        """The codes ``(n, P, D)`` of some of the images."""

    @abstractmethod
    def visual_loss(self, hidden_nPE: Tensor, codes_nPD: Tensor) -> Tensor:
        """Sum of the cross entropies, in nats, of codes that states predict."""

    @abstractmethod
    def draw_codes(  # noqa: PLR0913 - what a drawing depends on
        self,
        prompts: Sequence[str],
        *,
        num_images: int,
        guidance: Guidance,
        choose: Sequence[Choose],
        seeds: Sequence[int],
        negative_prompt: str | None = None,
        given_codes: Tensor | None = None,
        start: str = IMAGE_START,
        progress: Progress | None = None,
    ) -> Tensor:
        """Draw the codes ``(B, num_images * P, D)`` of images, or of frames, after the token ``start``.

        An empty prompt is the model's null, as is a ``negative_prompt`` that is None or empty; ``choose`` draws an
        index for each row of logits ``(N, K)`` at numbers ``(N,)`` in [0, 1), one function for each depth.
        """

    def word_logits(self, hidden: Tensor) -> Tensor:
        """Map states ``(..., E)`` to logits of the text tokens ``(..., V)``."""
        return self.language.get_output_embeddings()(hidden)

    # ---------------------------------------------------------------- drawing

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
        codes = self.draw_codes(
            rows,
            num_images=1,
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
        codes = self.draw_codes(
            rows,
            num_images=num_frames,
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

    # ---------------------------------------------------------------- answers

    @torch.no_grad()
    def generate_text(
        self,
        images: Tensor | None,
        prompt: str | Sequence[str],
        *,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        on_token: Callable[[str], None] | None = None,
    ) -> str:
        """Answer a question or a chat; see ``UnifiedModel.generate_text``."""
        images = given_images(self, images)
        return write_answers(
            self,
            [prompt],
            images,
            [range(0 if images is None else len(images))],
            max_new_tokens=max_new_tokens,
            choose=Sampling(temperature, top_p=top_p),
            seeds=[seed],
            on_token=on_token,
        )[0]

    @torch.no_grad()
    def answer_log_likelihoods(
        self, images: Tensor | None, prompt: str | Sequence[str], answers: Sequence[str]
    ) -> Tensor:
        """How likely each of some answers is; see ``UnifiedModel.answer_log_likelihoods``."""
        if not all(text.strip() for text in answers):
            raise DataError("an answer to be weighed is empty; give it words, or leave it out.")
        images = given_images(self, images)
        bare = self.prompt.form == "published"
        count = 0 if images is None else len(images)
        asked = chat_segments(prompt, range(count), bare=bare)
        documents = [Document((*asked, TextSegment(text, target=True))) for text in answers]
        size = self.tokenizer.spec.image_size
        shown = torch.zeros(0, 3, size, size) if images is None else images
        return text_log_likelihoods(self, MultimodalBatch(shown, documents))

    @torch.no_grad()
    def answer(
        self,
        images: Tensor | None,
        questions: Sequence[str],
        *,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seeds: Sequence[int] | None = None,
    ) -> list[str]:
        """Answer questions in one batch; see ``UnifiedModel.answer``."""
        images, count = given_images(self, images), len(questions)
        if not count:
            return []
        if images is not None and len(images) != count:
            raise DataError(
                f"{count} questions have {len(images)} images; give one image for each."
            )
        return write_answers(
            self,
            questions,
            images,
            [() if images is None else (row,) for row in range(count)],
            max_new_tokens=max_new_tokens,
            choose=Sampling(temperature, top_p=top_p),
            seeds=image_seeds(range(count) if seeds is None else seeds, count),
        )
