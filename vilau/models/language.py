"""LLaMA-style language models from transformers: load, build small, enlarge the vocabulary."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from vilau.errors import CheckpointError, ConfigError
from vilau.layers.attention import attention_name
from vilau.models.storage import building_on_meta
from vilau.models.tokenizers import WORLD_TOKENIZER, load_tokenizer


@dataclass
class LanguageConfig:
    """A LLaMA: ``pretrained`` weights, or a random one of these sizes (defaults: the tiny one)."""

    pretrained: str | None = None
    """Folder or hub name of LLaMA weights; None starts from random weights of the sizes below."""
    tokenizer: str = WORLD_TOKENIZER
    hidden_size: int = 128
    num_layers: int = 4
    num_heads: int = 4
    mlp_size: int = 384
    max_length: int = 1024
    vocab_size: int = 0
    """Text tokens including added ones; 0 reads it off the tokenizer."""
    rope_scaling_factor: float = 1.0
    """Linear scaling of rotary positions; VILA-U's release uses 2 (8192 of LLaMA-2's 4096)."""
    attention: str = "sdpa"
    """transformers' attention kernel, or ``lean`` (ours, faster for small models on a CPU)."""
    tie_embeddings: bool = False
    extra: dict[str, Any] = field(default_factory=dict)
    """Further LlamaConfig fields, e.g. rope_theta or num_key_value_heads."""

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ConfigError(
                f"language.num_heads is {self.num_heads}, which does not divide language.hidden_size "
                f"{self.hidden_size}; write a divisor of {self.hidden_size}."
            )


PUBLISHED_SIZES: dict[str, dict[str, Any]] = {
    "meta-llama/Llama-2-7b-hf": {
        "hidden_size": 4096, "num_layers": 32, "num_heads": 32, "mlp_size": 11008, "vocab_size": 32000,
    },
    "princeton-nlp/Sheared-LLaMA-1.3B": {
        "hidden_size": 2048, "num_layers": 24, "num_heads": 16, "mlp_size": 5504, "vocab_size": 32000,
    },
}  # fmt: skip
"""What is needed to build (on the meta device) without the network."""

SPECIAL_TOKENS = ("<im_start>", "<im_end>", "<vi_start>", "<vi_end>")
"""Added after the text vocabulary in this order, as published."""


class MetaTokenizer:
    """Stands in for a tokenizer that is not on this machine while shapes alone are checked."""

    def __init__(self, vocab_size: int) -> None:
        self.size = vocab_size

    def __len__(self) -> int:
        return self.size


def text_tokenizer(config: LanguageConfig) -> PreTrainedTokenizerBase | MetaTokenizer:
    """Load the tokenizer and make sure it has the image and video marks.

    On the meta device a tokenizer that is not on this machine is replaced by its size.
    """
    try:
        tokenizer = load_tokenizer(config.tokenizer)
    except CheckpointError:
        known = PUBLISHED_SIZES.get(config.tokenizer)
        if building_on_meta() and known:
            return MetaTokenizer(known["vocab_size"] + len(SPECIAL_TOKENS))
        raise
    missing = [t for t in SPECIAL_TOKENS if t not in tokenizer.get_vocab()]
    tokenizer.add_tokens(missing, special_tokens=True)
    return tokenizer


def build_language_model(config: LanguageConfig) -> LlamaForCausalLM:
    """Build a random LLaMA of the config's sizes."""
    llama = LlamaConfig(
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.extra.get("num_key_value_heads", config.num_heads),
        intermediate_size=config.mlp_size,
        vocab_size=config.vocab_size,
        max_position_embeddings=config.max_length,
        tie_word_embeddings=config.tie_embeddings,
        **{k: v for k, v in config.extra.items() if k != "num_key_value_heads"},
        **_rope(config),
    )
    llama._attn_implementation = attention_name(config.attention)
    return LlamaForCausalLM(llama)


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
    config: LanguageConfig,
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase | MetaTokenizer, LanguageConfig]:
    """Load or build the language model with a vocabulary that holds the special tokens.

    New embedding rows are the mean of the old ones (VILA-U's start). Returns the model, its tokenizer and
    the config with every size filled in.
    """
    tokenizer = text_tokenizer(config)
    if config.pretrained is None:
        config = _replaced(config, vocab_size=len(tokenizer))
        return build_language_model(config), tokenizer, config
    if (
        building_on_meta()
        and config.pretrained in PUBLISHED_SIZES
        and not Path(config.pretrained).exists()
    ):
        config = _replaced(config, **PUBLISHED_SIZES[config.pretrained])
        config = _replaced(config, vocab_size=len(tokenizer))
        return build_language_model(config), tokenizer, config
    try:
        model = LlamaForCausalLM.from_pretrained(
            config.pretrained, attn_implementation=attention_name(config.attention)
        )
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"language.pretrained {config.pretrained} is neither a local folder nor in the hub cache nor "
            f"downloadable ({str(error).splitlines()[0]}); download it elsewhere and give the folder."
        ) from None
    _enlarge_vocabulary(model, len(tokenizer))
    found = model.config
    config = _replaced(
        config,
        hidden_size=found.hidden_size,
        num_layers=found.num_hidden_layers,
        num_heads=found.num_attention_heads,
        mlp_size=found.intermediate_size,
        vocab_size=len(tokenizer),
    )
    return model, tokenizer, config


def _enlarge_vocabulary(model: LlamaForCausalLM, size: int) -> None:
    old = model.get_input_embeddings().weight.shape[0]
    if size <= old:
        return
    model.resize_token_embeddings(size, mean_resizing=False)
    with torch.no_grad():
        for table in (model.get_input_embeddings(), model.get_output_embeddings()):
            table.weight[old:] = table.weight[:old].mean(dim=0)


def _replaced(config: LanguageConfig, **changes: Any) -> LanguageConfig:
    return LanguageConfig(**{**config.__dict__, **changes})
