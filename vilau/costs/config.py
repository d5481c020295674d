"""Reading a stage config on paper: its classes, arguments and their defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

Config = Mapping[str, Any]
Sizes = TypeVar("Sizes")

DATA_DEFAULTS: dict[str, Any] = {
    "global_batch_size": 64, "num_val_samples": 2000, "zero_shot": "auto", "zero_shot_per_class": 10,
    "image_to_text_share": 0.5, "text_to_image_share": 0.5, "turns_per_image": 4, "drawing_share": 0.0,
    "text_to_video_share": 0.0, "interleaved_share": 0.0, "interleaved_images": 3, "video_share": 0.0,
    "exam_share": 0.0, "single_turn_share": 0.0, "hidden_share": 0.0,
    "num_questions": 2000, "num_comp_questions": 500, "num_pope_questions": 300, "num_prompts": 240,
}  # fmt: skip
"""Defaults of the data modules' constructors that decide a cost."""
MODEL_DEFAULTS: dict[str, Any] = {
    "pretrained": "google/siglip-large-patch16-256", "contrastive_weight": 1.0, "perceptual_weight": 1.0,
    "freeze_text": True, "measure_every_n_steps": 100, "guidance_scale": 3.0, "image_size": 64,
    "channels": (24, 48, 64), "guidance_scales": (1.0, 1.25, 1.5, 2.0, 3.0, 5.0),
    "adversarial_weight": 0.0, "freeze_vision": False, "share_images": False,
    "show_images": True,
}  # fmt: skip
"""Likewise of the LightningModules'."""
DISCRIMINATOR_DEFAULTS: dict[str, Any] = {
    "num_layers": 2, "channels": 64, "start_step": 0, "adaptive": True, "r1_weight": 0.0,
}  # fmt: skip
"""Likewise of the discriminator's config."""


class UnknownSizesError(Exception):
    """A pretrained part whose sizes are nowhere on this machine, or a class this module cannot count."""


def nested(config: Config) -> dict[str, Any]:
    """Return an earlier stage's config with ``inputs``, as the functions that read one expect."""
    return {**config, "inputs": config.get("inputs") or {}}


def class_of(config: Config, section: str) -> str:
    """Return the class path of ``model`` or ``data``, or an empty text."""
    return str((config.get(section) or {}).get("class_path", ""))


def arguments(config: Config, section: str) -> dict[str, Any]:
    """Return the constructor arguments that the config gives to ``model`` or ``data``."""
    return (config.get(section) or {}).get("init_args") or {}


def argument(config: Config, section: str, name: str) -> Any:
    """Return one constructor argument, the constructor's default where the config is silent."""
    defaults = DATA_DEFAULTS if section == "data" else MODEL_DEFAULTS
    return arguments(config, section).get(name, defaults[name])


def filled(dataclass_type: type[Sizes], given: Config | None) -> Sizes:
    """Build a config dataclass from the keys it knows; unknown ones are for ``check`` to refuse."""
    known = {field.name for field in dataclasses.fields(dataclass_type)}  # type: ignore[arg-type]
    return dataclass_type(**{key: value for key, value in (given or {}).items() if key in known})
