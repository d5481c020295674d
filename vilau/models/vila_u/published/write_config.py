"""The config.json files of the published layout, written from a model of ours.

What the layout has no field for stands in an entry ``vilau``, which ``read_config`` reads and the published
code drops: the prompt (in config.json), the language model's attention kernel (llm/config.json); SigLIP's, the
decoder's ``norm_groups`` and ``output_patch``, and what the published quantiser cannot do (vision_tower/config.json).
A model with the published sizes and ways has no such entry.
"""

from dataclasses import asdict
from typing import Any

import torch

from vilau.models.sequence.config import PromptConfig
from vilau.models.sizes import LanguageConfig, SiglipSizes
from vilau.models.vila_u.config import DecoderConfig, HeadConfig, QuantizerConfig
from vilau.models.vila_u.model import VilaU
from vilau.models.vila_u.published.read import MARKS, PROJECTOR_TYPE, ROOT_TYPE, TOWER_TYPE
from vilau.models.vila_u.published.read_config import EXTRA
from vilau.models.vila_u.published.write_siglip import FORMAT, siglip_name
from vilau.models.vila_u.tower import VisionTower

Fields = dict[str, Any]

VIDEO_FRAMES = 8
QUANTIZER_FIELDS = ("search", "learning", "update", "entropy", "entropy_temperature")
ANY_CONFIG: Fields = {
    **dict.fromkeys((
        "bad_words_ids", "begin_suppress_tokens", "bos_token_id", "cross_attention_hidden_size",
        "decoder_start_token_id", "eos_token_id", "exponential_decay_length_penalty",
        "finetuning_task", "forced_bos_token_id", "forced_eos_token_id", "pad_token_id", "prefix",
        "problem_type", "sep_token_id", "suppress_tokens", "task_specific_params",
        "tokenizer_class", "torch_dtype",
    )),
    **dict.fromkeys((
        "add_cross_attention", "do_sample", "early_stopping", "is_decoder", "is_encoder_decoder",
        "output_attentions", "output_hidden_states", "output_scores", "remove_invalid_values",
        "return_dict_in_generate", "tf_legacy_loss", "tie_encoder_decoder", "torchscript",
        "use_bfloat16",
    ), False),
    **dict.fromkeys(("return_dict", "tie_word_embeddings"), True),
    **dict.fromkeys((
        "chunk_size_feed_forward", "encoder_no_repeat_ngram_size", "min_length",
        "no_repeat_ngram_size",
    ), 0),
    **dict.fromkeys(("diversity_penalty",), 0.0),
    **dict.fromkeys(("num_beam_groups", "num_beams", "num_return_sequences"), 1),
    **dict.fromkeys(("length_penalty", "repetition_penalty", "temperature", "top_p", "typical_p"), 1.0),
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "max_length": 20,
    "pruned_heads": {},
    "top_k": 50,
}  # fmt: skip
"""What transformers of that time wrote for every part inside a larger config, with its defaults."""


def root_config(model: VilaU, llm: Fields, tower: Fields, projector: Fields) -> Fields:
    """Return config.json of the whole checkpoint, which repeats those of its parts."""
    parts = {"llm_cfg": llm, "vision_tower_cfg": tower, "mm_projector_cfg": projector}
    nested = {
        name: {k: v for k, v in (ANY_CONFIG | part).items() if k != "transformers_version"}
        for name, part in parts.items()
    }
    nested["vision_tower_cfg"]["torch_dtype"] = None
    dtype, vocabulary = next(model.language.parameters()).dtype, model.words.get_vocab()
    config = {
        "_name_or_path": "vila-u",
        "architectures": ["VILAULlamaModel"],
        "hidden_size": llm["hidden_size"],
        "image_aspect_ratio": "resize",
        **nested,
        "mm_hidden_size": tower["hidden_size"],
        "mm_use_im_patch_token": False,
        **{key: marks[0] in vocabulary for key, marks in MARKS.items()},
        "model_dtype": str(dtype),
        "model_type": ROOT_TYPE,
        "num_video_frames": VIDEO_FRAMES,
        "resume_path": None,
        "transformers_version": FORMAT,
        # The training script's own, which inference ignores.
        "drop_path_rate": 0.0,
        "interpolate_mode": "linear",
        "mm_projector_lr": None,
        "mm_vision_select_layer": -2,
        "tune_language_model": True,
        "tune_mm_projector": True,
        "tune_vision_tower": True,
    }
    if model.prompt != PromptConfig(form="published"):
        config[EXTRA] = {"prompt": asdict(model.prompt)}
    return config


