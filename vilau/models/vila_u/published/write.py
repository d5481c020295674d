"""Writing a VILA-U, or its vision tower alone, in the published layout."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from vilau.errors import CheckpointError, ConfigError
from vilau.models.language import MetaTokenizer
from vilau.models.sizes import SiglipSizes
from vilau.models.storage import CONFIG_FILE, gathered_state, read_json, writes_files
from vilau.models.tokenizers import (
    SENTENCEPIECE_FILE,
    load_tokenizer,
    save_tokenizer,
    sentencepiece_file,
)
from vilau.models.vila_u.model import VilaU
from vilau.models.vila_u.published.names import published_head, published_projector, published_tower
from vilau.models.vila_u.published.read import (
    LANGUAGE_FOLDER,
    PROJECTOR_FOLDER,
    ROOT_TYPE,
    TOWER_FOLDER,
    TOWER_TYPE,
)
from vilau.models.vila_u.published.read_config import PREPROCESSOR_FILE
from vilau.models.vila_u.published.write_config import (
    depth_fields,
    generation_fields,
    language_fields,
    preprocessor_fields,
    projector_fields,
    root_config,
    tower_fields,
)
from vilau.models.vila_u.published.write_siglip import (
    check_siglip,
    is_published_siglip,
    siglip_fields,
    siglip_name,
)
from vilau.models.vila_u.tower import VisionTower
from vilau.models.weight_files import write_tensors


def export_published(model: VilaU, folder: Path) -> None:
    """Write ``llm/``, ``vision_tower/`` and ``mm_projector/`` with config.json beside them.

    Weights keep their number format, and so does the codebook where that loses nothing (it is float32 in
    memory). What the layout has no field for is written down in entries that only this package reads (see
    ``export_config``); a SigLIP that is not one of the two published is described in a folder beside the
    three; a tokenizer that was not read from a ``tokenizer.model`` is written as tokenizer.json, which the
    published code's own tokenizer does not read.

    Of several processes all call it and rank 0 writes. Everything is written elsewhere and renamed into place,
    config.json last: a folder with a config is complete. Raises ``CheckpointError`` for a model without weights,
    a folder that holds other things, and when it cannot be written.
    """
    check_siglip(model.tokenizer.sizes)
    kind = model.language_config.architecture
    if kind != "llama":
        raise ConfigError(
            f"layout vila-u holds a LLaMA, and this model's language model is a {kind}; use its save() "
            "(vilau convert --layout vilau) instead."
        )
    _check_weights(model)
    _check_words(model.words)
    _check_place(folder, ROOT_TYPE)
    llm = gathered_state(model.language)
    tower, head = gathered_state(model.tokenizer), gathered_state(model.head)
    projector = published_projector(gathered_state(model.projector))
    if not writes_files():
        return
    with _replacing(folder) as part:
        for name in (LANGUAGE_FOLDER, TOWER_FOLDER, PROJECTOR_FOLDER):
            (part / name).mkdir()
        write_tensors(llm, part / LANGUAGE_FOLDER)
        vision = published_tower(_narrowed(tower)) | published_head(head)
        write_tensors(vision, part / TOWER_FOLDER)
        write_tensors(projector, part / PROJECTOR_FOLDER)
        _write_configs(model, part)
        _write_words(model.words, part / LANGUAGE_FOLDER)
        _write_siglip(model.tokenizer.sizes, part)


def export_published_tower(tower: VisionTower, folder: Path) -> None:
    """Write a ``vision_tower/`` folder of a tower alone, without the depth transformer that the release has there.

    The published code starts such a depth transformer from random weights. A SigLIP that is not one of the two
    published is described in a folder inside. Otherwise as ``export_published``, which also says what it raises.
    """
    check_siglip(tower.sizes)
    _check_weights(tower)
    _check_place(folder, TOWER_TYPE)
    state = gathered_state(tower)
    if not writes_files():
        return
    with _replacing(folder) as part:
        write_tensors(published_tower(_narrowed(state)), part)
        _write_tower_configs(tower, tower_fields(tower), part)
        _write_siglip(tower.sizes, part)


# ---------------------------------------------------------------------- the place


def _check_weights(model: nn.Module) -> None:
    if any(tensor.device.type == "meta" for tensor in model.state_dict().values()):
        raise CheckpointError(
            "this model has shapes but no weights (it was built on the meta device); load its weights first."
        )


def _check_words(words: PreTrainedTokenizerBase | MetaTokenizer) -> None:
    if isinstance(words, MetaTokenizer):
        raise CheckpointError("this model has no text tokenizer; load it with one first.")
    file = sentencepiece_file(words)
    if file is not None and not file.is_file():
        raise CheckpointError(
            f"{file}, which this model's tokenizer was read from, is gone; put it back to export the model."
        )


def _check_place(folder: Path, kind: str) -> None:
    """Refuse a folder that holds other things than a checkpoint of this ``model_type``."""
    if folder.is_dir() and any(folder.iterdir()):
        there = (folder / CONFIG_FILE).is_file() and read_json(folder).get("model_type")
        if there != kind:
            raise CheckpointError(
                f"{folder} holds other files than a published checkpoint; give a new or empty folder."
            )


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """Yield a folder to write into; what it holds moves into ``folder`` in the end, config.json last."""
    part = folder.parent / f".{folder.name}.part-{os.getpid()}"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_FILE).unlink(missing_ok=True)
        for new in sorted(part.iterdir(), key=lambda path: path.name == CONFIG_FILE):
            old = folder / new.name
            if old.is_dir():
                shutil.rmtree(old)
            new.replace(old)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"the checkpoint cannot be written to {folder} ({error}); free disk space there or choose "
            "another folder."
        ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


# ---------------------------------------------------------------------- the parts


def _narrowed(tower: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tower's state with the codebook in the format of the weights, if that loses nothing."""
    dtype = tower["post_quant_conv.weight"].dtype

    def narrow(tensor: Tensor) -> Tensor:
        cast = tensor.to(dtype)
        return cast if torch.equal(cast.to(tensor.dtype), tensor) else tensor

    names = [name for name in tower if ".codebook" in name]
    return tower | {name: narrow(tower[name]) for name in names}


