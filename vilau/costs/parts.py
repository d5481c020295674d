"""The sizes of the networks a stage trains or loads, from its config and those of earlier stages."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vilau.costs import counts
from vilau.costs.config import (
    Config,
    UnknownSizesError,
    argument,
    arguments,
    class_of,
    filled,
    nested,
)
from vilau.costs.counts import Count, TowerCount
from vilau.models.encoders.names import RANDOM, known_sizes
from vilau.models.liquid.config import KIND as LIQUID
from vilau.models.liquid.config import PUBLISHED_MARKS
from vilau.models.sequence.config import NULL_TOKEN
from vilau.models.sizes import (
    IMAGE_TOKENIZER_FOLDER,
    PUBLISHED_LANGUAGES,
    SIGLIP,
    SPECIAL_TOKENS,
    WORLD_SIGLIP,
    WORLD_TOKENIZER,
    LanguageConfig,
    SiglipSizes,
    text_for,
    with_text,
)
from vilau.models.vila_u.config import DecoderConfig, HeadConfig, QuantizerConfig


@dataclass(frozen=True)
class Unified:
    """Sizes of a model of either family."""

    sizes: SiglipSizes
    quantizer: QuantizerConfig
    decoder: DecoderConfig
    language: LanguageConfig
    head: HeadConfig | None
    """The depth transformer; None where codes have rows in the vocabulary (Liquid), which ``language`` counts."""

    @property
    def tower(self) -> TowerCount:
        """The tower's count."""
        return counts.tower(self.sizes, self.quantizer, self.decoder)

    @property
    def parameters(self) -> int:
        """All parameters, the frozen tower's included."""
        _, logits = counts.language_model(self.language, 1)
        return (
            self.tower.parameters
            + logits.parameters
            + self.document(1, 0, drawn=0, images=0).parameters
        )

    @property
    def cache_width(self) -> int:
        """Numbers of one token's keys and values in one layer."""
        return 2 * self.language.key_value_width

    def document(self, tokens: int, targets: int, *, drawn: int, images: int) -> Count:
        """Count a row of ``tokens`` tokens with ``images`` that predicts ``targets`` words and ``drawn`` positions."""
        width, code_width = self.language.hidden_size, self.sizes.hidden_size
        body, logits = counts.language_model(self.language, tokens)
        if self.head is None:
            predicted = targets + drawn
            return body + Count(0, predicted * logits.flops, predicted * 2 * logits.kept)
        head = counts.depth_transformer(
            self.head, self.quantizer, code_width=code_width, width=width, positions=drawn
        )
        places = images * self.sizes.grid**2
        out = Count(0, targets * logits.flops, targets * 2 * logits.kept)
        return body + counts.projector(places, code_width, width) + head + out


def clip_sizes(config: Config) -> SiglipSizes:
    """Return the sizes of the SigLIP that a ``ClipPretraining`` stage trains."""
    args = arguments(config, "model")
    source = config["inputs"].get("model.checkpoint")
    if source is not None:
        return clip_sizes(nested(source))
    if args.get("checkpoint"):
        return _siglip_sizes(args["checkpoint"])
    return filled(SiglipSizes, args.get("siglip"))


def tower_parts(config: Config) -> tuple[SiglipSizes, QuantizerConfig, DecoderConfig]:
    """Return the sizes of the tower that a stage trains."""
    args = arguments(config, "model")
    start, found = args.get("start") or {}, _checkpoint(config)
    quantizer = filled(QuantizerConfig, args.get("quantizer"))
    decoder = filled(DecoderConfig, args.get("decoder"))
    if found is not None:  # what is not written is as in the checkpoint
        quantizer = quantizer if args.get("quantizer") else found[1]
        decoder = decoder if args.get("decoder") else found[2]
    if start.get("initialisation") == "tower":
        if found is None or start.get("image_size") is not None:
            raise UnknownSizesError
        return found[0], quantizer, decoder
    if start.get("initialisation") == "random" and start.get("siglip"):
        return _countable(filled(SiglipSizes, start["siglip"])), quantizer, decoder
    source = config["inputs"].get("model.pretrained")
    sizes = (
        _siglip_sizes(argument(config, "model", "pretrained"))
        if source is None
        else clip_sizes(nested(source))
    )
    return _started(sizes, start), quantizer, decoder


def _checkpoint(config: Config) -> tuple[SiglipSizes, QuantizerConfig, DecoderConfig] | None:
    """Return the sizes of the tower that ``start.checkpoint`` names, or an earlier stage makes."""
    source = config["inputs"].get("model.start.checkpoint")
    if source is not None:
        return tower_parts(nested(source))
    folder = (arguments(config, "model").get("start") or {}).get("checkpoint")
    return None if folder is None else _saved_tower(_folder_config(folder))