def language_fields(model: VilaU) -> Fields:
    """Return llm/config.json."""
    llama, ours = model.language.config, model.language_config
    rope: Fields = dict(llama.rope_parameters or {})
    theta, kind = rope.pop("rope_theta"), rope.pop("rope_type")
    scaling = None if kind == "default" else {**rope, "type": kind}
    lengths = model.sequence.max_length
    fields = {
        "_name_or_path": "llm",
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": llama.attention_bias,
        "attention_dropout": llama.attention_dropout,
        "bos_token_id": model.words.bos_token_id,
        "eos_token_id": model.words.eos_token_id,
        "hidden_act": llama.hidden_act,
        "hidden_size": llama.hidden_size,
        "initializer_range": llama.initializer_range,
        "intermediate_size": llama.intermediate_size,
        "max_position_embeddings": llama.max_position_embeddings,
        "model_max_length": lengths,
        "model_type": "llama",
        "num_attention_heads": llama.num_attention_heads,
        "num_hidden_layers": llama.num_hidden_layers,
        "num_key_value_heads": llama.num_key_value_heads,
        "pad_token_id": llama.pad_token_id,
        "pretraining_tp": 1,
        "rms_norm_eps": llama.rms_norm_eps,
        "rope_scaling": scaling,
        "rope_theta": theta,
        "tie_word_embeddings": llama.tie_word_embeddings,
        "tokenizer_model_max_length": lengths,
        "tokenizer_padding_side": "right",
        "torch_dtype": _name(next(model.language.parameters())),
        "transformers_version": FORMAT,
        "use_cache": True,
        "vocab_size": llama.vocab_size,
    }
    if llama.mlp_bias:
        fields["mlp_bias"] = True
    if llama.head_dim != llama.hidden_size // llama.num_attention_heads:
        fields["head_dim"] = llama.head_dim
    if ours.attention != LanguageConfig.attention:
        fields[EXTRA] = {"attention": ours.attention}
    return fields


def generation_fields(model: VilaU) -> Fields:
    """Return llm/generation_config.json; the published code draws images only where do_sample is true."""
    return {
        "bos_token_id": model.words.bos_token_id,
        "do_sample": True,
        "eos_token_id": model.words.eos_token_id,
        "max_length": 4096,
        "pad_token_id": model.language.config.pad_token_id,
        "temperature": 0.9,
        "top_p": 0.6,
        "transformers_version": FORMAT,
    }


def tower_fields(tower: VisionTower) -> Fields:
    """Return vision_tower/config.json of the tower alone."""
    sizes, quantizer = tower.sizes, tower.config.quantizer
    fields: Fields = {
        "_name_or_path": "vision_tower",
        "architectures": ["RQVAESIGLIPTransformer"],
        "hidden_size": sizes.hidden_size,
        "model_type": TOWER_TYPE,
        "rqvaesiglip": {
            "attn_implementation": None,
            "code_shape": [sizes.grid, sizes.grid, quantizer.depth],
            "decay": quantizer.decay,
            "embed_dim": sizes.hidden_size,
            "latent_loss_weight": 0.25,
            "latent_shape": [sizes.grid, sizes.grid, sizes.hidden_size],
            "n_embed": quantizer.codebook_size,
            "pretrained_model": siglip_name(sizes),
            "restart_unused_codes": quantizer.restart_unused_codes,
            "shared_codebook": quantizer.shared_codebook,
            **_decoder_fields(tower),
        },
        "torch_dtype": _name(tower.post_quant_conv.weight),
        "transformers_version": FORMAT,
    }
    extra = _tower_extra(tower)
    return fields | ({EXTRA: extra} if extra else {})


