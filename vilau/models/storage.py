"""Model folders: ``config.json`` beside ``model.safetensors`` (and tokenizers in sub-folders).

Under ``torch.device("meta")`` a folder holds the config alone; loaders accept that only when they
themselves build on the meta device, which is how ``lightning check`` walks through a study.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedTokenizerBase

from vilau.errors import CheckpointError
from vilau.models.tokenizers import save_tokenizer
from vilau.models.weight_files import (
    WEIGHTS_FILE,
    check_fit,
    fill,
    first_names,
    read_tensors,
    write_safetensors,
)

CONFIG_FILE = "config.json"
TOKENIZER_FOLDER = "tokenizer"


def building_on_meta() -> bool:
    """Tell whether new tensors land on the meta device (nothing is computed, only shapes)."""
    return torch.zeros(0).device.type == "meta"  # not empty: see weight_files.Unfilled


def writes_files() -> bool:
    """Tell whether this process writes: it is alone, or rank 0 of several."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0


def save_folder(
    folder: str | Path,
    *,
    kind: str,
    config: dict[str, Any],
    module: nn.Module,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> None:
    """Write ``config`` (with its ``kind``), the module's state and a text tokenizer into ``folder``.

    Of several processes all call it, since sharded weights are gathered from all, and rank 0 writes. Files
    are renamed into place and the config comes last: a folder with a config is complete. Raises
    ``CheckpointError`` when it cannot be written.
    """
    folder = Path(folder)
    state = gathered_state(module)
    if not writes_files():
        return
    text = json.dumps({"kind": kind, **config}, indent=1, sort_keys=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_FILE).unlink(missing_ok=True)
        if tokenizer is not None:
            save_tokenizer(tokenizer, folder / TOKENIZER_FOLDER)
        if all(tensor.device.type != "meta" for tensor in state.values()):
            part = folder / f"{WEIGHTS_FILE}.part"
            write_safetensors(state, part)
            part.replace(folder / WEIGHTS_FILE)
        part = folder / f"{CONFIG_FILE}.part"
        part.write_text(text + "\n")
        part.replace(folder / CONFIG_FILE)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"the model cannot be written to {folder} ({error}); free disk space there or choose "
            "another folder."
        ) from None


def gathered_state(module: nn.Module) -> dict[str, Tensor]:
    """Return the whole state dict, contiguous and on the CPU, each tensor under its first name alone.

    Tensors sharded over several processes are gathered: every process must call it; those that
    write no files get an empty dict.
    """
    state = {}
    names = set(first_names(module).values())
    for name, tensor in module.state_dict().items():
        if name in names:
            data = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if writes_files():
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
    config = read_json(folder)
    if config.get("kind") not in kinds:
        found = config.get("kind", config.get("model_type"))
        raise CheckpointError(
            f"{path} describes a {found or 'model of unknown kind'}, but a {wanted} is needed here; "
            f"give the `model` folder of a run that made a {wanted}."
        )
    return config


def read_json(folder: str | Path, name: str = CONFIG_FILE) -> dict[str, Any]:
    """Read the mapping in ``config.json`` (or another JSON file) of a folder, whatever it describes."""
    path = Path(folder) / name
    try:
        config = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise CheckpointError(
            f"{path} is not readable JSON ({error}); make the run again or restore the file."
        ) from None
    if not isinstance(config, dict):
        raise CheckpointError(
            f"{path} holds a {type(config).__name__} instead of a mapping; make the run again or "
            "restore the file."
        )
    return config


@contextmanager
def fitting_config(folder: str | Path) -> Iterator[None]:
    """Turn a field that a stored config lacks or should not have into a ``CheckpointError``."""
    try:
        yield
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{Path(folder) / CONFIG_FILE} does not fit this version of vilau "
            f"({type(error).__name__}: {error}); make the run again."
        ) from error


def load_weights(
    module: nn.Module,
    folder: str | Path,
    *,
    prefix: str = "",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = torch.float32,
    allow_pickle: bool = False,
) -> None:
    """Load the weights of ``folder`` into ``module``, every tensor and nothing else.

    ``prefix`` picks the part of a larger model that starts with it; ``dtype`` None keeps each weight as it is
    stored. On the meta device a folder without weights is accepted. Raises ``CheckpointError`` listing missing,
    unexpected and mis-shaped tensors; see ``read_tensors`` for ``allow_pickle``.
    """
    if building_on_meta():
        return
    state = {
        name.removeprefix(prefix): tensor
        for name, tensor in read_tensors(folder, allow_pickle=allow_pickle).items()
        if name.startswith(prefix)
    }
    check_fit(module, state, Path(folder) / WEIGHTS_FILE)
    fill(module, state, dtype=dtype, device=device)
