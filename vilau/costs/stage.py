"""What a stage will cost, from its config alone: no torch, no data, nothing built.

Left out: validation during training, optimizer arithmetic, data loading. Guesses where a config does
not say: the ``*_TOKENS`` of ``modules``. Memory is weights, gradients, AdamW's two averages (Muon, which
keeps one of a hidden matrix, is counted alike), buffers, and the inputs of every layer that is trained
(no activation checkpointing); real peaks lie some tens of per cent above. Hours are operations over a
device's peak rate times a share such training reaches.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

from vilau.costs.asked import asked
from vilau.costs.config import Config, UnknownSizesError, argument, arguments, class_of
from vilau.costs.modules import Work, work_of

CHECKPOINTS_KEPT = 2
"""For resuming; the newest and its predecessor."""

CPU_CORE = "1 CPU core"
"""Which is what a run computes with, unless there are more cores than runs side by side."""

RATES = {
    CPU_CORE: 0.055e12,
    "RTX 4090": 0.35 * 165e12,
    "A100": 0.40 * 312e12,
    "H100 or H200": 0.40 * 989e12,
}
"""Operations per second. Cards: bfloat16 datasheet rate times a usual share of it. Core: training at scale tiny ran at
40 to 55 GFLOP/s (language model) and 100 (tower) in bfloat16 on a server CPU of 2024."""

ONE_BY_ONE, ONE_BY_ONE_CPU = 0.1, 0.5
"""Shares of that rate an evaluation reaches: it makes one token or position after another, which a core minds less
(measured at scale tiny: 20 to 47 GFLOP/s)."""

ZERO_SHOT_CLASSES = 64


def estimate(
    stage_config: Config, inputs: Mapping[str, Config] | None = None
) -> dict[str, Any] | None:
    """Return what a stage costs, or None where its sizes cannot be known.

    Args:
        stage_config: a resolved stage config (``model``, ``data``, ``trainer``; ``command`` where it
            is not ``fit``), with the machine's trainer laid over it where that is known.
        inputs: dotted key (``model.tower_checkpoint``) -> config of the stage whose product goes
            there, which may have a key ``inputs`` of its own. Default: ``stage_config["inputs"]``.

    Returns:
        ``parameters``, ``trained_parameters``, ``tokens_per_step``, ``flops_per_step``, ``flops``,
        ``samples``, ``memory_bytes_per_device``, ``disk_bytes``, ``devices`` (how many the trainer asks
        for) and ``hours`` (kind of device -> hours on so many of them); None for single values that
        the config does not decide.

    Raises:
        ConfigError: sizes that do not fit together.
    """
    config = dict(stage_config)
    config["inputs"] = inputs if inputs is not None else config.get("inputs") or {}
    try:
        work = work_of(config)
    except UnknownSizesError:
        return None
    except (TypeError, AttributeError):
        return None  # a value of the wrong kind, which `check` names better than a count could
    is_fit = _command(config) == "fit"
    batch = argument(config, "data", "global_batch_size")
    samples = _samples(config, batch)
    per_sample = work.train_flops if is_fit else work.forward_flops
    flops = None if samples is None else per_sample * samples
    devices = _num_devices((config.get("trainer") or {}).get("devices"))
    return {
        "parameters": work.parameters,
        "trained_parameters": work.trained if is_fit else 0,
        "tokens_per_step": round(work.tokens * batch),
        "flops_per_step": per_sample * batch,
        "flops": flops,
        "samples": samples,
        "memory_bytes_per_device": _memory(config, work, is_fit),
        "disk_bytes": _disk(config, work, is_fit),
        "devices": devices,
        "hours": None
        if flops is None
        else {name: flops / (devices * _rate(config, name)) / 3600 for name in RATES},
    }


def _rate(config: Config, device: str) -> float:
    if _command(config) != "test":
        return RATES[device]
    return RATES[device] * (ONE_BY_ONE_CPU if device == CPU_CORE else ONE_BY_ONE)


def _command(config: Config) -> str:
    default = "test" if class_of(config, "model").endswith("Evaluation") else "fit"
    return str(config.get("command", default))


def _samples(config: Config, batch: int) -> int | None:
    command = _command(config)
    if command == "fit":
        steps = (config.get("trainer") or {}).get("max_steps")
        return steps * batch if isinstance(steps, int) and steps > 0 else None
    if command == "test":
        return asked(config).total or None
    data = class_of(config, "data")
    if not data.endswith("ImageTextPairs"):
        return None
    drawn = arguments(config, "data").get("path", "world") == "world"
    classes = drawn and argument(config, "data", "zero_shot") == "auto"
    labelled = ZERO_SHOT_CLASSES * argument(config, "data", "zero_shot_per_class") if classes else 0
    return int(argument(config, "data", "num_val_samples")) + labelled


def _memory(config: Config, work: Work, is_fit: bool) -> int:
    trainer = config.get("trainer") or {}
    precision = str(trainer.get("precision"))
    weight_bytes = 2 if precision in ("bf16-true", "16-true") else 4
    number_bytes = 2 if "16" in precision else 4
    devices = _num_devices(trainer.get("devices"))
    trained = work.trained if is_fit else 0
    weights = weight_bytes * (work.parameters + 3 * trained)  # gradients and two averages
    if is_fit and _is_sharded(trainer.get("strategy")):  # evaluation holds whole models
        weights = ceil(weights / devices)
    if is_fit and precision in ("bf16-mixed", "16-mixed"):
        weights += 2 * trained  # autocast's copies, kept whole for the way back
    accumulate = trainer.get("accumulate_grad_batches") or 1
    batch = ceil(argument(config, "data", "global_batch_size") / (devices * accumulate))
    kept = number_bytes * work.kept * batch
    return round(weights + 4 * work.buffers + (kept if is_fit or work.trained == 0 else 0))


def _disk(config: Config, work: Work, is_fit: bool) -> int:
    """The product folder, and while training the checkpoints for resuming."""
    if not is_fit:
        return 0
    whole = work.parameters + work.buffers
    product = whole if work.product is None else work.product
    return 4 * product + CHECKPOINTS_KEPT * (4 * whole + 8 * work.trained)


def _num_devices(devices: Any) -> int:
    if isinstance(devices, int):
        return max(1, devices)
    return len(devices) if isinstance(devices, list) else 1


def _is_sharded(strategy: Any) -> bool:
    name = strategy.get("class_path", "") if isinstance(strategy, dict) else str(strategy)
    return "modelparallel" in name.lower()
