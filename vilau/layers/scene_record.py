"""Drawn scenes as plain dictionaries: reading them, and how far two of them agree.

A scene record holds ``image_size``, ``background`` and ``things``; a thing holds ``shape``,
``color``, ``size``, ``texture``, and ``x``, ``y``, ``radius`` in pixels.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vilau.errors import DataError

ATTRIBUTES = ("shape", "color", "size", "texture")

REACH = 4.0 / 64.0
"""A found thing stands for the true one if their centres are this close, in image sides."""


def scene_record(text: str) -> dict[str, Any]:
    """Read the ground truth that travels with a drawn image (what ``Scene.to_json`` wrote).

    Raises:
        DataError: the text is something else.
    """
    try:
        scene = json.loads(text)
        names = (*ATTRIBUTES, "x", "y", "radius")
        return {
            "image_size": int(scene["px"]),
            "background": str(scene["on"]),
            "things": [dict(zip(names, thing[:7], strict=True)) for thing in scene["things"]],
        }
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"The ground truth {text[:60]!r} is not a scene of the drawn world ({error!r}); "
            "use data whose scenes come from Scene.to_json()."
        ) from error


def scene_agreement(
    found: Mapping[str, Any], truth: Mapping[str, Any], attributes: Sequence[str] = ATTRIBUTES
) -> dict[str, float]:
    """Compare the record of a found scene with that of the true one.

    Returns:
        0 or 1 for each of ``scene_exact`` (same multiset of (shape, color)), ``full_exact`` (same
        multiset of all ``attributes``, and the background) and ``count`` (as many things); for each
        attribute the share of true things whose nearest found thing, if within `REACH`, has the
        same value (1 for a scene without things).
    """
    same_kinds = _kinds(found, ("shape", "color")) == _kinds(truth, ("shape", "color"))
    same_things = _kinds(found, attributes) == _kinds(truth, attributes)
    result = {
        "scene_exact": float(same_kinds),
        "full_exact": float(same_things and found["background"] == truth["background"]),
        "count": float(len(found["things"]) == len(truth["things"])),
    }
    right = dict.fromkeys(attributes, 0)
    reach = REACH * truth["image_size"]
    for thing in truth["things"]:
        nearest = min(found["things"], key=lambda one: _distance(one, thing), default=None)
        if nearest is not None and _distance(nearest, thing) <= reach:
            for name in attributes:
                right[name] += nearest[name] == thing[name]
    number = len(truth["things"])
    return result | {name: right[name] / number if number else 1.0 for name in attributes}


def _kinds(scene: Mapping[str, Any], attributes: Sequence[str]) -> Counter[tuple[str, ...]]:
    return Counter(tuple(thing[name] for name in attributes) for thing in scene["things"])


def _distance(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    return math.hypot(one["x"] - other["x"], one["y"] - other["y"])
