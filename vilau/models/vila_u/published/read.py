"""Reading published VILA-U checkpoints: ``llm/``, ``vision_tower/`` and ``mm_projector/`` beside config.json.

Nothing is fetched and nothing is run: configs are JSON, weights are safetensors.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from vilau.errors import CheckpointError
from vilau.models.sequence.prompts import IMAGE_END, IMAGE_START, VIDEO_END, VIDEO_START
from vilau.models.sizes import LanguageConfig
from vilau.models.storage import CONFIG_FILE, building_on_meta, read_json
from vilau.models.tokenizers import load_tokenizer
from vilau.models.vila_u.model import VilaU
from vilau.models.vila_u.published.names import (
    CODEBOOKS,
    HEAD,
    head_state,
    projector_state,
    published_head,
    published_projector,
    published_tower,
    tower_state,
    without_aliases,
)
from vilau.models.vila_u.published.read_config import (
    head_config,
    language_config,
    prompt_config,
    shares_codebook,
    tower_config,
)
from vilau.models.vila_u.tower import VisionTower
from vilau.models.weight_files import Unfilled, check_fit, compare, fill, read_tensors

LANGUAGE_FOLDER, TOWER_FOLDER, PROJECTOR_FOLDER = "llm", "vision_tower", "mm_projector"
ROOT_TYPE, TOWER_TYPE = "vila_u_llama", "rqvaesigliptransformer_model"
PROJECTOR_TYPE = "mlp2x_gelu"
MARKS = {
    "mm_use_im_start_end": (IMAGE_START, IMAGE_END),
    "mm_use_vi_start_end": (VIDEO_START, VIDEO_END),
}
"""Which tokens a checkpoint may have been trained without, by the key of config.json that says so."""

Tensors = Mapping[str, Tensor]
Device = str | torch.device | None


def load_published(
    folder: Path,
    *,
    device: Device = None,
    dtype: torch.dtype | None = None,
    allow_pickle: bool = False,
) -> VilaU:
    """Load a whole published checkpoint.

    ``dtype`` None keeps the stored format; when the parts differ, it is ``model_dtype`` of config.json, as in
    the published code. Raises ``CheckpointError`` for a missing part, and one listing tensors that do not fit
    the configs.
    """
    parts = [folder / name for name in (LANGUAGE_FOLDER, TOWER_FOLDER, PROJECTOR_FOLDER)]
    for part in parts:
        _check_part(part)
    llm, mm_projector = (read_tensors(part, allow_pickle=allow_pickle) for part in parts[::2])
    vision = _read_tower(parts[1], allow_pickle=allow_pickle)
    language = language_config(parts[0])
    tower, head = tower_config(parts[1], vision), head_config(parts[1], vision)
    words, prompt = _words(parts[0], language, read_json(folder)), prompt_config(folder)
    model = VilaU.unfilled(tower, language, head, prompt, words)
    projector = projector_state(mm_projector)
    compare(published_projector(model.projector.state_dict()), mm_projector, parts[2])
    compare(_tower_names(model.tokenizer, model.head), vision, parts[1])
    llm = {k: t for k, t in llm.items() if not k.endswith("rotary_emb.inv_freq")}  # old releases
    check_fit(model.language, llm, parts[0])
    if building_on_meta():
        return model.eval()
    dtype = dtype or _common_dtype(folder, (llm, vision, projector))
    fill(model.language, llm, dtype=dtype, device=device)
    shared = tower.quantizer.shared_codebook
    fill(model.tokenizer, tower_state(vision, shared=shared), dtype=dtype, device=device)
    fill(model.head, head_state(vision), dtype=dtype, device=device)
    fill(model.projector, projector, dtype=dtype, device=device)
    return model.eval().to(device=device)


def load_published_tower(
    folder: Path,
    *,
    device: Device = None,
    dtype: torch.dtype | None = None,
    allow_pickle: bool = False,
) -> VisionTower:
    """Load the tower of a published ``vision_tower/`` folder; its depth transformer is left aside."""
    _check_part(folder)
    vision = _read_tower(folder, allow_pickle=allow_pickle)
    config = tower_config(folder, vision)
    with Unfilled():
        tower = VisionTower(config)
    vision = {name: tensor for name, tensor in vision.items() if not name.startswith(HEAD)}
    compare(_tower_names(tower), vision, folder)
    if not building_on_meta():
        state = tower_state(vision, shared=config.quantizer.shared_codebook)
        fill(tower, state, dtype=dtype, device=device)
    return tower.eval().to(device=device)


def _check_part(folder: Path) -> None:
    if not (folder / CONFIG_FILE).is_file():
        raise CheckpointError(
            f"{folder} holds no {CONFIG_FILE}, which every part of a published checkpoint "
            f"({LANGUAGE_FOLDER}/, {TOWER_FOLDER}/ and {PROJECTOR_FOLDER}/) has; copy the checkpoint again."
        )
    config = read_json(folder)
    kind = config.get("mm_projector_type")
    if folder.name == PROJECTOR_FOLDER and kind != PROJECTOR_TYPE:
        raise CheckpointError(
            f"{folder / CONFIG_FILE} has mm_projector_type {kind!r}, but this model's projector is "
            f"{PROJECTOR_TYPE!r}; give a checkpoint with that projector."
        )


def _read_tower(folder: Path, *, allow_pickle: bool) -> dict[str, Tensor]:
    """Return the tensors of ``vision_tower/`` without second copies."""
    tensors = read_tensors(folder, allow_pickle=allow_pickle)
    shared = shares_codebook(read_json(folder), tensors)
    if not shared and f"{CODEBOOKS}1.weight" not in tensors and f"{HEAD}pos_emb_d" in tensors:
        depth = tensors[f"{HEAD}pos_emb_d"].shape[1]
        if depth > 1:
            raise CheckpointError(
                f"{folder} has shared_codebook: false but the codebook of depth 0 alone; copy the weights "
                "again, or write shared_codebook: true if all depths share it."
            )
    return without_aliases(tensors, shared=shared)


def _tower_names(tower: VisionTower, head: nn.Module | None = None) -> dict[str, Tensor]:
    """Return what ``vision_tower/`` must hold, by published names."""
    return published_tower(tower.state_dict()) | published_head(head.state_dict() if head else {})


def _common_dtype(folder: Path, parts: tuple[Tensors, ...]) -> torch.dtype:
    """Return the number format of all parts, else the config's ``model_dtype``."""
    found = {t.dtype for part in parts for t in part.values() if t.is_floating_point()}
    if len(found) == 1:
        return found.pop()
    name = str(read_json(folder).get("model_dtype"))
    known = {str(d): d for d in (torch.float32, torch.float16, torch.bfloat16)}
    if name not in known:
        raise CheckpointError(
            f"the weights in {folder} are stored in several formats, and model_dtype of {CONFIG_FILE} is "
            f"{name!r}; write one of {', '.join(known)}, or pass dtype."
        )
    return known[name]


def _words(
    folder: Path, language: LanguageConfig, root: Mapping[str, Any]
) -> PreTrainedTokenizerBase:
    """Load the tokenizer, which has the marks that config.json of the checkpoint, ``root``, does not deny."""
    words = load_tokenizer(str(folder))
    vocabulary = words.get_vocab()
    for key, marks in MARKS.items():
        missing = [token for token in marks if token not in vocabulary]
        if missing and root.get(key, True):
            raise CheckpointError(
                f"the tokenizer in {folder} lacks {', '.join(missing)}; copy the tokenizer again, or write "
                f"{key}: false into {CONFIG_FILE} of the checkpoint if it was trained without."
            )
    largest = max(vocabulary.values())
    if largest >= language.vocab_size:
        raise CheckpointError(
            f"the tokenizer in {folder} has ids up to {largest}, but the language model knows only "
            f"{language.vocab_size}; copy the tokenizer that belongs to it."
        )
    return words
