"""Language models from transformers, LLaMA's and Gemma's: load, build small, enlarge the vocabulary."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import GemmaForCausalLM, LlamaForCausalLM, PreTrainedTokenizerBase

from vilau.errors import ConfigError
from vilau.layers.attention import LEAN, attention_name
from vilau.layers.lean_llama import use_lean_layers
from vilau.models.pretrained import load_pretrained, pretrained_config, pretrained_kind
from vilau.models.sequence.config import NULL_TOKEN
from vilau.models.sizes import PUBLISHED_LANGUAGES, SPECIAL_TOKENS, LanguageConfig
from vilau.models.storage import building_on_meta
from vilau.models.tokenizers import load_tokenizer

CausalLM = LlamaForCausalLM | GemmaForCausalLM
CLASSES: dict[str, type[CausalLM]] = {"llama": LlamaForCausalLM, "gemma": GemmaForCausalLM}


class MetaTokenizer:
    """Stands in for a tokenizer that is not on this machine while shapes alone are checked."""

    def __init__(self, vocab_size: int) -> None:
        self.size = vocab_size

    def __len__(self) -> int:
        return self.size


def text_tokenizer(
    config: LanguageConfig, marks: Sequence[str] = SPECIAL_TOKENS
) -> PreTrainedTokenizerBase | MetaTokenizer:
    """Load the tokenizer and make sure it has the marks of images and videos.

    On the meta device a published tokenizer is replaced by its size: no network is asked for it.
    """
    known = PUBLISHED_LANGUAGES.get(config.tokenizer)
    if building_on_meta() and known and not Path(config.tokenizer).exists():
        return MetaTokenizer(known["vocab_size"] + len(marks))
    tokenizer = load_tokenizer(config.tokenizer, download=True)
    missing = [t for t in marks if t not in tokenizer.get_vocab()]
    tokenizer.add_tokens(missing, special_tokens=True)
    return tokenizer


def build_language_model(config: LanguageConfig) -> CausalLM:
    """Build a random language model of the config's sizes."""
    kind = CLASSES[config.architecture]
    config_class: Any = kind.config_class
    # Gemma's heads are of one width whatever the model's, unless they are told.
    width = {"head_dim": config.head_width} if kind is GemmaForCausalLM else {}
    sizes = config_class(
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        intermediate_size=config.mlp_size,
        vocab_size=config.vocab_size,
        max_position_embeddings=config.max_length,
        tie_word_embeddings=config.tie_embeddings,
        **{"num_key_value_heads": config.num_heads, **width, **_rope(config), **config.extra},
    )
    sizes._attn_implementation = attention_name(config.attention)
    return _in_its_way(kind(sizes), config)


def _in_its_way(model: CausalLM, config: LanguageConfig) -> CausalLM:
    if config.attention == LEAN:
        if not isinstance(model, LlamaForCausalLM):
            raise ConfigError(
                f"language.attention is lean, which computes LLaMA's blocks, not {model.config.model_type}'s; "
                "write sdpa."
            )
        use_lean_layers(model)
    return model


def _rope(config: LanguageConfig) -> dict[str, Any]:
    if config.rope_scaling_factor == 1.0:
        return {}
    theta = config.extra.get("rope_theta", 10000.0)
    return {
        "rope_parameters": {
            "rope_type": "linear",
            "factor": config.rope_scaling_factor,
            "rope_theta": theta,
        }
    }


