"""Multimodal pretraining of each family: one next-token loss over text and codes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vilau.errors import ConfigError
from vilau.models.liquid.model import Liquid
from vilau.models.loading import load_tokenizer, load_tower, over_scales
from vilau.models.sequence.config import PromptConfig
from vilau.models.sizes import LanguageConfig
from vilau.models.vargpt.config import DecoderConfig, ReaderConfig
from vilau.models.vargpt.model import Vargpt
from vilau.models.vila_u.config import HeadConfig
from vilau.models.vila_u.model import VilaU
from vilau.training.base import given
from vilau.training.language import LanguageTraining
from vilau.training.optimizers import OptimizerConfig
from vilau.training.step_counts import LossAverage
from vilau.types import MultimodalBatch


class MultimodalPretraining(LanguageTraining):
    """VILA-U: train language model, projector and depth transformer on pairs; the tower stays frozen."""

    def __init__(  # noqa: PLR0913 - its settings are its constructor
        self,
        tower_checkpoint: str,
        language: LanguageConfig | None = None,
        head: HeadConfig | None = None,
        prompt: PromptConfig | None = None,
        caption_dropout: float = 0.1,
        text_weight: float = 1.0,
        visual_weight: float = 1.0,
        guidance_scale: float = 3.0,
        standardise_codes: bool = False,
        loss_average: LossAverage = "global",
        packing: bool = False,
        length_groups: int = 1,
        share_images: bool = False,
        optimizer: OptimizerConfig | None = None,
    ) -> None:
        """Start from a trained tower, which is whatever ``vilau.load_tower`` opens, and a language model.

        ``caption_dropout`` is the share of drawing prompts replaced by the null prompt (VILA-U publishes none;
        10 % is the usual rate for classifier-free guidance). ``guidance_scale`` is for drawings shown during training.
        ``loss_average`` says over what a loss is the mean: ``global`` over all predictions of an optimiser step,
        ``published`` over those of each rank's micro-batch, then over these. ``packing`` lets documents share rows of
        the language model's ``max_length``, without seeing one another: the same losses with less padding. So does
        ``length_groups``: documents of similar length go through the model together, in so many passes per
        micro-batch (where clips meet pictures and attention is a CPU's, faster than packing). ``share_images`` reads
        the images once that several documents of a micro-batch begin with, such as single questions about one picture.
        ``standardise_codes`` folds mean and deviation of the first batch's code vectors into the first layers that
        read them (not published; a start, no layer: with it short runs learn faster).
        """
        optimizer = given(OptimizerConfig(learning_rate=5e-5), optimizer)
        language, head = given(LanguageConfig(), language), given(HeadConfig(), head)
        prompt = given(PromptConfig(), prompt)
        super().__init__(
            optimizer,
            own={
                "tower_checkpoint": tower_checkpoint,
                "language": language,
                "head": head,
                "prompt": prompt,
                "standardise_codes": standardise_codes,
            },
            caption_dropout=caption_dropout,
            text_weight=text_weight,
            visual_weight=visual_weight,
            guidance_scale=guidance_scale,
            loss_average=loss_average,
            packing=packing,
            length_groups=length_groups,
            share_images=share_images,
        )
        self.standardise_codes = standardise_codes
        tower = load_tower(tower_checkpoint, dtype=torch.float32)
        self.model = VilaU.start(tower, language, head, prompt)

    def training_step(self, batch: MultimodalBatch, batch_idx: int) -> Tensor:
        """One step, see ``LanguageTraining``; before the very first, ``standardise_codes``."""
        if self.standardise_codes and self.global_step == 0 and batch_idx == 0:
            assert isinstance(self.model, VilaU)
            self.model.standardise_codes(batch.images, batch.codes)
        return super().training_step(batch, batch_idx)


class LiquidPretraining(LanguageTraining):
    """Liquid: train a language model whose vocabulary holds the codes; the image tokenizer stays frozen."""

    def __init__(
        self,
        tower_checkpoint: str,
        language: LanguageConfig | None = None,
        prompt: PromptConfig | None = None,
        caption_dropout: float = 0.1,
        text_weight: float = 1.0,
        visual_weight: float = 1.0,
        guidance_scale: float = 3.0,
        loss_average: LossAverage = "global",
        packing: bool = False,
        length_groups: int = 1,
        share_images: bool = False,
        optimizer: OptimizerConfig | None = None,
    ) -> None:
        """Start from an image tokenizer with one code a position and a language model.

        ``tower_checkpoint`` is a folder that ``vilau.load_tokenizer`` opens: a tower of depth 1, or what
        ``vilau convert`` wrote of Chameleon's VQGAN. The loss is one mean over the predictions of words and codes,
        ``text_weight`` and ``visual_weight`` weigh their shares in it. Learning rate and caption dropout are the
        published ones (Wu et al. 2024, section 3.4, and the release's code), ``guidance_scale`` is that of every stage
        here: the release draws with 7. For the other settings see ``MultimodalPretraining``.
        """
        optimizer = given(OptimizerConfig(learning_rate=2e-5), optimizer)
        language, prompt = given(LanguageConfig(), language), given(PromptConfig(), prompt)
        super().__init__(
            optimizer,
            own={
                "tower_checkpoint": tower_checkpoint,
                "language": language,
                "prompt": prompt,
            },
            caption_dropout=caption_dropout,
            text_weight=text_weight,
            visual_weight=visual_weight,
            guidance_scale=guidance_scale,
            loss_average=loss_average,
            packing=packing,
            length_groups=length_groups,
            share_images=share_images,
        )
        tokenizer = load_tokenizer(tower_checkpoint, dtype=torch.float32)
        self.model = Liquid.start(tokenizer, language, prompt)


class VargptPretraining(LanguageTraining):
    """VARGPT: train projectors, visual decoder and language model, all or some; what encodes images stays frozen."""

    def __init__(  # noqa: PLR0913 - its settings are its constructor
        self,
        tower_checkpoint: str,
        language: LanguageConfig | None = None,
        reader: ReaderConfig | None = None,
        decoder: DecoderConfig | None = None,
        prompt: PromptConfig | None = None,
        trained: Sequence[str] | None = None,
        unconditional: str = "prompt",
        decoder_checkpoint: str | None = None,
        allow_pickle: bool = False,
        caption_dropout: float = 0.1,
        text_weight: float = 1.0,
        visual_weight: float = 1.0,
        guidance_scale: float = 2.5,
        loss_average: LossAverage = "global",
        packing: bool = False,
        length_groups: int = 1,
        share_images: bool = False,
        optimizer: OptimizerConfig | None = None,
    ) -> None:
        """Start from an image tokenizer over scales, an image encoder and a language model.

        ``tower_checkpoint`` is a folder that ``vilau.load_tokenizer`` opens: what ``vilau convert`` wrote of VAR's
        tokenizer. ``trained`` names the parts that learn, None: all. There are ``projectors`` and ``decoder``
        (drawing), ``reader`` (the projector of what is read) and ``language``. The published stages train [projectors],
        then [language, reader], then [decoder, projectors] (Zhuang et al. 2025, section 3.3), at learning rates of
        1e-3, 5e-5 and 5e-5; those behind the first are ``SupervisedFineTuning``'s, which go on from its model.
        ``decoder_checkpoint`` is a file of VAR's transformer to start from, as published; of a ``.pth`` the tensors
        alone are read, where ``allow_pickle`` says so. ``unconditional`` is what guidance moves away from, see
        ``Vargpt``; ``guidance_scale`` is the published 1.5, which counts from 0 where scales here count from 1.
        For the other settings see ``MultimodalPretraining``.
        """
        optimizer = given(OptimizerConfig(learning_rate=5e-5, warmup_share=0.1), optimizer)
        language, prompt = given(LanguageConfig(), language), given(PromptConfig(), prompt)
        reader, decoder = given(ReaderConfig(), reader), given(DecoderConfig(), decoder)
        super().__init__(
            optimizer,
            own={
                "tower_checkpoint": tower_checkpoint,
                "language": language,
                "reader": reader,
                "decoder": decoder,
                "prompt": prompt,
                "trained": None if trained is None else list(trained),
                "unconditional": unconditional,
                "decoder_checkpoint": decoder_checkpoint,
                "allow_pickle": allow_pickle,
            },
            caption_dropout=caption_dropout,
            text_weight=text_weight,
            visual_weight=visual_weight,
            guidance_scale=guidance_scale,
            loss_average=loss_average,
            packing=packing,
            length_groups=length_groups,
            share_images=share_images,
        )
        tokenizer = load_tokenizer(tower_checkpoint, dtype=torch.float32)
        self.model = Vargpt.start(
            over_scales(tokenizer, tower_checkpoint),
            language,
            reader,
            decoder,
            prompt,
            unconditional=unconditional,
            decoder_checkpoint=decoder_checkpoint,
            allow_pickle=allow_pickle,
        )
        if trained is not None:
            self._train_only(trained)

    def _train_only(self, parts: Sequence[str]) -> None:
        if self.model.prompt.null == "learned" and "language" not in parts:
            raise ConfigError(
                f"prompt.null is learned, but model.trained is {list(parts)}, so that the null token stays as it was "
                "made; write null: prompt, or let language learn too."
            )
        self.model.train_only(parts)
