"""Model folders: ``config.json`` beside ``model.safetensors`` (and tokenizers in sub-folders).

Under ``torch.device("meta")`` a folder holds the config alone; loaders accept that only when they
themselves build on the meta device, which is how ``lightning check`` walks through a study.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vilau.errors import CheckpointError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


def building_on_meta() -> bool:
    """Tell whether new tensors land on the meta device (nothing is computed, only shapes)."""
    return torch.empty(0).device.type == "meta"


def save_folder(
    folder: str | Path, *, kind: str, config: dict[str, Any], module: nn.Module
) -> None:
    """Write ``config`` (with its ``kind``) and the module's state into ``folder``."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"kind": kind, **config}, indent=1, sort_keys=True)
    state = unique_tensors(module)
    if all(tensor.device.type != "meta" for tensor in state.values()):
        save_file(state, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / CONFIG_FILE).write_text(text + "\n")  # last: a folder with a config is complete


def unique_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the state dict without second names of the same tensor, contiguous and on the CPU."""
    seen: set[int] = set()
    state = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            data = tensor.detach()
            state[name] = data if data.device.type == "meta" else data.cpu().contiguous()
    return state


def read_config(folder: str | Path, *kinds: str) -> dict[str, Any]:
    """Read ``config.json`` of a folder and check that it is of one of ``kinds``.

    Raises ``CheckpointError`` for a missing folder, a broken file, or another architecture.
    """
    path = Path(folder) / CONFIG_FILE
    wanted = " or ".join(kinds)
    if not path.is_file():
        raise CheckpointError(
            f"{folder} holds no {CONFIG_FILE}; give the `model` folder of a finished run "
            f"that made a {wanted}."
        )
    try:
        config = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{path} is not readable JSON ({error}); make the run again or restore the file."
        ) from None
    if not isinstance(config, dict) or config.get("kind") not in kinds:
        found = config.get("kind", config.get("model_type")) if isinstance(config, dict) else None
        raise CheckpointError(
            f"{path} describes a {found or 'model of unknown kind'}, but a {wanted} is needed here; "
            f"give the `model` folder of a run that made a {wanted}."
        )
    return config


def load_weights(module: nn.Module, folder: str | Path) -> None:
    """Load ``model.safetensors`` of ``folder`` into ``module``, every tensor and nothing else.

    On the meta device a folder without weights is accepted. Raises ``CheckpointError`` listing missing,
    unexpected and mis-shaped tensors.
    """
    path = Path(folder) / WEIGHTS_FILE
    if not path.is_file():
        if building_on_meta():
            return
        raise CheckpointError(f"{path} is missing; make the run again or copy the file there.")
    if building_on_meta():
        return
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); make the run again or restore the file."
        ) from None
    own = module.state_dict()
    aliases = set(own) - set(unique_tensors(module))
    problems = [f"{name} is missing" for name in own if name not in state and name not in aliases]
    problems += [f"{name} is not expected" for name in state if name not in own]
    problems += [
        f"{name} is {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:8]) + (
            f"; and {len(problems) - 8} more" if problems[8:] else ""
        )
        raise CheckpointError(f"{path} does not fit its config: {shown}.")
    module.load_state_dict(
        state, strict=False
    )  # strictness is the list above; aliases share storage