def start_language_model(
    config: LanguageConfig, marks: Sequence[str] = SPECIAL_TOKENS
) -> tuple[CausalLM, PreTrainedTokenizerBase | MetaTokenizer, LanguageConfig]:
    """Load or build the language model with a vocabulary that holds the special tokens ``marks``.

    New embedding rows are the mean of the old ones (VILA-U's start). Returns the model, its tokenizer and
    the config with every size filled in.
    """
    tokenizer, source = text_tokenizer(config, marks), config.pretrained
    if source is not None and config.extra:
        raise ConfigError(
            f"model.language.extra is {config.extra}, but {source} comes with all that it would set; leave it out, or "
            "write pretrained: null."
        )
    by_size = source in PUBLISHED_LANGUAGES and building_on_meta() and not Path(source).exists()
    if source is None or by_size:
        sizes = PUBLISHED_LANGUAGES[source] if source is not None else {}
        config = replace(config, **{**sizes, "vocab_size": len(tokenizer)})
        return build_language_model(config), tokenizer, config
    model = _load_language_model(source, config)
    enlarge_vocabulary(model, len(tokenizer))
    return model, tokenizer, described(model, config)


def _load_language_model(source: str, config: LanguageConfig) -> CausalLM:
    kind = CLASSES[pretrained_kind(source, tuple(CLASSES))]
    own = pretrained_config(kind, source)
    if config.rope_scaling_factor != 1.0:
        own.rope_parameters = {
            "rope_type": "linear",
            "factor": config.rope_scaling_factor,
            "rope_theta": own.rope_parameters["rope_theta"],
        }
    attention = attention_name(config.attention)
    return _in_its_way(load_pretrained(kind, source, attention=attention, config=own), config)


def described(model: CausalLM, config: LanguageConfig) -> LanguageConfig:
    """Fill in everything that ``build_language_model`` needs to compute the same as ``model``."""
    found = model.config
    names = (
        "rms_norm_eps", "num_key_value_heads", "head_dim", "hidden_act", "rope_parameters",
        "attention_bias", "mlp_bias",
    )  # fmt: skip
    return replace(
        config,
        hidden_size=found.hidden_size,
        num_layers=found.num_hidden_layers,
        num_heads=found.num_attention_heads,
        mlp_size=found.intermediate_size,
        vocab_size=found.vocab_size,
        tie_embeddings=found.tie_word_embeddings,
        extra={name: getattr(found, name) for name in names if hasattr(found, name)},
        architecture=found.model_type,
    )


def enlarge_vocabulary(model: CausalLM, size: int) -> None:
    """Give a model rows for ``size`` tokens; new rows are the mean of the old ones."""
    old = model.config.vocab_size
    if size <= old:
        return
    model.resize_token_embeddings(size, mean_resizing=False)
    with torch.no_grad():
        for table in (model.model.embed_tokens, model.lm_head):
            table.weight[old:] = table.weight[:old].mean(dim=0)


def with_null_token(
    model: CausalLM, words: Any, config: LanguageConfig, *, name: str = NULL_TOKEN
) -> tuple[Any, LanguageConfig]:
    """Give a language model the token ``name``, whose row of the table is the learned null embedding.

    Returns the enlarged tokenizer and config.
    """
    if isinstance(words, MetaTokenizer):
        words = MetaTokenizer(len(words) + 1)
    elif name not in words.get_vocab():
        words.add_tokens([name], special_tokens=True)
    enlarge_vocabulary(model, len(words))
    return words, replace(config, vocab_size=model.config.vocab_size)


def add_code_rows(
    model: CausalLM, count: int, config: LanguageConfig
) -> tuple[int, LanguageConfig]:
    """Give a language model rows for ``count`` codes behind all that it has; return the first, and the config.

    New rows are drawn around the mean of the old ones with their deviation, entry by entry. (Liquid's release draws
    them with almost no deviation: at first all codes are the same to it.)
    """
    first = model.config.vocab_size
    model.resize_token_embeddings(first + count, mean_resizing=False)
    tables = {id(t.weight): t.weight for t in (model.model.embed_tokens, model.lm_head)}
    with torch.no_grad():
        for weight in tables.values():  # one, where they are tied
            mean, deviation = weight[:first].mean(dim=0), weight[:first].std(dim=0)
            weight[first:] = mean + deviation * torch.randn_like(weight[first:])
    return first, replace(config, vocab_size=first + count)
