"""Files of codes: ``.safetensors`` or ``.npz``, with what is needed to decode them again.

Besides ``codes``, int32 ``(N, P, D)``, a file holds the names of the images, the tokenizer's ``CodeSpec``
and the hash of its codebook, since a code means nothing without the vectors it points at.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vilau.apps.files import written
from vilau.errors import DataError
from vilau.metrics.passport import weights_hash
from vilau.models.interface import CodeSpec, VisualTokenizer

SUFFIXES = (".safetensors", ".npz")
FORMAT = "vilau.codes/1"


@dataclass(frozen=True)
class CodesFile:
    """Codes and what they were made from."""

    codes: Tensor
    """int64 ``(N, P, D)``, on the CPU."""
    files: list[str]
    """The N images, as they were named."""
    spec: CodeSpec
    tower: str
    """``tower_hash`` of the tokenizer."""


def tower_hash(tokenizer: VisualTokenizer) -> str:
    """Return 12 hex digits over the codebook, which gives codes their meaning.

    The same for a tower alone and inside a model, on every device and for every dtype of the weights,
    since the codebook is kept in float32.
    """
    state = tokenizer.state_dict()
    book = {n: t for n, t in state.items() if "codebook" in n and n.endswith("weight")}
    return weights_hash(book or state)


def check_suffix(path: Path) -> None:
    """Raise ``DataError`` unless the name ends as a file of codes does."""
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path} is no name for codes; end it in .safetensors or .npz.")


def write_codes(path: Path, content: CodesFile) -> None:
    """Write a file of codes; the suffix chooses the format."""
    facts = {
        "format": FORMAT,
        "files": json.dumps(content.files),
        "spec": json.dumps(asdict(content.spec)),
        "tower": content.tower,
    }
    codes = content.codes.to(torch.int32).contiguous()
    with written(path) as part:
        if path.suffix.lower() == ".npz":
            np.savez_compressed(part, codes=codes.numpy(), metadata=np.array(json.dumps(facts)))
        else:
            save_file({"codes": codes}, part, metadata=facts)


def read_codes(path: Path) -> CodesFile:
    """Read what ``write_codes`` wrote; raises ``DataError`` for anything else."""
    check_suffix(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist; give a file written by vilau encode.")
    try:
        codes, facts = _read_npz(path) if path.suffix.lower() == ".npz" else _read_safetensors(path)
        _check_whole(codes)
        spec = json.loads(facts["spec"])
        spec["levels"] = tuple(tuple(level) for level in spec["levels"])
        content = CodesFile(
            codes.long(), list(json.loads(facts["files"])), CodeSpec(**spec), facts["tower"]
        )
    except Exception as error:  # noqa: BLE001 - zip, numpy and safetensors raise many types
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{path} cannot be read as codes ({reason}); encode the images again, or give a file "
            "written by vilau encode."
        ) from None
    _check(path, content)
    return content


def _read_npz(path: Path) -> tuple[Tensor, dict[str, str]]:
    with np.load(path) as archive:
        facts = json.loads(str(archive["metadata"]))
        codes = archive["codes"]
        # torch has fewer kinds of whole numbers.
        if np.issubdtype(codes.dtype, np.integer):
            codes = codes.astype(np.int64)
        return torch.from_numpy(codes), facts


def _read_safetensors(path: Path) -> tuple[Tensor, dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        facts = file.metadata() or {}
        if "codes" not in file.keys():  # noqa: SIM118 - no mapping
            raise SafetensorError("it holds no tensor `codes`")
        return file.get_tensor("codes"), facts


def _check_whole(codes: Tensor) -> None:
    if codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool:
        kind = str(codes.dtype).removeprefix("torch.")
        raise TypeError(f"its codes are {kind}, where whole numbers belong")


def _check(path: Path, content: CodesFile) -> None:
    spec = content.spec
    shape = (len(content.files), spec.num_positions, spec.depth)
    if tuple(content.codes.shape) != shape:
        raise DataError(
            f"{path} holds codes of shape {tuple(content.codes.shape)}, but its own description says "
            f"{shape}; encode the images again."
        )
    if len(content.codes) and not (
        content.codes.min() >= 0 and content.codes.max() < spec.codebook_size
    ):
        raise DataError(
            f"{path} holds codes from {content.codes.min()} to {content.codes.max()}, outside "
            f"0..{spec.codebook_size - 1}; encode the images again."
        )


def check_same_tower(
    path: Path, content: CodesFile, tower: VisualTokenizer, *, force: bool
) -> None:
    """Raise ``DataError`` unless ``tower`` can decode the codes: same spec, and (but for ``force``) codebook."""
    theirs, ours = asdict(content.spec), asdict(tower.spec)
    for name, value in theirs.items():
        if ours[name] != value:
            raise DataError(
                f"{path} holds codes with {name} {value}, but this tower's are {ours[name]}; give the "
                "tower that encoded them."
            )
    found = tower_hash(tower)
    if content.tower != found and not force:
        raise DataError(
            f"{path} was encoded with another tower (codebook {content.tower}, here {found}); give "
            "that tower, or --force to decode with this one."
        )