def _write_configs(model: VilaU, folder: Path) -> None:
    llm, projector = language_fields(model), projector_fields(model)
    head, width = model.head_config, model.language.config.hidden_size
    tower = tower_fields(model.tokenizer) | depth_fields(model.tokenizer, head, width)
    _write_json(folder / LANGUAGE_FOLDER / CONFIG_FILE, llm)
    _write_json(folder / LANGUAGE_FOLDER / "generation_config.json", generation_fields(model))
    _write_tower_configs(model.tokenizer, tower, folder / TOWER_FOLDER)
    _write_json(folder / PROJECTOR_FOLDER / CONFIG_FILE, projector)
    _write_json(folder / CONFIG_FILE, root_config(model, llm, tower, projector))


def _write_tower_configs(tower: VisionTower, fields: dict[str, Any], folder: Path) -> None:
    _write_json(folder / PREPROCESSOR_FILE, preprocessor_fields(tower.sizes.image_size))
    _write_json(folder / CONFIG_FILE, fields)


def _write_json(path: Path, fields: dict[str, Any]) -> None:
    path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")


def _write_words(words: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write the tokenizer, as LLaMA's own files where it was read from them."""
    entries = {id_: _token(token) for id_, token in sorted(words.added_tokens_decoder.items())}
    basic = (words.unk_token, words.bos_token, words.eos_token, words.pad_token)
    extra = [entry for entry in entries.values() if entry["content"] not in basic]
    names = [entry["content"] for entry in extra]
    by_name = {entry["content"]: entry for entry in entries.values()}
    file = sentencepiece_file(words)
    if file is None:
        save_tokenizer(words, folder)
    else:
        (folder / SENTENCEPIECE_FILE).write_bytes(file.read_bytes())
        _write_json(
            folder / "tokenizer_config.json",
            {
                "add_bos_token": True,
                "add_eos_token": False,
                "add_prefix_space": True,
                "added_tokens_decoder": {
                    str(id_): {**entry, "special": True} for id_, entry in entries.items()
                },
                "additional_special_tokens": names,
                "bos_token": words.bos_token,
                "clean_up_tokenization_spaces": False,
                "eos_token": words.eos_token,
                "legacy": bool(getattr(words, "legacy", False)),
                "model_max_length": words.model_max_length,
                "pad_token": words.pad_token,
                "padding_side": "right",
                "sp_model_kwargs": {},
                "spaces_between_special_tokens": False,
                "tokenizer_class": "LlamaTokenizer",
                "unk_token": words.unk_token,
                "use_default_system_prompt": False,
            },
        )
    ids = {name: words.convert_tokens_to_ids(name) for name in names}
    _write_json(folder / "added_tokens.json", ids)
    roles = {f"{role}_token": getattr(words, f"{role}_token") for role in ("bos", "eos", "unk")}
    _write_json(
        folder / "special_tokens_map.json",
        {
            "additional_special_tokens": extra,
            **{role: by_name.get(token, token) for role, token in roles.items()},
            "pad_token": words.pad_token,
        },
    )


def _token(token: Any) -> dict[str, Any]:
    flags = ("lstrip", "normalized", "rstrip", "single_word")
    return {"content": token.content, **{flag: getattr(token, flag) for flag in flags}}


def _write_siglip(sizes: SiglipSizes, folder: Path) -> None:
    """Describe a SigLIP that no published name stands for, with its text tokenizer if it is here."""
    if is_published_siglip(sizes):
        return
    place = folder / Path(siglip_name(sizes)).name
    place.mkdir()
    with suppress(CheckpointError):
        # It may never have been on this machine; only text features need it, and say so.
        save_tokenizer(load_tokenizer(sizes.tokenizer), place)
    _write_json(place / CONFIG_FILE, siglip_fields(sizes))
