"""The sizes of unified models: what all families have in common for their costs, and what each adds.

P positions of a drawn image, Q of one that is read, E language-model width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from vilau.costs import counts, scale_counts
from vilau.costs.config import Config, UnknownSizesError, arguments, class_of, filled, nested
from vilau.costs.counts import Count, TowerCount
from vilau.costs.parts import (
    folder_config,
    marks_of,
    num_words,
    saved_tower,
    siglip_sizes,
    tower_parts,
)
from vilau.costs.scale_counts import TokenizerCount
from vilau.models.encoders.names import known_sizes
from vilau.models.liquid.config import KIND as LIQUID
from vilau.models.liquid.config import TokenizerConfig as OneGridConfig
from vilau.models.sizes import (
    IMAGE_TOKENIZER_FOLDER,
    PUBLISHED_LANGUAGES,
    WORLD_SIGLIP,
    LanguageConfig,
)
from vilau.models.vargpt.config import KIND as VARGPT
from vilau.models.vargpt.config import PUBLISHED_CLIPS, ReaderConfig
from vilau.models.vargpt.config import DecoderConfig as ScaleDecoderConfig
from vilau.models.vargpt.config import TokenizerConfig as ScalesConfig
from vilau.models.vila_u.config import HeadConfig, QuantizerConfig

TOKENIZERS = {"VargptTokenizerTraining": ScalesConfig, "LiquidTokenizerTraining": OneGridConfig}
"""Which sizes the modules train that make convolutional image tokenizers."""


@dataclass(frozen=True)
class Unified:
    """Sizes of a model: its image tokenizer, its language model, and how these meet."""

    tokenizer: TowerCount | TokenizerCount
    language: LanguageConfig

    @property
    def drawn_positions(self) -> int:
        """P."""
        return self.tokenizer.positions

    @property
    def read_positions(self) -> int:
        """Q."""
        return self.tokenizer.positions

    @property
    def seeing_flops(self) -> int:
        """Frozen operations on an image that is read."""
        return self.tokenizer.coding_flops

    @property
    def frozen(self) -> int:
        """Parameters that never learn."""
        return self.tokenizer.parameters

    def parts(self) -> dict[str, int]:
        """Parameters of each part that can learn alone, see ``CausalModel.learning_parts``."""
        body, logits = counts.language_model(self.language, 1)
        return {"language": body.parameters + logits.parameters}

    def learning(self, parts: Sequence[str] | None) -> int:
        """Parameters that learn where these parts do (None: all)."""
        return sum(n for part, n in self.parts().items() if parts is None or part in parts)

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.frozen + self.learning(None)

    @property
    def cache_width(self) -> int:
        """Numbers of one token's keys and values in one layer."""
        return 2 * self.language.key_value_width

    def document(self, tokens: int, targets: int, *, read: int, drawn: int) -> Count:
        """Count the pass of a row of ``tokens`` tokens with so many images, which predicts ``targets`` words.

        Of the count the operations and what is kept; parameters are ``parts``'.
        """
        body, logits = counts.language_model(self.language, tokens)
        return body + Count(0, targets * logits.flops, targets * 2 * logits.kept)


@dataclass(frozen=True)
class VilaUSizes(Unified):
    """A tower's residual codes, a projector and a depth transformer."""

    quantizer: QuantizerConfig
    code_width: int
    head: HeadConfig

    def parts(self) -> dict[str, int]:
        """See ``Unified``."""
        return {
            **super().parts(),
            "projector": self._projector(1).parameters,
            "head": self._head(1).parameters,
        }

    def document(self, tokens: int, targets: int, *, read: int, drawn: int) -> Count:
        """See ``Unified``."""
        P = self.drawn_positions
        own = self._projector((read + drawn) * P) + self._head(drawn * P)
        return super().document(tokens, targets, read=read, drawn=drawn) + own

    def _projector(self, places: int) -> Count:
        return counts.projector(places, self.code_width, self.language.hidden_size)

    def _head(self, positions: int) -> Count:
        return counts.depth_transformer(
            self.head,
            self.quantizer,
            code_width=self.code_width,
            width=self.language.hidden_size,
            positions=positions,
        )