def depth_fields(tower: VisionTower, head: HeadConfig, hidden_width: int) -> Fields:
    """Return what the depth transformer adds to vision_tower/config.json."""
    sizes, quantizer = tower.sizes, tower.config.quantizer
    block: Fields = {"n_head": head.num_heads}
    if head.dropout != HeadConfig.dropout:
        block["resid_pdrop"] = head.dropout
    return {
        "rqtransformer": {
            "attn_implementation": None,
            "block_size": [sizes.grid, sizes.grid, quantizer.depth],
            "embed_dim": head.width,
            "head": {"block": block, "n_layer": head.num_layers},
            "input_embed_dim_1": sizes.hidden_size,
            "input_embed_dim_2": hidden_width,
            "vocab_size": quantizer.codebook_size,
        }
    }


def _decoder_fields(tower: VisionTower) -> Fields:
    decoder = tower.config.decoder
    cells = decoder.latent_grid or tower.sizes.grid
    return {
        "ddconfig": {
            "attn_resolutions": list(decoder.attention_grids),
            "ch": decoder.channels,
            "ch_mult": list(decoder.multipliers),
            "double_z": False,
            "dropout": decoder.dropout,
            "in_channels": 3,
            "num_res_blocks": decoder.num_res_blocks,
            "out_ch": 3,
            "resolution": cells << (len(decoder.multipliers) - 1),
            "z_channels": decoder.z_channels,
        },
        "decoder_latent_shape": [cells, cells] if decoder.latent_grid else None,
    }


def _tower_extra(tower: VisionTower) -> Fields:
    """Return what the layout has no field for, where it is unlike the published model's."""
    sizes, quantizer, decoder = tower.sizes, tower.config.quantizer, tower.config.decoder
    fields = (
        ("norm_groups", decoder.norm_groups, DecoderConfig.norm_groups),
        ("output_patch", decoder.output_patch, DecoderConfig.output_patch),
        ("attention", sizes.attention, SiglipSizes.attention),
    )
    extra: Fields = {name: value for name, value, usual in fields if value != usual}
    if decoder.kind != DecoderConfig.kind:
        own = ("kind", "num_layers", "num_heads", "head_size")
        extra["decoder"] = {name: getattr(decoder, name) for name in own}
    ways = {name: getattr(quantizer, name) for name in QUANTIZER_FIELDS}
    ways = {name: way for name, way in ways.items() if way != getattr(QuantizerConfig, name)}
    return extra | ({"quantizer": ways} if ways else {})


def projector_fields(model: VilaU) -> Fields:
    """Return mm_projector/config.json."""
    return {
        "_name_or_path": "mm_projector",
        "architectures": ["MultimodalProjector"],
        "mm_projector_type": PROJECTOR_TYPE,
        "model_type": "v2l_projector",
        "torch_dtype": _name(next(model.projector.parameters())),
        "transformers_version": FORMAT,
    }


def preprocessor_fields(image_size: int) -> Fields:
    """Return vision_tower/preprocessor_config.json."""
    square = {"height": image_size, "width": image_size}
    return {
        "crop_size": square,
        **dict.fromkeys(
            ("do_center_crop", "do_convert_rgb", "do_normalize", "do_rescale", "do_resize"), True
        ),
        "image_mean": [0.5] * 3,
        "image_processor_type": "CLIPImageProcessor",
        "image_std": [0.5] * 3,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": square,
    }


def _name(tensor: torch.Tensor) -> str:
    """Return the name of a tensor's number format, such as ``float32``."""
    return str(tensor.dtype).removeprefix("torch.")
