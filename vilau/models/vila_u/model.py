"""VILA-U: a vision tower, a language model and a depth transformer under one next-token loss (section 3.2).

B rows, T tokens, N images, P positions, D residual depth, Z code width, E language-model width, K codebook size.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from vilau.errors import ConfigError, DataError
from vilau.generation.guidance import Guidance
from vilau.generation.sampling import Sampling, image_seeds, per_depth
from vilau.models.interface import LossTerms, Progress, UnifiedModel
from vilau.models.language import (
    LanguageConfig,
    MetaTokenizer,
    build_language_model,
    start_language_model,
    text_tokenizer,
)
from vilau.models.storage import (
    TOKENIZER_FOLDER,
    fitting_config,
    load_weights,
    read_config,
    save_folder,
)
from vilau.models.tokenizers import load_tokenizer
from vilau.models.vila_u.config import HeadConfig, PromptConfig, TowerConfig
from vilau.models.vila_u.generate import (
    draw_codes,
    given_images,
    leading_codes,
    repeated,
    write_answers,
)
from vilau.models.vila_u.head import DepthTransformer
from vilau.models.vila_u.losses import cross_entropies, text_log_likelihoods
from vilau.models.vila_u.prompts import VIDEO_START, chat_segments
from vilau.models.vila_u.sequence import SequenceLayout
from vilau.models.vila_u.start import fold_statistics, with_null_token
from vilau.models.vila_u.tower import VisionTower
from vilau.models.weight_files import Unfilled
from vilau.types import Document, MultimodalBatch, TextSegment

KIND = "vila_u"


class VilaU(UnifiedModel):
    """The tower's codes in, text or codes out."""

    tokenizer: VisionTower

    def __init__(
        self,
        tower: VisionTower,
        language: LlamaForCausalLM,
        language_config: LanguageConfig,
        head_config: HeadConfig,
        prompt: PromptConfig,
        words: Any,
    ) -> None:
        super().__init__()
        self.language_config, self.head_config, self.prompt = language_config, head_config, prompt
        spec = tower.spec
        self.tokenizer = tower.requires_grad_(requires_grad=False).eval()
        self.language = language
        width = language.config.hidden_size
        # The published mlp2x_gelu projector: code width -> language width -> language width.
        self.projector = nn.Sequential(
            nn.Linear(spec.embed_dim, width), nn.GELU(), nn.Linear(width, width)
        )
        self.head = DepthTransformer(
            head_config,
            depth=spec.depth,
            code_width=spec.embed_dim,
            hidden_width=width,
            codebook_size=spec.codebook_size,
            partial_sums=tower.quantizer.embed_cumulative,
        )
        self.words = words
        self.sequence = SequenceLayout(
            words,
            prompt,
            num_positions=spec.num_positions,
            # Published checkpoints keep the length they were trained at beside LLaMA's own.
            max_length=language_config.extra.get("model_max_length", language_config.max_length),
        )

    @classmethod
    def start(
        cls, tower: VisionTower, language: LanguageConfig, head: HeadConfig, prompt: PromptConfig
    ) -> "VilaU":
        """Put a trained tower before a (pretrained or random) language model."""
        model, words, language = start_language_model(language)
        if prompt.null == "learned":
            words, language = with_null_token(model, words, language)
        return cls(tower, model, language, head, prompt, words)

    @classmethod
    def unfilled(
        cls,
        tower: TowerConfig,
        language: LanguageConfig,
        head: HeadConfig,
        prompt: PromptConfig,
        words: Any,
    ) -> "VilaU":
        """Build a model without values, for weights that follow (see ``Unfilled``)."""
        with Unfilled():
            built = VisionTower(tower), build_language_model(language)
            return cls(*built, language, head, prompt, words)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = torch.float32,
        allow_pickle: bool = False,
    ) -> "VilaU":
        """Load a model saved by ``save``, in float32 for training (``dtype`` None: as stored).

        Raises ``CheckpointError`` for anything else.
        """
        config = read_config(folder, KIND)
        with fitting_config(folder):
            tower = TowerConfig.from_dict(config["tower"])
            language = LanguageConfig(**config["language"])
            head, prompt = HeadConfig(**config["head"]), PromptConfig(**config["prompt"])
        own_words = Path(folder) / TOKENIZER_FOLDER
        saved = own_words.exists()
        words = load_tokenizer(str(own_words)) if saved else text_tokenizer(language)
        model = cls.unfilled(tower, language, head, prompt, words)
        load_weights(model, folder, device=device, dtype=dtype, allow_pickle=allow_pickle)
        return model.to(device=device)

    def save(self, folder: str | Path) -> None:
        """Write config, weights and the text tokenizer."""
        config = {
            "tower": self.tokenizer.config.to_dict(),
            "language": asdict(self.language_config),
            "head": asdict(self.head_config),
            "prompt": asdict(self.prompt),
        }
        words = None if isinstance(self.words, MetaTokenizer) else self.words
        save_folder(folder, kind=KIND, config=config, module=self, tokenizer=words)

    def train(self, mode: bool = True) -> "VilaU":
        """Switch training mode; the tower stays in evaluation mode (its codebook must not move)."""
        super().train(mode)
        self.tokenizer.eval()
        return self

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.language.device

    # ---------------------------------------------------------------- training

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

    def standardise_codes(self, images: Tensor, codes: Tensor | None = None) -> None:
        """Start projector and depth transformer in the scale of the codes of a batch's images, uint8 or stored.

        See ``fold_statistics``. All ranks call it, each with its own batch, before the first step.
        """
        first = self.projector[0]
        assert isinstance(first, nn.Linear)
        fold_statistics(self.tokenizer, images, [first, self.head.code_projection], codes)

    def project(self, vectors: Tensor) -> Tensor:
        """Map code vectors ``(..., Z)`` to inputs of the language model ``(..., E)``, in its dtype.

        Not autocast's: the residual stream of drawing must be that of training.
        """
        return self.projector(vectors).to(self.language.get_input_embeddings().weight.dtype)

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
