"""The config.json files of a published VILA-U checkpoint, read as our configs.

What a file lacks is read off the tensors; what no tensor shows (head counts, the decoder's grid) falls back to
the published code's own defaults. ``tensors`` are those of ``vision_tower/`` under their published names,
without second copies.
"""

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig

from vilau.errors import CheckpointError, ConfigError
from vilau.models.pretrained import built_config
from vilau.models.sequence.config import PromptConfig
from vilau.models.siglip import named_sizes
from vilau.models.sizes import PUBLISHED_SIGLIPS, LanguageConfig, SiglipSizes
from vilau.models.storage import CONFIG_FILE, read_json
from vilau.models.vila_u.config import DecoderConfig, HeadConfig, QuantizerConfig, TowerConfig
from vilau.models.vila_u.published.names import BOOK, CODEBOOKS, HEAD, TOWER

EXTRA = "vilau"
"""Our own entry in their config.json files: what the published layout has no field for."""
SIGLIP = f"{TOWER}siglip_model."
EXACT_GELU = "v1"
SIGLIP_HEADS = 16
"""Heads of both published SigLIPs."""
PREPROCESSOR_FILE = "preprocessor_config.json"
LLAMA_FIELDS = (
    "attention_bias", "attention_dropout", "bos_token_id", "eos_token_id", "head_dim", "hidden_act",
    "initializer_range", "mlp_bias", "num_key_value_heads", "pad_token_id", "pretraining_tp",
    "rms_norm_eps", "rope_parameters", "model_max_length", "tokenizer_model_max_length",
    "tokenizer_padding_side",
)  # fmt: skip
"""Fields of llm/config.json that ``LanguageConfig.extra`` carries."""

Tensors = Mapping[str, Tensor]
Fields = dict[str, Any]


@contextmanager
def fitting(file: Path) -> Iterator[None]:
    """Turn a value in ``file`` that makes no sense into a ``CheckpointError`` naming the file."""
    try:
        yield
    except ConfigError as error:
        raise CheckpointError(f"{file} does not describe a VILA-U: {error}") from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise CheckpointError(
            f"{file} does not describe a VILA-U ({type(error).__name__}: {error}); restore the file."
        ) from None


def tower_config(folder: Path, tensors: Tensors) -> TowerConfig:
    """Return the config of the tower in a published ``vision_tower/`` folder."""
    config = read_json(folder)
    with fitting(folder / CONFIG_FILE):
        part, extra = config.get("rqvaesiglip") or {}, config.get(EXTRA) or {}
        sizes = siglip_sizes(folder, part.get("pretrained_model") or "", tensors)
        sizes.attention = extra.get("attention", sizes.attention)
        _check_grid(folder, part, sizes)
        shape = part.get("code_shape")
        quantizer = QuantizerConfig(
            depth=shape[2] if shape else _shape(tensors, f"{HEAD}pos_emb_d")[1],
            codebook_size=part.get("n_embed") or _shape(tensors, f"{CODEBOOKS}0.weight")[0] - 1,
            decay=part.get("decay", 0.99),
            restart_unused_codes=part.get("restart_unused_codes", True),
            shared_codebook=shares_codebook(config, tensors),
            **extra.get("quantizer", {}),
        )
        decoder = decoder_config(part, extra, sizes, tensors)
        return TowerConfig(dict(vars(sizes)), quantizer, decoder)


def shares_codebook(config: Fields, tensors: Tensors) -> bool:
    """Tell whether all depths of a tower share one codebook.

    Where config.json does not say so they do unless ``tensors`` (second copies included) hold different ones.
    """
    part = config.get("rqvaesiglip")
    written = part.get("shared_codebook") if isinstance(part, dict) else None
    if written is not None:
        return bool(written)
    books = [tensor for name, tensor in tensors.items() if BOOK.fullmatch(name)]
    return all(torch.equal(book, books[0]) for book in books[1:])


def _check_grid(folder: Path, part: Fields, sizes: SiglipSizes) -> None:
    for key in ("code_shape", "latent_shape"):
        shape = part.get(key)
        if shape and tuple(shape[:2]) != (sizes.grid, sizes.grid):
            raise CheckpointError(
                f"{folder / CONFIG_FILE} has a rqvaesiglip.{key} of {shape[0]} x {shape[1]} cells, but its "
                f"SigLIP gives {sizes.grid} x {sizes.grid}; put the config.json of the right SigLIP "
                "beside the checkpoint."
            )


