"""The two published sizes of VILA-U, as configs.

Certain from the released code and paper: SigLIP, image side, residual depth, 16384 codes, LLaMA-2-7B and four
added tokens. The decoder's widths and the depth transformer's are those of the code the paper builds on; a
checkpoint's own config.json says what it really holds.
"""

from dataclasses import asdict, dataclass
from typing import Any

from vilau.models.sequence.config import PromptConfig
from vilau.models.sizes import (
    PUBLISHED_LANGUAGES,
    PUBLISHED_SIGLIPS,
    SPECIAL_TOKENS,
    LanguageConfig,
)
from vilau.models.vila_u.config import DecoderConfig, HeadConfig, QuantizerConfig, TowerConfig


@dataclass(frozen=True)
class PublishedSizes:
    """Everything a published model is built from."""

    tower: TowerConfig
    head: HeadConfig
    language: LanguageConfig
    prompt: PromptConfig


def _sizes(siglip: str, quantizer: QuantizerConfig, decoder: DecoderConfig) -> PublishedSizes:
    llama = "meta-llama/Llama-2-7b-hf"
    fields: dict[str, Any] = dict(PUBLISHED_LANGUAGES[llama])
    fields["vocab_size"] += len(SPECIAL_TOKENS)
    return PublishedSizes(
        tower=TowerConfig(asdict(PUBLISHED_SIGLIPS[siglip]), quantizer, decoder),
        head=HeadConfig(),
        language=LanguageConfig(
            tokenizer=llama,
            max_length=4096,
            rope_scaling_factor=2.0,
            extra={"rms_norm_eps": 1e-5, "pad_token_id": 0, "model_max_length": 8192},
            **fields,
        ),
        prompt=PromptConfig(form="published"),
    )


def vila_u_256() -> PublishedSizes:
    """Return the 256-pixel model: SigLIP large, 16 x 16 positions of 4 codes."""
    return _sizes("google/siglip-large-patch16-256", QuantizerConfig(), DecoderConfig())


def vila_u_384() -> PublishedSizes:
    """Return the 384-pixel model: SigLIP SO400M, 27 x 27 positions of 16 codes, decoded on 24 x 24 cells."""
    decoder = DecoderConfig(attention_grids=(24,), latent_grid=24)
    return _sizes("google/siglip-so400m-patch14-384", QuantizerConfig(depth=16), decoder)
