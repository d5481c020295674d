"""VILA-U: a vision tower, a language model and a depth transformer under one next-token loss (section 3.2).

B rows, T tokens, N images, P positions, D residual depth, Z code width, E language-model width, K codebook size.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vilau.models.language import (
    CausalLM,
    LanguageConfig,
    MetaTokenizer,
    build_language_model,
    start_language_model,
    text_tokenizer,
    with_null_token,
)
from vilau.models.next_token.model import NextTokenModel
from vilau.models.next_token.tokenized import Tokenized, all_tokenized
from vilau.models.sequence.config import PromptConfig
from vilau.models.storage import (
    TOKENIZER_FOLDER,
    fitting_config,
    load_weights,
    read_config,
    save_folder,
)
from vilau.models.tokenizers import load_tokenizer
from vilau.models.vila_u.config import HeadConfig, TowerConfig
from vilau.models.vila_u.head import DepthTransformer
from vilau.models.vila_u.start import check_whole, fold_statistics
from vilau.models.vila_u.tower import VisionTower
from vilau.models.weight_files import Unfilled

KIND = "vila_u"


class VilaU(NextTokenModel):
    """The tower's codes in, text or codes out."""

    tokenizer: VisionTower

    def __init__(
        self,
        tower: VisionTower,
        language: CausalLM,
        language_config: LanguageConfig,
        head_config: HeadConfig,
        prompt: PromptConfig,
        words: Any,
    ) -> None:
        super().__init__(tower, language, language_config, prompt, words)
        self.head_config, spec = head_config, tower.spec
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

    @classmethod
    def start(
        cls, tower: VisionTower, language: LanguageConfig, head: HeadConfig, prompt: PromptConfig
    ) -> "VilaU":
        """Put a trained tower before a (pretrained or random) language model."""
        model, words, language = start_language_model(language)
        if prompt.null == "learned":
            words, language = with_null_token(model, words, language, name=prompt.null_token)
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

    def learning_parts(self) -> dict[str, list[nn.Module]]:
        """The language model, the projector of codes and the depth transformer."""
        return {"language": [self.language], "projector": [self.projector], "head": [self.head]}

    def blocks_to_shard(self) -> list[nn.Module]:
        """The blocks of the language model, the depth transformer and the frozen tower."""
        siglip = self.tokenizer.siglip
        return [
            *self.language.model.layers,
            *self.head.blocks,
            *siglip.vision_model.encoder.layers,
            *siglip.text_model.encoder.layers,
        ]

    # ---------------------------------------------------------------- training

    def standardise_codes(self, images: Tensor, codes: Tensor | None = None) -> None:
        """Start projector and depth transformer in the scale of the codes of a batch's images, uint8 or stored.

        See ``fold_statistics``; stored codes as in ``MultimodalBatch``. All ranks call it, each with its own batch,
        before the first step. Raises ``ConfigError`` where no rank has an image, or the weights are sharded.
        """
        first = self.projector[0]
        assert isinstance(first, nn.Linear)
        layers = [first, self.head.code_projection]
        check_whole(layers)
        with torch.autocast(self.device.type, enabled=False):
            found = all_tokenized(self, images, codes)
            vectors_NPZ = found.vectors
            if vectors_NPZ is None:
                vectors_NPZ = self.tokenizer.embed(found.codes)
        fold_statistics(vectors_NPZ, layers)

    # ---------------------------------------------------------------- how codes meet the language model

    def encode(self, images: Tensor) -> Tokenized:
        """See ``NextTokenModel.encode``; the vectors are the tower's own sums, rounded as it rounds them."""
        quantized = self.tokenizer.quantize(images)
        return Tokenized(quantized.codes, quantized.features)

    def embed_codes(self, codes: Tensor, vectors: Tensor | None = None) -> Tensor:
        """See ``NextTokenModel.embed_codes``: projected sums of code vectors (reference 3.3)."""
        return self.project(self.tokenizer.embed(codes) if vectors is None else vectors)

    def project(self, vectors: Tensor) -> Tensor:
        """Map code vectors ``(..., Z)`` to inputs of the language model ``(..., E)``, in its dtype.

        Not autocast's: the residual stream of drawing must be that of training.
        """
        return self.projector(vectors).to(self.language.get_input_embeddings().weight.dtype)

    def visual_loss(self, hidden_nPE: Tensor, codes_nPD: Tensor) -> Tensor:
        """Sum of the depth transformer's cross entropies (eq. 4)."""
        logits = self.head(hidden_nPE, codes_nPD)
        return F.cross_entropy(logits.float().flatten(0, 2), codes_nPD.flatten(), reduction="sum")

    def sample_codes(self, hidden_NE: Tensor, choose: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Draw codes depth by depth, see ``DepthTransformer.sample``."""
        vectors = self.tokenizer.quantizer.vectors
        codes_ND, _ = self.head.sample(hidden_NE, choose=choose, vectors=vectors)
        return codes_ND