def _started(sizes: SiglipSizes, start: Config) -> SiglipSizes:
    """Return the sizes that ``StartConfig`` makes of the pretrained ones."""
    given = filled(SiglipSizes, start["siglip"]) if start.get("siglip") else None
    text = start.get("text")
    if text is not None:
        sizes = with_text(sizes, text_for(sizes, given) if text == RANDOM else _siglip_sizes(text))
    if start.get("image_size") is not None:
        sizes = dataclasses.replace(sizes, image_size=start["image_size"])
    return sizes


def unified(config: Config) -> Unified:
    """Return the sizes of the model that a language stage trains or an evaluation loads."""
    args = arguments(config, "model")
    family = class_of(config, "model")
    if not family.endswith(("MultimodalPretraining", "LiquidPretraining")):
        source = config["inputs"].get("model.checkpoint")
        return _saved(args.get("checkpoint")) if source is None else unified(nested(source))
    liquid = family.endswith("LiquidPretraining")
    source = config["inputs"].get("model.tower_checkpoint")
    tower = (
        _saved_tower(_folder_config(args.get("tower_checkpoint")))
        if source is None
        else tower_parts(nested(source))
    )
    language = filled(LanguageConfig, args.get("language"))
    if language.pretrained is not None:
        if language.pretrained not in PUBLISHED_LANGUAGES:
            raise UnknownSizesError
        language = dataclasses.replace(language, **PUBLISHED_LANGUAGES[language.pretrained])
    words = _num_words(language.tokenizer, _marks(args.get("prompt") or {}, liquid=liquid))
    codes = tower[1].codebook_size if liquid else 0
    language = dataclasses.replace(language, vocab_size=words + codes)
    return Unified(*tower, language, None if liquid else filled(HeadConfig, args.get("head")))


def _saved(folder: str | None) -> Unified:
    """Return the sizes of a model in a folder."""
    saved = _folder_config(folder)
    language = LanguageConfig(**saved["language"])
    if saved["kind"] == LIQUID and folder is not None:
        return Unified(
            *_saved_tower(_folder_config(f"{folder}/{IMAGE_TOKENIZER_FOLDER}")), language, None
        )
    return Unified(*_saved_tower(saved), language, HeadConfig(**saved["head"]))


def _saved_tower(saved: Config) -> tuple[SiglipSizes, QuantizerConfig, DecoderConfig]:
    tower = saved.get("tower")
    if tower is None:  # another image tokenizer
        raise UnknownSizesError
    return (
        _countable(SiglipSizes(**tower["siglip"])),
        QuantizerConfig(**tower["quantizer"]),
        DecoderConfig(**tower["decoder"]),
    )


def _siglip_sizes(source: str) -> SiglipSizes:
    known = known_sizes(source)
    return known or _countable(SiglipSizes(**_folder_config(source)["sizes"]))


def _countable(sizes: SiglipSizes) -> SiglipSizes:
    """Refuse timm's other ViTs, whose parts are not SigLIP's."""
    if sizes.vision != SIGLIP:
        raise UnknownSizesError
    return sizes


def _folder_config(folder: str | None) -> dict[str, Any]:
    """Read the ``config.json`` of a model folder of ours."""
    if folder is None:
        raise UnknownSizesError
    path = (_asset(folder) if folder == WORLD_SIGLIP else Path(folder)) / "config.json"
    if not path.is_file():
        raise UnknownSizesError
    config = json.loads(path.read_text(encoding="utf-8"))
    if "kind" not in config:
        raise UnknownSizesError
    return dict(config)


def _marks(prompt: Config, *, liquid: bool) -> tuple[str, ...]:
    """The tokens that a model's words must have."""
    marks = (
        PUBLISHED_MARKS if liquid and prompt.get("form") == "published" else tuple(SPECIAL_TOKENS)
    )
    if prompt.get("null") != "learned":
        return marks
    return (*marks, str(prompt.get("null_token", NULL_TOKEN)))


def _num_words(source: str, marks: tuple[str, ...]) -> int:
    """Count the tokenizer's words, the ``marks`` included."""
    if source in PUBLISHED_LANGUAGES and not Path(source).exists():
        return int(PUBLISHED_LANGUAGES[source]["vocab_size"]) + len(marks)
    path = (_asset(source) if source == WORLD_TOKENIZER else Path(source)) / "tokenizer.json"
    if not path.is_file():
        raise UnknownSizesError
    content = json.loads(path.read_text(encoding="utf-8"))
    words = {token["content"] for token in content["added_tokens"]} | set(content["model"]["vocab"])
    return len(words | set(marks))


def _asset(name: str) -> Path:
    return Path(__file__).parents[1] / "assets" / name
