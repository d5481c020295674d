"""The sizes of the networks a stage trains or loads, from its config and those of earlier stages."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from vilau.costs.config import (
    Config,
    UnknownSizesError,
    argument,
    arguments,
    filled,
    nested,
)
from vilau.models.encoders.names import RANDOM, known_sizes
from vilau.models.liquid.config import PUBLISHED_MARKS
from vilau.models.sequence.config import NULL_TOKEN
from vilau.models.sizes import (
    PUBLISHED_LANGUAGES,
    SIGLIP,
    SPECIAL_TOKENS,
    WORLD_SIGLIP,
    WORLD_TOKENIZER,
    SiglipSizes,
    text_for,
    with_text,
)
from vilau.models.vila_u.config import DecoderConfig, QuantizerConfig


def clip_sizes(config: Config) -> SiglipSizes:
    """Return the sizes of the SigLIP that a ``ClipPretraining`` stage trains."""
    args = arguments(config, "model")
    source = config["inputs"].get("model.checkpoint")
    if source is not None:
        return clip_sizes(nested(source))
    if args.get("checkpoint"):
        return siglip_sizes(args["checkpoint"])
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
        siglip_sizes(argument(config, "model", "pretrained"))
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
    return None if folder is None else saved_tower(folder_config(folder))


def _started(sizes: SiglipSizes, start: Config) -> SiglipSizes:
    """Return the sizes that ``StartConfig`` makes of the pretrained ones."""
    given = filled(SiglipSizes, start["siglip"]) if start.get("siglip") else None
    text = start.get("text")
    if text is not None:
        sizes = with_text(sizes, text_for(sizes, given) if text == RANDOM else siglip_sizes(text))
    if start.get("image_size") is not None:
        sizes = dataclasses.replace(sizes, image_size=start["image_size"])
    return sizes


def saved_tower(saved: Config) -> tuple[SiglipSizes, QuantizerConfig, DecoderConfig]:
    """Return the sizes of the tower that a folder's config describes, alone or in a model."""
    tower = saved.get("tower")
    if tower is None:  # another image tokenizer
        raise UnknownSizesError
    return (
        _countable(SiglipSizes(**tower["siglip"])),
        QuantizerConfig(**tower["quantizer"]),
        DecoderConfig(**tower["decoder"]),
    )


def siglip_sizes(source: str) -> SiglipSizes:
    """Return the sizes of a SigLIP by name or folder."""
    known = known_sizes(source)
    return known or _countable(SiglipSizes(**folder_config(source)["sizes"]))


def _countable(sizes: SiglipSizes) -> SiglipSizes:
    """Refuse timm's other ViTs, whose parts are not SigLIP's."""
    if sizes.vision != SIGLIP:
        raise UnknownSizesError
    return sizes


def folder_config(folder: str | None) -> dict[str, Any]:
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


def marks_of(prompt: Config, *, liquid: bool) -> tuple[str, ...]:
    """The tokens that a model's words must have."""
    marks = (
        PUBLISHED_MARKS if liquid and prompt.get("form") == "published" else tuple(SPECIAL_TOKENS)
    )
    if prompt.get("null") != "learned":
        return marks
    return (*marks, str(prompt.get("null_token", NULL_TOKEN)))


def num_words(source: str, marks: tuple[str, ...]) -> int:
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
