"""Opening finished models: ``vilau.load``, ``load_tower``, ``load_tokenizer``; writing them for others: ``export``."""

from pathlib import Path
from typing import Any

import torch

from vilau.errors import CheckpointError, ConfigError
from vilau.models.hub_cache import cached_folder
from vilau.models.interface import UnifiedModel, VisualTokenizer
from vilau.models.liquid import config as liquid_config
from vilau.models.liquid import published as liquid_published
from vilau.models.liquid import tokenizer as liquid
from vilau.models.liquid.model import Liquid
from vilau.models.liquid.published_model import KINDS as LIQUID_KINDS
from vilau.models.liquid.published_model import load_published as load_published_liquid
from vilau.models.sizes import IMAGE_TOKENIZER_FOLDER
from vilau.models.storage import CONFIG_FILE, fitting_config, load_weights, read_json
from vilau.models.vargpt import config as vargpt_config
from vilau.models.vargpt import published as vargpt_published
from vilau.models.vargpt import tokenizer as vargpt
from vilau.models.vargpt.model import Vargpt
from vilau.models.vila_u import model, tower
from vilau.models.vila_u.config import TowerConfig
from vilau.models.vila_u.model import VilaU
from vilau.models.vila_u.published.read import (
    ROOT_TYPE,
    TOWER_FOLDER,
    TOWER_TYPE,
    load_published,
    load_published_tower,
)
from vilau.models.vila_u.published.write import export_published, export_published_tower
from vilau.models.vila_u.tower import VisionTower
from vilau.models.weight_files import PICKLES, Unfilled, pickle_refused, read_weight_file

RUN_FOLDER = "model"
"""Where a run, and sometimes a published checkpoint, keeps the model."""
LAYOUTS = ("vila-u",)
TOWER_KINDS = (tower.KIND, TOWER_TYPE)
TOKENIZER_KINDS = (liquid.KIND, vargpt.KIND)
LIQUIDS = (liquid_config.KIND, *LIQUID_KINDS)
"""Ours, and what the language model of a published one may be."""
OWN_KINDS = {liquid_config.KIND: "Liquid", vargpt_config.KIND: "VARGPT"}
"""Ours that keep their image tokenizer in a folder of its own."""
WANTED = (
    "a published VILA-U checkpoint (llm/, vision_tower/ and mm_projector/ beside config.json), a published Liquid "
    f"({IMAGE_TOKENIZER_FOLDER}/ beside its weights) or the `model` folder of a run"
)

Device = str | torch.device | None


def load(
    path: str | Path,
    *,
    device: Device = None,
    dtype: torch.dtype | None = None,
    allow_pickle: bool = False,
) -> UnifiedModel:
    """Load a unified model, ours or a published one, ready to use.

    Args:
        path: the ``model`` folder of a pretraining or fine-tuning run (or the run's own), what ``save`` or
            ``export`` wrote, or a published VILA-U checkpoint: a folder, or its hub name if it lies
            complete in the local cache. The network is never asked. A published Liquid is the folder of its
            language model, with its image tokenizer in ``image_tokenizer/`` there.
        device: where to put it; default: the CPU.
        dtype: number format of the weights, e.g. ``torch.bfloat16``; default: as stored. Code vectors
            stay float32.
        allow_pickle: read ``.bin`` and ``.pth`` files where there is no safetensors file, with torch's
            restricted reader, which builds tensors alone.

    Raises:
        CheckpointError: the folder is missing, broken, or holds something else.
    """
    folder = _opened(path)
    _check_dtype(dtype)
    kind = _kind(folder)
    if kind == model.KIND:
        return VilaU.load(folder, device=device, dtype=dtype, allow_pickle=allow_pickle).eval()
    if kind == ROOT_TYPE:
        return load_published(folder, device=device, dtype=dtype, allow_pickle=allow_pickle)
    options: dict[str, Any] = {"device": device, "dtype": dtype, "allow_pickle": allow_pickle}
    if kind in OWN_KINDS:
        return _load_own(folder, kind, **options)
    if kind in LIQUIDS:
        return _load_published_liquid(folder, kind, **options)
    opener = {
        **dict.fromkeys(TOWER_KINDS, "load_tower"),
        **dict.fromkeys(TOKENIZER_KINDS, "load_tokenizer"),
    }
    hint = f"use {opener[kind]}, or give " if kind in opener else "give "
    raise CheckpointError(
        f"{folder / CONFIG_FILE} describes a {kind or 'model of unknown kind'}, but a unified model is "
        f"needed here; {hint}{WANTED}."
    )


