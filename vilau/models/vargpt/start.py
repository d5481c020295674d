"""Making VARGPT's visual decoder: new, or from the file of a VAR that was trained on its own (reference A3.1)."""

from dataclasses import replace
from pathlib import Path

import torch

from vilau.errors import CheckpointError
from vilau.models.interface import VisualTokenizer
from vilau.models.storage import building_on_meta
from vilau.models.vargpt.config import DecoderConfig
from vilau.models.vargpt.decoder import ScaleDecoder
from vilau.models.vargpt.published_decoder import decoder_config_of, own_state
from vilau.models.weight_files import fill, read_weight_file

CONDITIONS = "condition_embedding.weight"
"""VAR's, one for each class of ImageNet: VARGPT's are made anew, as in its release."""


def build_decoder(config: DecoderConfig, tokenizer: VisualTokenizer) -> ScaleDecoder:
    """Build a decoder for a tokenizer's scales and codes, with new weights."""
    spec = tokenizer.spec
    return ScaleDecoder(
        config,
        scales=[side for side, _ in spec.levels],
        codebook_size=spec.codebook_size,
        code_width=spec.embed_dim,
    )


def start_decoder(
    config: DecoderConfig,
    tokenizer: VisualTokenizer,
    checkpoint: str | None = None,
    *,
    allow_pickle: bool = False,
) -> ScaleDecoder:
    """Build a decoder, and fill it from the file of VAR's transformer, whose sizes then count.

    Raises ``CheckpointError`` where the file is not there, broken, or of another tokenizer's scales or codes.
    """
    file = None if checkpoint is None else Path(checkpoint).expanduser()
    if file is None or (building_on_meta() and not file.is_file()):
        return build_decoder(config, tokenizer)
    if not file.is_file():
        raise CheckpointError(
            f"decoder_checkpoint is {checkpoint}, and there is no such file; give that of VAR's transformer, such as "
            "var_d30.pth, or null for a new decoder."
        )
    published = read_weight_file(file, allow_pickle=allow_pickle)
    found = decoder_config_of(published, source=file)
    state = own_state(published, found, source=file)
    sizes = replace(found, num_conditions=config.num_conditions, drop_path=config.drop_path)
    decoder = build_decoder(sizes, tokenizer)
    if building_on_meta():
        return decoder
    state[CONDITIONS] = decoder.state_dict()[CONDITIONS]
    for name, tensor in decoder.state_dict().items():
        if state[name].shape != tensor.shape:
            raise CheckpointError(
                f"{file} holds {name} of the shape {tuple(state[name].shape)}, where the image tokenizer's scales and "
                f"codes need {tuple(tensor.shape)}; take the tokenizer that it was trained with."
            )
    fill(decoder, state, dtype=torch.float32)
    return decoder