@dataclass(frozen=True)
class LiquidSizes(Unified):
    """Codes with rows in the vocabulary, which the language model counts."""

    def document(self, tokens: int, targets: int, *, read: int, drawn: int) -> Count:
        """See ``Unified``: a drawn position is predicted like a word."""
        predicted = targets + drawn * self.drawn_positions
        return super().document(tokens, predicted, read=read, drawn=drawn)


@dataclass(frozen=True)
class VargptSizes(Unified):
    """An image encoder's features to read, cells of scales to draw, and a transformer over scales."""

    scales: ScalesConfig
    reader: ReaderConfig
    decoder: ScaleDecoderConfig

    @property
    def read_positions(self) -> int:
        """Q."""
        return self.reader.num_positions

    @property
    def seeing_flops(self) -> int:
        """The image encoder's."""
        return scale_counts.vision(self.reader).flops

    @property
    def frozen(self) -> int:
        """Those of image tokenizer and image encoder."""
        return self.tokenizer.parameters + scale_counts.vision(self.reader).parameters

    def parts(self) -> dict[str, int]:
        """See ``Unified``; what the decoder is told of every image is counted with the decoder."""
        decoder = self._decoder(1) + self._cells(1)
        return {
            **super().parts(),
            "reader": self._reading(1).parameters,
            "decoder": decoder.parameters,
            "projectors": self._projectors(1).parameters,
        }

    def learning(self, parts: Sequence[str] | None) -> int:
        """See ``Unified``; with the projectors learns what the decoder is told of every image."""
        told = (self.decoder.num_conditions + 1) * self.decoder.width
        alone = parts is not None and "projectors" in parts and "decoder" not in parts
        return super().learning(parts) + (told if alone else 0)

    def document(self, tokens: int, targets: int, *, read: int, drawn: int) -> Count:
        """See ``Unified``."""
        own = (
            self._reading(read * self.read_positions)
            + self._cells(drawn)
            + self._projectors(drawn * self.drawn_positions)
            + self._decoder(drawn)
        )
        return super().document(tokens, targets, read=read, drawn=drawn) + own

    def _reading(self, places: int) -> Count:
        return counts.projector(places, self.reader.hidden_size, self.language.hidden_size)

    def _projectors(self, cells: int) -> Count:
        """To the language model's width and back; each has a first layer of its own width."""
        inner, wide = self.decoder.width, self.language.hidden_size
        there = counts.linear(cells, inner, inner) + counts.linear(cells, inner, wide)
        return there + counts.linear(cells, wide, wide) + counts.linear(cells, wide, inner)

    def _cells(self, images: int) -> Count:
        one = scale_counts.scale_cells(self.decoder, self.scales)
        return Count(one.parameters, images * one.flops, images * one.kept)

    def _decoder(self, images: int) -> Count:
        return scale_counts.scale_decoder(self.decoder, self.scales, images=images)


# ---------------------------------------------------------------------- from configs and folders


def unified(config: Config) -> Unified:
    """Return the sizes of the model that a language stage trains or an evaluation loads."""
    args = arguments(config, "model")
    family = class_of(config, "model").rpartition(".")[2]
    if family not in ("MultimodalPretraining", "LiquidPretraining", "VargptPretraining"):
        source = config["inputs"].get("model.checkpoint")
        return _saved(args.get("checkpoint")) if source is None else unified(nested(source))
    language = filled(LanguageConfig, args.get("language"))
    if language.pretrained is not None:
        if language.pretrained not in PUBLISHED_LANGUAGES:
            raise UnknownSizesError
        language = dataclasses.replace(language, **PUBLISHED_LANGUAGES[language.pretrained])
    liquid = family == "LiquidPretraining"
    words = num_words(language.tokenizer, marks_of(args.get("prompt") or {}, liquid=liquid))
    language = dataclasses.replace(language, vocab_size=words)
    if family == "MultimodalPretraining":
        return _vila_u(_trained_tower(config), language, filled(HeadConfig, args.get("head")))
    if liquid:
        tokenizer, codes = _one_grid(config)
        return LiquidSizes(tokenizer, dataclasses.replace(language, vocab_size=words + codes))
    reader = _reader(filled(ReaderConfig, args.get("reader")))
    if args.get("decoder_checkpoint") is not None:
        raise UnknownSizesError  # told by a file of gigabytes
    decoder = filled(ScaleDecoderConfig, args.get("decoder"))
    return _vargpt(_trained_scales(config), language, reader, decoder)


