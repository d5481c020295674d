"""Opening pretrained transformers models: complete, in float32, and never by pickle."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from transformers import PretrainedConfig, PreTrainedModel

from vilau.errors import CheckpointError
from vilau.models.storage import building_on_meta

Model = TypeVar("Model", bound=PreTrainedModel)
Config = TypeVar("Config", bound=PretrainedConfig)


def pretrained_kind(source: str, kinds: Sequence[str]) -> str:
    """Read which of some kinds of model a folder or hub name holds.

    Raises ``CheckpointError`` for another: transformers itself would build such a model from random weights.
    """
    wanted = " or ".join(kinds)
    try:
        data, _ = PretrainedConfig.get_config_dict(source, local_files_only=Path(source).exists())
    except (OSError, ValueError) as error:
        raise _not_found(wanted, source, error) from None
    found = data.get("model_type", data.get("kind"))
    if found in kinds:
        return str(found)
    raise CheckpointError(
        f"{source} describes a {found or 'model of unknown kind'}, but a {wanted} is needed here; give the folder or "
        f"hub name of {wanted} weights."
    )


def pretrained_config(model_class: type[PreTrainedModel], source: str) -> PretrainedConfig:
    """Read the config of a folder or hub name that must be of ``model_class``'s kind, see ``pretrained_kind``."""
    config_class: type[PretrainedConfig] = model_class.config_class  # type: ignore[assignment]
    return config_within(config_class, source, (config_class.model_type,))


def config_within(config_class: type[Config], source: str, kinds: Sequence[str]) -> Config:
    """Read the config of a part of some kinds of models from a folder or hub name, see ``pretrained_kind``."""
    kind = pretrained_kind(source, kinds)
    try:
        return config_class.from_pretrained(source, local_files_only=Path(source).exists())
    except (OSError, ValueError) as error:
        raise _not_found(kind, source, error) from None


def load_pretrained(
    model_class: type[Model],
    source: str,
    *,
    attention: str,
    config: PretrainedConfig | None = None,
) -> Model:
    """Load weights from a folder or hub name as float32 (the default would keep a float16 file's).

    ``config`` replaces the source's own. On the meta device only the shapes are built. Raises
    ``CheckpointError`` when the weights are nowhere to be found, broken or incomplete.
    """
    config = config or pretrained_config(model_class, source)
    kind = config.model_type
    if building_on_meta():
        config._attn_implementation = attention
        return model_class(config)
    settings: dict[str, Any] = {"attn_implementation": attention, "dtype": torch.float32}
    settings |= {"use_safetensors": True, "output_loading_info": True}
    settings["local_files_only"] = Path(source).exists()  # a folder is all there is
    opened: Any
    try:
        opened = model_class.from_pretrained(source, config=config, **settings)
    except (OSError, ValueError) as error:
        raise _not_found(kind, source, error) from None
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"the weights in {source} cannot be read ({str(error).splitlines()[0]}); "
            "download or copy them again."
        ) from None
    model, report = opened
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise CheckpointError(
            f"{source} lacks {len(missing)} tensors of a {kind}, the first is {missing[0]}; "
            "give a folder with all of its weights."
        )
    return model


def built_config(config_class: type[Config], fields: dict[str, Any], source: str | Path) -> Config:
    """Build a transformers config of the fields that stand in ``source``.

    Raises ``CheckpointError`` for fields that make no sense.
    """
    try:
        return config_class(**fields)
    except Exception as error:  # noqa: BLE001 - its checks raise classes of their own, in many layers
        reason = str(error).splitlines()[-1].strip() if str(error) else type(error).__name__
        raise CheckpointError(
            f"{source} does not describe a {config_class.model_type} ({reason}); restore the file."
        ) from None


def _not_found(kind: str, source: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{kind} weights {source} are neither a local folder nor in the hub cache nor downloadable "
        f"({str(error).splitlines()[0]}); download them on a machine with a network and give the folder."
    )