def _load_own(folder: Path, kind: str, **options: Any) -> UnifiedModel:
    tokenizer = folder / IMAGE_TOKENIZER_FOLDER
    if not tokenizer.is_dir():
        raise CheckpointError(
            f"{folder} holds a {OWN_KINDS[kind]} without its image tokenizer; copy {IMAGE_TOKENIZER_FOLDER}/ of the "
            "same run there."
        )
    opened = load_tokenizer(tokenizer, **options)
    if kind == liquid_config.KIND:
        return Liquid.load(folder, opened, **options).eval()
    return Vargpt.load(folder, over_scales(opened, tokenizer), **options).eval()


def over_scales(tokenizer: VisualTokenizer, source: str | Path) -> vargpt.MultiScaleVQVAE:
    """Return a tokenizer that must be one over scales, as VARGPT's is; ``CheckpointError`` for another."""
    if isinstance(tokenizer, vargpt.MultiScaleVQVAE):
        return tokenizer
    raise CheckpointError(
        f"{source} holds a {type(tokenizer).__name__}, but VARGPT draws scale by scale; give what `vilau convert` "
        "wrote of VAR's tokenizer, or another MultiScaleVQVAE."
    )


def _load_published_liquid(folder: Path, kind: str, **options: Any) -> Liquid:
    tokenizer = folder / IMAGE_TOKENIZER_FOLDER
    if not tokenizer.is_dir():
        raise CheckpointError(
            f"{folder / CONFIG_FILE} describes a {kind}, which is a unified model if it is Liquid's, with its image "
            f"tokenizer beside it; put that there (vilau convert vqgan.ckpt {tokenizer} --layout vilau "
            f"--allow-pickle), or give {WANTED}."
        )
    return load_published_liquid(folder, load_tokenizer(tokenizer, **options), **options)


def load_tower(
    path: str | Path,
    *,
    device: Device = None,
    dtype: torch.dtype | None = None,
    allow_pickle: bool = False,
) -> VisionTower:
    """Load a vision tower: one by itself, or that of a whole model.

    ``path`` is the ``model`` folder of a tower-training run, a published ``vision_tower/`` folder, or anything
    that ``load`` opens; arguments and errors are ``load``'s.
    """
    folder = _opened(path)
    _check_dtype(dtype)
    kind = _kind(folder)
    folder, kind = _own_tokenizer(folder, kind)
    if kind == ROOT_TYPE:
        folder, kind = folder / TOWER_FOLDER, TOWER_TYPE
    if kind == TOWER_TYPE:
        return load_published_tower(folder, device=device, dtype=dtype, allow_pickle=allow_pickle)
    if kind == tower.KIND:
        built = VisionTower.load(folder, device=device, dtype=dtype, allow_pickle=allow_pickle)
        return built.eval()
    if kind == model.KIND:
        with fitting_config(folder):
            config = TowerConfig.from_dict(read_json(folder)["tower"])
        with Unfilled():
            built = VisionTower(config)
        load_weights(
            built,
            folder,
            prefix="tokenizer.",
            device=device,
            dtype=dtype,
            allow_pickle=allow_pickle,
        )
        return built.eval().to(device=device)
    raise CheckpointError(
        f"{folder / CONFIG_FILE} describes a {kind or 'model of unknown kind'}, but a vision tower is needed "
        f"here; give the `model` folder of a tower-training run, a published vision_tower/, or {WANTED}."
    )