def decoder_config(
    part: Fields, extra: Fields, sizes: SiglipSizes, tensors: Tensors
) -> DecoderConfig:
    """Return the decoder's config; ``part`` is the ``rqvaesiglip`` dict of config.json."""
    written = part.get("ddconfig") or {}
    up = f"{TOWER}decoder.up."
    if "ch" in written and "ch_mult" in written:
        channels, multipliers = written["ch"], tuple(written["ch_mult"])
    else:
        levels = range(_count(tensors, up))
        widths = [_shape(tensors, f"{up}{i}.block.0.conv1.weight")[0] for i in levels]
        channels, multipliers = widths[0], tuple(width // widths[0] for width in widths)
    latent = part.get("decoder_latent_shape")
    if latent and latent[0] != latent[1]:
        raise ConfigError(
            f"rqvaesiglip.decoder_latent_shape is {latent}, but only square grids are decoded here."
        )
    latent_grid = latent[0] if latent else None
    # The file names levels by their share of `resolution`, our config by the grid they really see.
    coarsest, last = latent_grid or sizes.grid, len(multipliers) - 1
    attention_grids = tuple(
        coarsest << step
        for step in range(last + 1)
        if _attends(written, last - step, last, tensors)
    )
    return DecoderConfig(
        channels=channels,
        multipliers=multipliers,
        num_res_blocks=written.get("num_res_blocks")
        or max(0, _count(tensors, f"{up}0.block.") - 1),
        attention_grids=attention_grids,
        z_channels=written.get("z_channels")
        or _shape(tensors, f"{TOWER}post_quant_conv.weight")[0],
        latent_grid=latent_grid,
        norm_groups=extra.get("norm_groups", DecoderConfig.norm_groups),
        output_patch=extra.get("output_patch", DecoderConfig.output_patch),
        dropout=written.get("dropout", 0.0),
        **extra.get("decoder", {}),
    )


def _attends(written: Fields, level: int, last: int, tensors: Tensors) -> bool:
    """Tell whether a decoder level (0 is the finest, ``last`` the coarsest) has attention."""
    if "attn_resolutions" in written and "resolution" in written:
        cells = written["resolution"] >> last << (last - level)  # halves are lost before it doubles
        return cells in written["attn_resolutions"]
    return f"{TOWER}decoder.up.{level}.attn.0.norm.weight" in tensors


def head_config(folder: Path, tensors: Tensors) -> HeadConfig:
    """Return the config of the depth transformer in a published ``vision_tower/`` folder."""
    config = read_json(folder)
    with fitting(folder / CONFIG_FILE):
        part = config.get("rqtransformer") or {}
        head = part.get("head") or {}
        block = head.get("block") or {}
        if block.get("gelu", EXACT_GELU) != EXACT_GELU:
            raise ConfigError(
                f"rqtransformer.head.block.gelu is {block['gelu']!r}, but only {EXACT_GELU!r} is computed here."
            )
        return HeadConfig(
            width=part.get("embed_dim") or _shape(tensors, f"{HEAD}pos_emb_d")[2],
            num_layers=head.get("n_layer") or _count(tensors, f"{HEAD}head_transformer.blocks."),
            num_heads=block.get("n_head") or HeadConfig.num_heads,
            dropout=block.get("resid_pdrop", HeadConfig.dropout),
        )


def language_config(folder: Path) -> LanguageConfig:
    """Return the config of the language model in a published ``llm/`` folder."""
    written = read_json(folder)
    if written.get("model_type") != "llama":
        raise CheckpointError(
            f"{folder / CONFIG_FILE} describes a {written.get('model_type')}, but VILA-U's language model "
            "is a llama; give a published VILA-U checkpoint."
        )
    with fitting(folder / CONFIG_FILE):
        own = written.pop(EXTRA, None) or {}
        llama = built_config(LlamaConfig, written, folder / CONFIG_FILE)
        fields = {k: v for k, v in llama.to_dict().items() if k in LLAMA_FIELDS and v is not None}
        fields["rope_parameters"].pop("type", None)  # the old name of rope_type
        if "tokenizer_model_max_length" in fields:
            fields.setdefault("model_max_length", fields["tokenizer_model_max_length"])
        return LanguageConfig(
            tokenizer=str(folder),
            hidden_size=llama.hidden_size,
            num_layers=llama.num_hidden_layers,
            num_heads=llama.num_attention_heads,
            mlp_size=llama.intermediate_size,
            max_length=llama.max_position_embeddings,
            vocab_size=llama.vocab_size,
            attention=own.get("attention", LanguageConfig.attention),
            tie_embeddings=llama.tie_word_embeddings,
            extra=fields,
        )


def prompt_config(folder: Path) -> PromptConfig:
    """Return the prompt of a checkpoint: Vicuna v1, unless an export of ours wrote another one down."""
    config = read_json(folder)
    with fitting(folder / CONFIG_FILE):
        extra = config.get(EXTRA) or {}
        return PromptConfig(**{"form": "published", **extra.get("prompt", {})})


# ---------------------------------------------------------------------- SigLIP


def siglip_sizes(folder: Path, name: str, tensors: Tensors) -> SiglipSizes:
    """Return the sizes of the SigLIP called ``name`` in ``pretrained_model``, else those of the tensors.

    It is looked for as a folder inside or beside the checkpoint, then in the local hub cache; the network is
    never asked.
    """
    found = _siglip_folder(folder, name)
    sizes = named_sizes(str(found) if found else name) if name else None
    return sizes or _seen_siglip(folder, name, tensors)


def _siglip_folder(folder: Path, name: str) -> Path | None:
    last = Path(name).name
    places = [folder / last, folder.parent / last, folder.parent.parent / last, Path(name)]
    for place in places if last else []:
        if (place / CONFIG_FILE).is_file() and read_json(place).get("model_type") == "siglip":
            return place.resolve()
    return None


def _seen_siglip(folder: Path, name: str, tensors: Tensors) -> SiglipSizes:
    """Read SigLIP's sizes off its tensors; the heads, which no tensor shows, are the published 16."""
    if name not in PUBLISHED_SIGLIPS:
        warnings.warn(
            f"the SigLIP {name or 'without a name'} of {folder} is described nowhere, so its attention heads "
            f"are taken to be {SIGLIP_HEADS}; put its config.json into a folder of that name beside the "
            "checkpoint.",
            stacklevel=2,
        )
    vision, text = f"{SIGLIP}vision_model.", f"{SIGLIP}text_model."
    width, _, patch, _ = _shape(tensors, f"{vision}embeddings.patch_embedding.weight")
    positions = _shape(tensors, f"{vision}embeddings.position_embedding.weight")[0]
    return SiglipSizes(
        image_size=_image_size(folder, name, patch, isqrt(positions)),
        patch_size=patch,
        hidden_size=width,
        num_layers=_count(tensors, f"{vision}encoder.layers."),
        num_heads=SIGLIP_HEADS,
        mlp_size=_shape(tensors, f"{vision}encoder.layers.0.mlp.fc1.weight")[0],
        text_layers=_count(tensors, f"{text}encoder.layers."),
        text_heads=SIGLIP_HEADS,
        text_mlp_size=_shape(tensors, f"{text}encoder.layers.0.mlp.fc1.weight")[0],
        text_length=_shape(tensors, f"{text}embeddings.position_embedding.weight")[0],
        vocab_size=_shape(tensors, f"{text}embeddings.token_embedding.weight")[0],
        tokenizer=name,
    )


def _image_size(folder: Path, name: str, patch: int, grid: int) -> int:
    """Return pixels per side: the preprocessor's, the named SigLIP's, or what the grid covers exactly."""
    sizes = [grid * patch]
    if name in PUBLISHED_SIGLIPS:
        sizes.insert(0, PUBLISHED_SIGLIPS[name].image_size)
    if (folder / PREPROCESSOR_FILE).is_file():
        crop = read_json(folder, PREPROCESSOR_FILE).get("crop_size")
        sizes.insert(0, crop["height"] if isinstance(crop, dict) else crop or 0)
    return next(size for size in sizes if size // patch == grid)


# ---------------------------------------------------------------------- reading tensors


def _shape(tensors: Tensors, name: str) -> tuple[int, ...]:
    if name not in tensors:
        raise CheckpointError(
            f"the tensor {name} is missing, and config.json does not say the size that it shows; copy the "
            "weights again."
        )
    return tuple(tensors[name].shape)


def _count(tensors: Tensors, prefix: str) -> int:
    """Return how many numbered parts follow ``prefix``."""
    pattern = re.compile(rf"{re.escape(prefix)}(\d+)\.")
    numbers = [int(m[1]) for m in (pattern.match(name) for name in tensors) if m]
    return max(numbers, default=-1) + 1
