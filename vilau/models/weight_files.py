"""Weight files of a folder: safetensors, whole or in shards; pickles only where the caller allows them.

Also what a model is filled with them by: modules built without values, and the check of names and shapes.
"""

import json
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vilau.errors import CheckpointError
from vilau.layers.codebook import Codebook

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLES = (".bin", ".pth", ".pt")
"""Endings of files that torch writes with pickle, which can run any program when read."""
NOT_WEIGHTS = ("training_args", "optimizer", "scheduler", "scaler", "rng_state")
RESTORE = "make the run again or restore the file"


def read_tensors(folder: str | Path, *, allow_pickle: bool = False) -> dict[str, Tensor]:
    """Return the tensors of a folder by name, on the CPU, memory-mapped where the format allows it.

    Reads ``model.safetensors``, else the shards that ``model.safetensors.index.json`` names, else, with
    ``allow_pickle``, the pickles of the folder (with torch's restricted reader, which builds tensors alone), of a
    trainer's checkpoint what stands under ``state_dict``.
    Raises ``CheckpointError`` when there are none, a file is broken, or pickles are all there is.
    """
    folder = Path(folder)
    whole, index = folder / WEIGHTS_FILE, folder / INDEX_FILE
    if whole.is_file():
        return _read_safetensors(whole)
    if index.is_file():
        return _read_shards(index)
    pickles = _pickles(folder)
    if not pickles:
        raise CheckpointError(f"{whole} is missing; make the run again or copy the file there.")
    if not allow_pickle:
        raise pickle_refused(pickles[0])
    state: dict[str, Tensor] = {}
    for path in pickles:
        state.update(_read_pickle(path))
    return state


def read_weight_file(path: Path, *, allow_pickle: bool = False) -> dict[str, Tensor]:
    """Return the tensors of one file by name: safetensors, or with ``allow_pickle`` a pickle (see ``read_tensors``).

    Of a trainer's checkpoint those under ``state_dict``. Raises ``CheckpointError`` for anything else.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    endings = (*PICKLES, ".ckpt")
    if path.suffix not in endings:
        raise CheckpointError(
            f"{path} is no file of weights; give one that ends in .safetensors, {', '.join(endings)}."
        )
    if not allow_pickle:
        raise pickle_refused(path)
    return _read_pickle(path)


def _pickles(folder: Path) -> list[Path]:
    """Return the pickles of weights in a folder: those that name a model, else all but a trainer's own."""
    found = sorted(p for p in folder.glob("*") if p.suffix in PICKLES and p.is_file())
    named = [p for p in found if "model" in p.stem]
    return named or [p for p in found if not p.stem.startswith(NOT_WEIGHTS)]


def pickle_refused(path: Path) -> CheckpointError:
    """Return the error for a pickle that nobody allowed."""
    return CheckpointError(
        f"{path} is a pickle, a format that can run any program when it is read; give "
        f"{WEIGHTS_FILE} instead, or allow_pickle=True (--allow-pickle) to read its tensors alone."
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); {RESTORE}.") from None


def _read_shards(index: Path) -> dict[str, Tensor]:
    names = _shards_of(index)
    state: dict[str, Tensor] = {}
    for file in sorted(set(names.values())):
        path = index.parent / file
        if not path.is_file():
            raise CheckpointError(f"{path}, which {index.name} names, is missing; copy it there.")
        state.update(_read_safetensors(path))
    astray = [name for name in names if name not in state]
    if astray:
        raise CheckpointError(
            f"{index} names {len(astray)} tensors that its files do not hold, the first is "
            f"{astray[0]}; copy the files again."
        )
    return state


def _shards_of(index: Path) -> dict[str, str]:
    """Return tensor name -> file name; a file outside the folder is refused."""
    try:
        names = json.loads(index.read_text())["weight_map"]
        outside = [f for f in names.values() if Path(f).name != f or not f.endswith(".safetensors")]
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{index} is not a readable index of shards ({type(error).__name__}: {error}); {RESTORE}."
        ) from None
    if outside:
        raise CheckpointError(
            f"{index} names {outside[0]!r}, but shards are .safetensors files beside it; {RESTORE}."
        )
    return names


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - UnpicklingError and whatever else broken bytes cause
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read as tensors alone ({reason}); give {WEIGHTS_FILE} instead."
        ) from None
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in found.items()
    ):
        raise CheckpointError(
            f"{path} holds a {type(found).__name__} that is not a mapping from names to tensors; give "
            f"{WEIGHTS_FILE} instead."
        )
    return dict(found)


# ---------------------------------------------------------------------- writing


