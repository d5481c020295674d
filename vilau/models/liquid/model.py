"""Liquid: one language model over words and codes, which stand in one vocabulary (Wu et al. 2024, section 3.2).

N images, P positions, K codebook size, E language-model width, V text rows of the vocabulary: code c has row V + c.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vilau.errors import CheckpointError, ConfigError
from vilau.models.interface import VisualTokenizer
from vilau.models.language import (
    CausalLM,
    MetaTokenizer,
    add_code_rows,
    build_language_model,
    start_language_model,
    text_tokenizer,
    with_null_token,
)
from vilau.models.liquid.config import KIND, PUBLISHED_MARKS
from vilau.models.liquid.layout import LiquidLayout
from vilau.models.next_token.model import NextTokenModel
from vilau.models.next_token.tokenized import Tokenized
from vilau.models.sequence.config import PromptConfig
from vilau.models.sizes import IMAGE_TOKENIZER_FOLDER, SPECIAL_TOKENS, LanguageConfig
from vilau.models.storage import (
    CONFIG_FILE,
    TOKENIZER_FOLDER,
    building_on_meta,
    fitting_config,
    load_weights,
    read_config,
    save_folder,
    writes_files,
)
from vilau.models.tokenizers import load_tokenizer
from vilau.models.weight_files import Unfilled


class Liquid(NextTokenModel):
    """A language model whose vocabulary holds the codes of an image tokenizer behind its words.

    Text and codes are predicted by one softmax over all rows, and bear loss in one mean over all predictions.
    """

    joint_loss = True
    published_layout = LiquidLayout

    def __init__(
        self,
        tokenizer: VisualTokenizer,
        language: CausalLM,
        language_config: LanguageConfig,
        prompt: PromptConfig,
        words: Any,
        *,
        code_offset: int,
    ) -> None:
        """Take a language model whose rows from ``code_offset`` (V) on are the tokenizer's codes.

        Raises ``ConfigError`` for a tokenizer of several codes a position, or of several scales, and for a language
        model with other rows.
        """
        spec = tokenizer.spec
        if spec.depth != 1 or len(spec.levels) != 1:
            raise ConfigError(
                f"the image tokenizer has {len(spec.levels)} scales and {spec.depth} codes at each position, but "
                "Liquid reads one code a position; take a tokenizer with one scale and quantizer.depth 1."
            )
        rows = language.config.vocab_size
        if rows != code_offset + spec.codebook_size:
            raise ConfigError(
                f"the language model has {rows} rows, but {code_offset} words and {spec.codebook_size} codes need "
                f"{code_offset + spec.codebook_size}; take the image tokenizer that it was trained with."
            )
        super().__init__(tokenizer, language, language_config, prompt, words)
        self.code_offset = code_offset

    @classmethod
    def start(
        cls, tokenizer: VisualTokenizer, language: LanguageConfig, prompt: PromptConfig
    ) -> "Liquid":
        """Give a (pretrained or random) language model the codes of a trained image tokenizer.

        Raises ``ConfigError`` for a language model that has codes already.
        """
        marks = PUBLISHED_MARKS if prompt.form == "published" else SPECIAL_TOKENS
        model, words, language = start_language_model(language, marks)
        surplus = model.config.vocab_size - len(words)
        if surplus >= tokenizer.spec.codebook_size:
            raise ConfigError(
                f"language.pretrained is {language.pretrained}, whose table has {surplus} rows that are no words, as "
                "many as codes or more: it is a Liquid already; go on from it as the checkpoint of a fine-tuning."
            )
        if prompt.null == "learned":
            words, language = with_null_token(model, words, language, name=prompt.null_token)
        offset, language = add_code_rows(model, tokenizer.spec.codebook_size, language)
        return cls(tokenizer, model, language, prompt, words, code_offset=offset)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        tokenizer: VisualTokenizer,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = torch.float32,
        allow_pickle: bool = False,
    ) -> "Liquid":
        """Load a model saved by ``save`` beside its image tokenizer, which ``vilau.load`` opens first.

        Arguments and errors are those of ``VilaU.load``; ``CheckpointError`` also for another image tokenizer.
        """
        config = read_config(folder, KIND)
        with fitting_config(folder):
            language, prompt = (
                LanguageConfig(**config["language"]),
                PromptConfig(**config["prompt"]),
            )
            offset = int(config["code_offset"])
            known = str(config["image_tokenizer"])
        # In half precision its tensors are others, rounded from those that were saved.
        exact = dtype in (None, torch.float32) and not building_on_meta()
        if exact and (found := tokenizer.identity()) != known:
            raise CheckpointError(
                f"{folder} was trained with the image tokenizer {known}, but {found} stands in its place; put the "
                f"{IMAGE_TOKENIZER_FOLDER}/ of the same run there."
            )
        own_words = Path(folder) / TOKENIZER_FOLDER
        saved = own_words.exists()
        words = load_tokenizer(str(own_words)) if saved else text_tokenizer(language)
        with Unfilled():
            built = build_language_model(language)
        load_weights(built, folder, device=device, dtype=dtype, allow_pickle=allow_pickle)
        return cls(tokenizer, built, language, prompt, words, code_offset=offset).to(device=device)

    def save(self, folder: str | Path) -> None:
        """Write the image tokenizer in a folder of its own, then the language model, its config and its words."""
        if writes_files():  # a folder with a config is complete: that of an older model goes first
            (Path(folder) / CONFIG_FILE).unlink(missing_ok=True)
        self.tokenizer.save(Path(folder) / IMAGE_TOKENIZER_FOLDER)
        config = {
            "image_tokenizer": _identity(self.tokenizer),
            "language": asdict(self.language_config),
            "prompt": asdict(self.prompt),
            "code_offset": self.code_offset,
        }
        words = None if isinstance(self.words, MetaTokenizer) else self.words
        save_folder(folder, kind=KIND, config=config, module=self.language, tokenizer=words)

    def learning_parts(self) -> dict[str, list[nn.Module]]:
        """The language model, which codes belong to like words."""
        return {"language": [self.language]}

    def blocks_to_shard(self) -> list[nn.Module]:
        """The blocks of the language model; the image tokenizer is small beside them."""
        return list(self.language.model.layers)

    # ---------------------------------------------------------------- how codes meet the language model

    def encode(self, images: Tensor) -> Tokenized:
        """See ``NextTokenModel.encode``."""
        return Tokenized(self.tokenizer.encode(images))

    def embed_codes(self, codes: Tensor, vectors: Tensor | None = None) -> Tensor:
        """See ``NextTokenModel.embed_codes``: rows of the table; a code's vector means nothing here."""
        return self.language.get_input_embeddings()(codes[..., 0] + self.code_offset)

    def visual_loss(self, hidden_nPE: Tensor, codes_nPD: Tensor) -> Tensor:
        """Sum of the codes' cross entropies under the softmax over words and codes."""
        logits = self.language.get_output_embeddings()(hidden_nPE).float()
        rows = codes_nPD[..., 0] + self.code_offset
        return F.cross_entropy(logits.flatten(0, 1), rows.flatten(), reduction="sum")

    def sample_codes(self, hidden_NE: Tensor, choose: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Draw each position's code among the codes alone, as the release does."""
        return choose(self._logits(hidden_NE, slice(self.code_offset, None)), 0)[:, None]

    def word_logits(self, hidden: Tensor) -> Tensor:
        """See ``NextTokenModel.word_logits``: an answer is written in words alone."""
        # Not up to the codes: a table may be longer than its words.
        return self._logits(hidden, slice(len(self.words)))

    def _logits(self, hidden: Tensor, rows: slice) -> Tensor:
        """Logits of some rows, without computing the others where the table lies here whole."""
        head = self.language.get_output_embeddings()
        whole = isinstance(head, nn.Linear) and type(head.weight) is nn.Parameter
        if whole and head.weight.shape[0] == self.language.config.vocab_size:
            return F.linear(hidden, head.weight[rows])
        return head(hidden)[..., rows]


def _identity(tokenizer: VisualTokenizer) -> str:
    """A tokenizer's identity; on the meta device, where it has no values, nothing."""
    return "" if next(tokenizer.parameters()).device.type == "meta" else tokenizer.identity()
