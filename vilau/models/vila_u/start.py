"""Where training starts from: a token for the dropped caption, first layers in the scale of the code vectors they read.

SigLIP's residual stream has a mean of several standard deviations in some directions, which a fresh linear layer passes
on to all of its outputs. Folding (v - mean) / deviation into the weights starts projector and depth transformer from
standardised inputs, without a layer that the published model lacks.

N images, P positions, Z code width.
"""

from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import LlamaForCausalLM

from vilau.errors import ConfigError
from vilau.models.language import LanguageConfig, MetaTokenizer, enlarge_vocabulary
from vilau.models.vila_u.config import NULL_TOKEN
from vilau.models.vila_u.tokenized import tokenized, with_stored_codes
from vilau.models.vila_u.tower import VisionTower


def with_null_token(
    model: LlamaForCausalLM, words: Any, config: LanguageConfig
) -> tuple[Any, LanguageConfig]:
    """Give a language model the token ``<null>``, whose row of the table is the learned null embedding.

    Returns the enlarged tokenizer and config.
    """
    if isinstance(words, MetaTokenizer):
        words = MetaTokenizer(len(words) + 1)
    else:
        words.add_tokens([NULL_TOKEN], special_tokens=True)
    enlarge_vocabulary(model, len(words))
    return words, replace(config, vocab_size=model.config.vocab_size)


@torch.no_grad()
def fold_statistics(
    tower: VisionTower, images: Tensor, layers: list[nn.Linear], codes: Tensor | None = None
) -> None:
    """Make ``layers`` compute of code vectors what they now compute of standardised ones.

    Mean and deviation of the code vectors' Z entries are those of the images (uint8 ``(N, 3, H, W)``; with ``codes``
    see ``MultimodalBatch``) of all ranks, which all must call this. Raises ``ConfigError`` without images, or when
    the weights are sharded.
    """
    if any(isinstance(layer.weight, DTensor) for layer in layers):
        raise ConfigError(
            "model.standardise_codes is true, which writes into weights that this strategy shards; "
            "write false, or trainer.strategy: ddp."
        )
    width = tower.spec.embed_dim
    with torch.autocast(images.device.type, enabled=False):
        _, vectors_NPZ = (
            tokenized(tower, images) if codes is None else with_stored_codes(tower, codes, images)
        )
        vectors_MZ = vectors_NPZ.double().flatten(0, 1)
    count = torch.full((width,), float(len(vectors_MZ)), dtype=torch.float64, device=images.device)
    sums_3Z = torch.stack([count, vectors_MZ.sum(dim=0), vectors_MZ.square().sum(dim=0)])
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(sums_3Z)
    count, total, squares = sums_3Z
    if not count[0]:
        raise ConfigError(
            "model.standardise_codes is true, but the first batch has no image to measure; write "
            "false, or a larger data.global_batch_size."
        )
    mean_Z = total / count
    deviation_Z = (squares / count - mean_Z.square()).clamp(min=1e-12).sqrt()
    for layer in layers:
        layer.weight.div_(deviation_Z.to(layer.weight.dtype))
        layer.bias.sub_(layer.weight @ mean_Z.to(layer.weight.dtype))