def load_tokenizer(
    path: str | Path,
    *,
    image_size: int | None = None,
    device: Device = None,
    dtype: torch.dtype | None = None,
    allow_pickle: bool = False,
) -> VisualTokenizer:
    """Load what turns images into codes, of any family: VILA-U's tower, Liquid's VQGAN, VARGPT's tokenizer over scales.

    ``path`` is a folder that ``save`` wrote, what ``load_tower`` opens, or the file of a published tokenizer:
    Chameleon's ``vqgan.ckpt`` or VAR's ``vae_ch160v4096z32.pth``, whose shapes tell their sizes. ``image_size`` is for
    such files alone (default: 512 and 256, as published); the other arguments and the errors are ``load``'s.
    """
    file = Path(path).expanduser()
    options: Any = {"device": device, "dtype": dtype}
    if file.is_file():
        _check_dtype(dtype)
        found = read_weight_file(file, allow_pickle=allow_pickle)
        if vargpt_published.is_multi_scale(found):
            return vargpt_published.from_published(found, file, image_size=image_size, **options)
        return liquid_published.from_published(found, file, image_size=image_size, **options)
    if image_size is not None:
        raise ConfigError(
            f"image_size is {image_size}, but {path} is no file of a published tokenizer: its config says the size; "
            "leave it out."
        )
    folder = _opened(path)
    _check_dtype(dtype)
    kind = _kind(folder)
    folder, kind = _own_tokenizer(folder, kind)
    if kind == liquid.KIND:
        return liquid.VQGAN.load(folder, allow_pickle=allow_pickle, **options).eval()
    if kind == vargpt.KIND:
        return vargpt.MultiScaleVQVAE.load(folder, allow_pickle=allow_pickle, **options).eval()
    return load_tower(folder, allow_pickle=allow_pickle, **options)


def holds_tokenizer(path: str | Path) -> bool:
    """Tell whether ``path`` is a tower or tokenizer alone, for ``load_tokenizer``; errors are ``load``'s."""
    file = Path(path).expanduser()
    return file.is_file() or _kind(_opened(path)) in (*TOWER_KINDS, *TOKENIZER_KINDS)


def export(model: UnifiedModel | VisionTower, path: str | Path, *, layout: str = "vila-u") -> None:
    """Write a model in the layout of another project; ``model.save`` writes ours.

    Args:
        model: what ``load`` or ``load_tower`` returns.
        path: the folder to write; a checkpoint that lies there is replaced file by file.
        layout: ``vila-u``, the published three folders, or for a tower the one that ``vision_tower/`` is; see
            ``export_published`` and ``export_published_tower`` for what they hold.

    Raises:
        CheckpointError: the model has no weights, or the folder cannot be written.
        ConfigError: the layout is unknown or not for this kind of model.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"layout is {layout!r}; write {' or '.join(LAYOUTS)}.")
    folder = Path(path).expanduser().absolute()
    if isinstance(model, VisionTower):
        export_published_tower(model, folder)
    elif isinstance(model, VilaU):
        export_published(model, folder)
    else:
        raise ConfigError(
            f"layout {layout} holds a VilaU or a VisionTower, not a {type(model).__name__}; use its save() "
            "(vilau convert --layout vilau) instead."
        )


def _opened(path: str | Path) -> Path:
    """Return the folder with config.json that ``path`` means."""
    folder = Path(path).expanduser()
    if "://" in str(path):
        raise CheckpointError(
            f"{path} is an address, and nothing is fetched here; download it and give its folder."
        )
    if folder.is_file():
        if folder.suffix in PICKLES:
            raise pickle_refused(folder)
        raise CheckpointError(
            f"{folder} is a file; give the folder that holds it and {CONFIG_FILE}."
        )
    if not folder.is_dir():
        cached = cached_folder(str(path), CONFIG_FILE)
        if cached is None:
            raise CheckpointError(
                f"{path} is neither a folder nor in the local hub cache, and nothing is fetched here; "
                "download the checkpoint and give its folder."
            )
        return cached
    if not any(folder.iterdir()):
        raise CheckpointError(f"{folder} is empty; give {WANTED}.")
    if not (folder / CONFIG_FILE).is_file() and (folder / RUN_FOLDER / CONFIG_FILE).is_file():
        return folder / RUN_FOLDER
    if not (folder / CONFIG_FILE).is_file():
        raise CheckpointError(f"{folder} holds no {CONFIG_FILE}; give {WANTED}.")
    return folder


def _own_tokenizer(folder: Path, kind: str) -> tuple[Path, str]:
    """Step from a Liquid or VARGPT to its image tokenizer; anything else stays."""
    inner = folder / IMAGE_TOKENIZER_FOLDER
    if kind not in (*LIQUIDS, *OWN_KINDS) or not (inner / CONFIG_FILE).is_file():
        return folder, kind
    return inner, _kind(inner)


def _kind(folder: Path) -> str:
    config = read_json(folder)
    return str(config.get("kind") or config.get("model_type") or "")


def _check_dtype(dtype: torch.dtype | None) -> None:
    known = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    if dtype is not None and dtype not in known:
        raise ConfigError(f"dtype is {dtype}; write {', '.join(map(str, known[:3]))} or None.")