def _vila_u(tower: tuple, language: LanguageConfig, head: HeadConfig) -> VilaUSizes:  # type: ignore[type-arg]
    sizes, quantizer, _ = tower
    return VilaUSizes(counts.tower(*tower), language, quantizer, sizes.hidden_size, head)


def _vargpt(
    scales: ScalesConfig,
    language: LanguageConfig,
    reader: ReaderConfig,
    decoder: ScaleDecoderConfig,
) -> VargptSizes:
    return VargptSizes(scale_counts.tokenizer(scales), language, scales, reader, decoder)


def _saved(folder: str | None) -> Unified:
    """Return the sizes of a model in a folder."""
    saved = folder_config(folder)
    language = LanguageConfig(**saved["language"])
    inner = f"{folder}/{IMAGE_TOKENIZER_FOLDER}"
    if saved["kind"] == LIQUID:
        return LiquidSizes(_saved_one_grid(inner)[0], language)
    if saved["kind"] == VARGPT:
        reader, decoder = ReaderConfig(**saved["reader"]), ScaleDecoderConfig(**saved["decoder"])
        return _vargpt(_saved_scales(inner), language, reader, decoder)
    return _vila_u(saved_tower(saved), language, HeadConfig(**saved["head"]))


def _trained_tower(config: Config) -> tuple:  # type: ignore[type-arg]
    source = config["inputs"].get("model.tower_checkpoint")
    if source is not None:
        return tower_parts(nested(source))
    return saved_tower(folder_config(arguments(config, "model").get("tower_checkpoint")))


def _one_grid(config: Config) -> tuple[TowerCount | TokenizerCount, int]:
    """Return a tokenizer of one code a position, and its number of codes."""
    source = config["inputs"].get("model.tower_checkpoint")
    if source is None:
        return _saved_one_grid(arguments(config, "model").get("tower_checkpoint"))
    sizes = trained_sizes(source)
    if isinstance(sizes, OneGridConfig):
        return scale_counts.tokenizer(sizes), sizes.codebook_size
    tower = tower_parts(nested(source))
    return counts.tower(*tower), tower[1].codebook_size


def _saved_one_grid(folder: str | None) -> tuple[TowerCount | TokenizerCount, int]:
    saved = folder_config(folder)
    if "tokenizer" in saved and "scales" not in saved["tokenizer"]:
        sizes = filled(OneGridConfig, saved["tokenizer"])
        return scale_counts.tokenizer(sizes), sizes.codebook_size
    tower = saved_tower(saved)
    return counts.tower(*tower), tower[1].codebook_size


def _trained_scales(config: Config) -> ScalesConfig:
    source = config["inputs"].get("model.tower_checkpoint")
    if source is None:
        return _saved_scales(arguments(config, "model").get("tower_checkpoint"))
    sizes = trained_sizes(source)
    if not isinstance(sizes, ScalesConfig):
        raise UnknownSizesError
    return sizes


def _saved_scales(folder: str | None) -> ScalesConfig:
    saved = folder_config(folder)
    if "scales" not in saved.get("tokenizer", {}):
        raise UnknownSizesError
    return filled(ScalesConfig, saved["tokenizer"])


def trained_sizes(config: Config) -> OneGridConfig | ScalesConfig | None:
    """Return the sizes of the convolutional tokenizer that a stage trains; None for any other stage."""
    found = TOKENIZERS.get(class_of(config, "model").rpartition(".")[2])
    return None if found is None else filled(found, arguments(config, "model").get("tokenizer"))


def _reader(config: ReaderConfig) -> ReaderConfig:
    """Return the sizes of the image encoder that pictures are read with, those of its weights."""
    source = config.pretrained
    if source is None:
        return config
    if source in PUBLISHED_CLIPS:
        return dataclasses.replace(config, **PUBLISHED_CLIPS[source])
    if source != WORLD_SIGLIP and known_sizes(source) is None:
        raise UnknownSizesError
    sizes = siglip_sizes(source)
    return dataclasses.replace(
        config,
        kind="siglip",
        image_size=sizes.image_size,
        patch_size=sizes.patch_size,
        hidden_size=sizes.hidden_size,
        num_layers=sizes.num_layers,
        num_heads=sizes.num_heads,
        mlp_size=sizes.mlp_size,
    )
