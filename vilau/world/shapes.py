"""Geometry of the eight shapes: signed distances, and how near two can come before they touch."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross", "ring", "moon")

MAX_REACH = 1.14
"""No shape of radius r has a point further than ``MAX_REACH * r`` from its centre."""

RING_HOLE = 0.48
"""Radius of a ring's hole as a share of the ring's radius."""

Array = NDArray[np.float64]


def signed_distance(shape: str, x: Array, y: Array, radius: float) -> Array:
    """Distance in pixels from (x, y) to the outline of a shape at the origin; negative inside.

    ``y`` grows downwards. For the star and the cross it is exact near the outline only, which is
    all that anti-aliasing needs.
    """
    if shape == "circle":
        return np.hypot(x, y) - radius
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - radius * 0.80
    if shape == "diamond":
        return (np.abs(x) + np.abs(y)) * math.sqrt(0.5) - radius * 0.75
    if shape == "triangle":
        left, right = -0.866 * x - 0.5 * y, 0.866 * x - 0.5 * y
        return np.maximum(np.maximum(left, right) - radius * 0.52, y - radius * 0.62)
    if shape == "cross":
        return _cross(x, y, radius)
    if shape == "ring":
        half = (1.0 - RING_HOLE) / 2.0
        return np.abs(np.hypot(x, y) - radius * (1.0 - half)) - radius * half
    if shape == "moon":
        bite = np.hypot(x - radius * 0.55, y) - radius * 0.80
        return np.maximum(np.hypot(x, y) - radius, -bite)
    if shape == "star":
        return _star(x, y, radius)
    raise ValueError(f"unknown shape {shape!r}")


def _cross(x: Array, y: Array, radius: float) -> Array:
    across = np.maximum(np.abs(x) - radius, np.abs(y) - radius * 0.34)
    upright = np.maximum(np.abs(y) - radius, np.abs(x) - radius * 0.34)
    return np.minimum(across, upright)


def _star(x: Array, y: Array, radius: float, points: int = 5, inner: float = 0.42) -> Array:
    # Fold every point into the sector between a tip (angle 0) and the next notch; the outline there
    # is one straight edge, from (radius, 0) to the notch.
    sector = 2.0 * math.pi / points
    angle = np.arctan2(x, -y)
    folded = np.abs((angle + sector / 2.0) % sector - sector / 2.0)
    distance = np.hypot(x, y)
    notch_x = inner * radius * math.cos(sector / 2.0)
    notch_y = inner * radius * math.sin(sector / 2.0)
    normal_x, normal_y = notch_y, radius - notch_x
    length = math.hypot(normal_x, normal_y)
    along = (distance * np.cos(folded) - radius) * normal_x
    return (along + distance * np.sin(folded) * normal_y) / length


@lru_cache(maxsize=16)
def _outline(shape: str) -> tuple[Array, Array]:
    """Points just inside the outline of a shape of radius 1."""
    grid = np.linspace(-MAX_REACH, MAX_REACH, 33)
    x, y = np.meshgrid(grid, grid)
    distance = signed_distance(shape, x, y, 1.0)
    near = (distance <= 0.0) & (distance > -0.12)
    return x[near], y[near]


def contact_distance(
    first: str, first_radius: float, second: str, second_radius: float, angle: float
) -> float:
    """Centre distance in pixels at which ``second``, coming from ``angle``, first meets ``first``.

    ``angle`` is in radians, 0 to the right, pi/2 downwards.
    """
    x, y = _outline(second)
    limit = MAX_REACH * (first_radius + second_radius)
    distances = np.arange(limit, 0.0, -limit / 48.0)[:, None]
    px = x * second_radius + distances * math.cos(angle)
    py = y * second_radius + distances * math.sin(angle)
    meets = (signed_distance(first, px, py, first_radius) < -0.25).any(axis=1)
    return float(distances[int(meets.argmax()), 0])