def write_tensors(
    state: Mapping[str, Tensor], folder: Path, *, shard_bytes: int = 5_000_000_000
) -> None:
    """Write ``model.safetensors``, or shards of at most ``shard_bytes`` with their index.

    Raises ``OSError`` or ``SafetensorError`` when the disk does not take it.
    """
    shards: list[dict[str, Tensor]] = [{}]
    room = shard_bytes
    for name, tensor in state.items():
        if tensor.nbytes > room and shards[-1]:
            shards.append({})
            room = shard_bytes
        shards[-1][name] = tensor
        room -= tensor.nbytes
    if len(shards) == 1:
        write_safetensors(shards[0], folder / WEIGHTS_FILE)
        return
    names: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_safetensors(shard, folder / file)
        names |= dict.fromkeys(shard, file)
    size = sum(tensor.nbytes for tensor in state.values())
    index = {"metadata": {"total_size": size}, "weight_map": names}
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def write_safetensors(state: Mapping[str, Tensor], path: Path) -> None:
    """Write one file that whoever may read the files beside it may read: safetensors makes private ones."""
    path.touch()
    mode = path.stat().st_mode
    save_file(dict(state), path, metadata={"format": "pt"})
    path.chmod(mode)


# ---------------------------------------------------------------------- into a module


class Unfilled(TorchFunctionMode):
    """Build modules without values: weights land on the meta device, computed buffers stay real.

    Random weights of a 7B model take minutes and twice its memory, for nothing when a file follows. Unlike
    under ``torch.device("meta")`` what no file holds (rotary frequencies) is computed.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Send ``torch.empty`` without a device, which every layer makes its weights by, to meta."""
        kwargs = kwargs or {}
        if func is torch.empty and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": "meta"}
        return func(*args, **kwargs)


def first_names(module: nn.Module) -> dict[str, str]:
    """Return each name in the state dict with the first name of the same tensor."""
    seen: dict[int, str] = {}
    state = module.state_dict(keep_vars=True)
    return {name: seen.setdefault(id(tensor), name) for name, tensor in state.items()}


def check_fit(
    module: nn.Module, state: Mapping[str, Tensor], source: Path, *, told_by: str = "its config"
) -> None:
    """Raise ``CheckpointError`` unless ``state`` is the module's, whose sizes are ``told_by`` what stands there.

    Second names of a tensor may be missing, but must hold the same.
    """
    first = first_names(module)
    seconds = {name for name, earlier in first.items() if name != earlier}
    compare(module.state_dict(), state, source, optional=seconds, told_by=told_by)
    for name in seconds & set(state):
        if not torch.equal(state[name], state[first[name]]):
            raise CheckpointError(
                f"{source} holds a {name} unlike {first[name]}, but its config ties them to one tensor; restore "
                "the weights or the config."
            )


def compare(
    expected: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    source: Path,
    *,
    optional: Set[str] = frozenset(),
    told_by: str = "its config",
) -> None:
    """Raise ``CheckpointError`` listing missing, unexpected and mis-shaped tensors (8, and a count)."""
    problems = [
        f"{name} is missing" for name in expected if name not in found and name not in optional
    ]
    problems += [f"{name} is not expected" for name in found if name not in expected]
    problems += [
        f"{name} is {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if problems:
        listed = "; ".join(problems[:8]) + (
            f"; and {len(problems) - 8} more" if problems[8:] else ""
        )
        raise CheckpointError(f"{source} does not fit {told_by}: {listed}.")


def fill(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
) -> None:
    """Put checked tensors into a module, which may be built ``Unfilled``: its weights in ``dtype``.

    ``dtype`` None keeps each weight as it is stored. Buffers and codebooks keep the dtype they were built in.
    Everything is copied: the files may change or go afterwards.
    """
    own = module.state_dict(keep_vars=True)
    books = [part for part in module.modules() if isinstance(part, Codebook)]
    codes = {id(tensor) for book in books for tensor in book.state_dict(keep_vars=True).values()}
    filled: dict[int, Tensor] = {}
    for name, old in own.items():
        if name not in state or id(old) in filled:
            continue
        weight = isinstance(old, nn.Parameter)
        format_ = dtype if weight and id(old) not in codes else old.dtype
        value = state[name].to(device=device, dtype=format_, copy=True)
        filled[id(old)] = nn.Parameter(value, requires_grad=old.requires_grad) if weight else value
    # One object under every name of a shared tensor: tied embeddings stay tied.
    module.load_state_dict({name: filled[id(old)] for name, old in own.items()}, assign=True)
