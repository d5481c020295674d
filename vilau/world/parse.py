"""Pixels -> scene by analysis through synthesis: the strict judge of generated images.

Colours propose, the renderer's own sprites decide. Of all shapes, radii, sub-pixel offsets and
textures that the renderer can draw, the one that explains most of the picture's energy is taken,
its pixels are taken away, and the search goes on. A thing the renderer could not have drawn leaves a
large residual and is not accepted. Parts and signs are not read; covered things may be missed.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vilau.errors import DataError
from vilau.world.render import (
    BACKGROUND_COLORS,
    PLATE_COLOR,
    Image,
    make_sprite,
    texture_period,
)
from vilau.world.scene import lattice_step, radii
from vilau.world.shapes import MAX_REACH, SHAPES
from vilau.world.things import BACKGROUNDS, COLOR_NAMES, COLORS, SIZE_NAMES, TEXTURES, Scene, Thing

Floats = NDArray[np.float32]

PARSED_SIZE = 64
"""Larger images are first shrunk to this many pixels where it divides their size."""
_COLOR_REACH = 75.0
"""A pixel may be this far (in RGB) from a colour that it is to propose."""
_MIN_PIXELS = 5
"""Fewer pixels of a colour propose nothing; 2 on canvases below 64 pixels."""
_MAX_THINGS = 16
_NUM_FINALISTS = 12
MAX_RESIDUAL = 0.35
"""A thing is accepted when it differs from its re-drawing by less, see ``parse``."""


class _Row(NamedTuple):
    """One way to draw a thing; (dx, dy) is its centre within a pixel of the patch, in drawn pixels."""

    shape: str
    radius: float
    dx: float
    dy: float
    size: str
    texture: str


@dataclass(frozen=True)
class _Bank:
    """All ways to draw a thing, as flat patches of ``(2 half + 1)**2`` pixels around its centre."""

    half: int
    factor: int
    """Pixels of the drawn image per pixel of a patch, along one axis."""
    rows: tuple[_Row, ...]
    cover: Floats
    """``(outlines, pixels)``: opacity. Rows that differ in texture alone share an outline."""
    gain: Floats
    """``(rows, pixels)``: opacity times brightness."""
    outline: NDArray[np.int64]
    """``(rows,)``: each row's outline."""
    energy: Floats
    """``(rows, 3)``: sums over pixels of gain², gain * cover, cover²."""
    coarse: NDArray[np.int64]
    """Indices of the rows nearest to the middle of their pixel."""
    radius: Floats
    shape: NDArray[np.int64]


@lru_cache(maxsize=4)
def _bank(image_size: int, factor: int, rough: bool) -> _Bank:
    rows = _rows(image_size, factor)
    outline = np.cumsum([row.texture == TEXTURES[0] for row in rows]) - 1
    half = math.ceil(radii("large", image_size)[-1] * MAX_REACH / factor)
    pixels = (2 * half + 1) ** 2
    cover = np.zeros((int(outline[-1]) + 1, pixels), dtype=np.float32)
    gain = np.zeros((len(rows), pixels), dtype=np.float32)
    period = texture_period(image_size / 64.0, rough)
    for index, row in enumerate(rows):
        cover[outline[index]], gain[index] = _patches(row, period, half, factor)
    full = cover[outline]
    middle = sorted({row.dx for row in rows})
    centre = middle[(len(middle) - 1) // 2]
    return _Bank(
        half=half,
        factor=factor,
        rows=rows,
        cover=cover,
        gain=gain,
        outline=outline,
        energy=np.stack([(gain**2).sum(1), (gain * full).sum(1), (full**2).sum(1)], axis=1),
        coarse=np.array([i for i, row in enumerate(rows) if row.dx == row.dy == centre]),
        radius=np.array([row.radius for row in rows], dtype=np.float32),
        shape=np.array([SHAPES.index(row.shape) for row in rows]),
    )


def _rows(image_size: int, factor: int) -> tuple[_Row, ...]:
    step = lattice_step(image_size)
    offsets = [i * step for i in range(round(factor / step))]
    outlines = list(itertools.product(SHAPES, offsets, offsets))
    return tuple(
        _Row(shape, radius, dx, dy, size, texture)
        for size in SIZE_NAMES
        for radius in radii(size, image_size)
        for shape, dx, dy in outlines
        for texture in (TEXTURES[:1] if size == "small" else TEXTURES)
    )


def _patches(row: _Row, period: int, half: int, factor: int) -> tuple[Floats, Floats]:
    """A row's opacity and opacity times brightness, flat, averaged over ``factor`` x ``factor``."""
    x, y = math.floor(row.dx), math.floor(row.dy)
    piece = make_sprite(row.shape, row.radius, row.dx - x, row.dy - y, row.texture, period)
    width = 2 * half + 1
    maps = np.zeros((2, factor * width, factor * width), dtype=np.float32)
    top, left = half * factor + y + piece.top, half * factor + x + piece.left
    height, across = piece.keep.shape[0], piece.keep.shape[1] // 3
    maps[0, top : top + height, left : left + across] = 1.0 - piece.keep[:, ::3] / 256.0
    maps[1, top : top + height, left : left + across] = piece.gain[:, ::3] / 256.0
    cover, gain = maps.reshape(2, width, factor, width, factor).mean(axis=(2, 4)).reshape(2, -1)
    return cover, gain


class _Picture:
    """What is left of a picture to explain: its difference from the plain background, padded."""

    def __init__(self, image: Image, bank: _Bank) -> None:
        pixels = image.astype(np.float32)
        median = np.median(pixels.reshape(-1, 3), axis=0)
        bases = np.array([BACKGROUND_COLORS[name] for name in BACKGROUNDS], dtype=np.float32)
        nearest = int(((bases - median) ** 2).sum(axis=1).argmin())
        self.background = BACKGROUNDS[nearest]
        # The picture's own median where it is a plausible shade of that background.
        close = float(np.abs(bases[nearest] - median).max()) < 25.0
        self.base: Floats = median.astype(np.float32) if close else bases[nearest]
        self.bank = bank
        margin = bank.half + 1
        self.margin = margin
        self.rest: Floats = np.pad(pixels - self.base, ((margin, margin), (margin, margin), (0, 0)))
        self.pixels = pixels

    def explained(
        self, rows: NDArray[np.int64], positions: NDArray[np.int64], color: Floats
    ) -> Floats:
        """Energy that each row at each position explains, ``(rows, positions)``.

        A thing adds P = gain * color - cover * base to the background; explaining the rest D by it
        lowers the squared error by 2 <D, P> - |P|².
        """
        bank, base = self.bank, self.base
        window = np.arange(-bank.half, bank.half + 1)
        y = positions[:, 0, None, None] + window[None, :, None] + self.margin
        x = positions[:, 1, None, None] + window[None, None, :] + self.margin
        along_color = (self.rest @ color)[y, x].reshape(len(positions), -1)
        along_base = (self.rest @ base)[y, x].reshape(len(positions), -1)
        outlines, own = np.unique(bank.outline[rows], return_inverse=True)
        match = bank.gain[rows] @ along_color.T - (bank.cover[outlines] @ along_base.T)[own]
        weights = np.array([color @ color, -2.0 * (color @ base), base @ base], dtype=np.float32)
        return 2.0 * match - (bank.energy[rows] @ weights)[:, None]

    def take_away(
        self,
        row: int,
        position: NDArray[np.int64],
        color: Floats,
        own: NDArray[np.bool_],
        max_residual: float,
    ) -> bool:
        """Subtract a thing from what is left; refuse if too much would remain where it lies.

        Pixels of its colour (``own``) just outside its outline also speak against it.
        """
        bank = self.bank
        width = 2 * bank.half + 1
        flat_cover = bank.cover[bank.outline[row]]
        drawn = bank.gain[row][:, None] * color - flat_cover[:, None] * self.base
        top, left = position + (self.margin - bank.half)
        window = (slice(top, top + width), slice(left, left + width))
        remains = self.rest[window] - drawn.reshape(width, width, 3)
        covered = flat_cover.reshape(width, width) > 0.05
        rim = _grown(_grown(covered)) & np.pad(own, self.margin)[window]
        contrast = np.abs(color - self.base).sum() * flat_cover.sum()
        if np.abs(remains[covered | rim]).sum() > max_residual * contrast:
            return False
        self.rest[window] = remains
        return True


def parse(image: Image, *, rough: bool = False, max_residual: float = MAX_RESIDUAL) -> Scene:
    """Read the scene off an image, uint8 ``(H, W, 3)`` with H = W >= 32.

    ``rough`` expects the finer textures of level `hard`. A thing is accepted when the mean absolute
    difference between it and its re-drawing, relative to its contrast to the background, is below
    ``max_residual``. Raises DataError for another shape or type of array.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(
            f"image is {image.dtype} of shape {image.shape}; give uint8 of shape (H, W, 3)."
        )
    if image.shape[0] != image.shape[1] or image.shape[0] < 32:
        raise DataError(f"image has {image.shape[:2]} pixels; give a square one of 32 or more.")
    image_size = image.shape[0]
    factor = image_size // PARSED_SIZE if image_size % PARSED_SIZE == 0 else 1
    if factor > 1:
        blocks = image.reshape(image_size // factor, factor, image_size // factor, factor, 3)
        image = np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
    picture = _Picture(image, _bank(image_size, factor, rough))
    things = _find_things(picture, max_residual)
    return Scene(tuple(things), picture.background, image_size, rough=rough)


def _find_things(picture: _Picture, max_residual: float) -> list[Thing]:
    labels = _nearest_colors(picture.pixels)
    waiting = [part for color in range(len(COLORS)) for part in _components(labels == color)]
    things: list[Thing] = []
    while waiting and len(things) < _MAX_THINGS:
        # The largest first: what it covers, its neighbours need not explain.
        waiting.sort(key=np.count_nonzero)
        component = waiting.pop()
        color_index = int(labels[component][0])
        color = _full_color(picture.pixels[component], color_index)
        row, position = _best_match(picture, component, color)
        if picture.take_away(row, position, color, labels == color_index, max_residual):
            fit, factor = picture.bank.rows[row], picture.bank.factor
            y, x = float(position[0]) * factor + fit.dy, float(position[1]) * factor + fit.dx
            name = COLOR_NAMES[color_index]
            things.append(Thing(fit.shape, name, fit.size, fit.texture, x, y, fit.radius))
            labels[_covered(picture.bank, row, position, labels.shape)] = -1
            # Two things of one colour may have looked like one: what is left is looked at again.
            waiting += _components(component & (labels == color_index))
    return things


def _full_color(pixels: Floats, color_index: int) -> Floats:
    """The shade a thing is drawn in: its purer half, for the other half may be mixed at edges."""
    palette = np.array(COLORS[COLOR_NAMES[color_index]], dtype=np.float32)
    order = ((pixels - palette) ** 2).sum(axis=1).argsort()
    return np.median(pixels[order[: (len(order) + 1) // 2]], axis=0).astype(np.float32)


def _best_match(
    picture: _Picture, component: NDArray[np.bool_], color: Floats
) -> tuple[int, NDArray[np.int64]]:
    """The row and integer position that explain most: on whole pixels, then around the best."""
    bank = picture.bank
    rows, columns = np.nonzero(component)
    box = np.mgrid[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    positions = box.reshape(2, -1).T
    coarse = picture.explained(bank.coarse, positions, color)
    best = np.argpartition(coarse, -_NUM_FINALISTS, axis=None)[-_NUM_FINALISTS:]
    best_rows, best_positions = np.unravel_index(best, coarse.shape)
    finalists = bank.coarse[best_rows]
    step = 0.51 * max(1.0, bank.factor * picture.pixels.shape[0] / 64.0)
    alike = np.abs(bank.radius[:, None] - bank.radius[finalists]) <= step
    alike &= bank.shape[:, None] == bank.shape[finalists]
    fine = np.flatnonzero(alike.any(axis=1))
    shifts = np.mgrid[-1:2, -1:2].reshape(2, -1).T
    near = positions[best_positions][:, None, :] + shifts
    limit = picture.pixels.shape[0] - 1
    near = np.unique(np.clip(near.reshape(-1, 2), 0, limit), axis=0)
    scores = picture.explained(fine, near, color)
    row, position = np.unravel_index(int(scores.argmax()), scores.shape)
    return int(fine[row]), near[position]


def _covered(
    bank: _Bank, row: int, position: NDArray[np.int64], shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Mask of the pixels that a thing covers, one pixel wider."""
    width = 2 * bank.half + 1
    height, across = shape
    mask = np.zeros((height + 2 * bank.half, across + 2 * bank.half), dtype=bool)
    top, left = position
    cover = bank.cover[bank.outline[row]].reshape(width, width)
    mask[top : top + width, left : left + width] = cover > 0.05
    return _grown(mask)[bank.half : -bank.half, bank.half : -bank.half]


def _nearest_colors(pixels: Floats) -> NDArray[np.int64]:
    """For each pixel the index of the full colour it shows, or -1."""
    palette = np.array([*COLORS.values(), PLATE_COLOR], dtype=np.float32)
    distance = np.sqrt(((pixels[:, :, None, :] - palette) ** 2).sum(axis=3))
    nearest = distance.argmin(axis=2)
    known = (distance.min(axis=2) < _COLOR_REACH) & (nearest < len(COLORS))
    return np.where(known, nearest, -1)


def _components(own: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Connected sets of pixels, without crumbs; a gap of two (a dark stripe) does not divide.

    Runs of a row that meet a run of the row above belong together (union-find).
    """
    if not own.any():
        return []
    mask = _grown(own)
    rows, edges = np.nonzero(np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1))
    runs = zip(rows[::2].tolist(), edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    parents: list[int] = []
    labels = np.full(mask.shape, -1)
    by_row: dict[int, list[tuple[int, int, int]]] = {}
    for row, start, stop in runs:
        label = len(parents)
        parents.append(label)
        labels[row, start:stop] = label
        by_row.setdefault(row, []).append((start, stop, label))
        for other_start, other_stop, other in by_row.get(row - 1, ()):
            if other_start <= stop and start <= other_stop:  # corners touch, too
                parents[_root(parents, other)] = _root(parents, label)
    roots = np.array([_root(parents, label) for label in range(len(parents))])
    labels = np.where(labels >= 0, roots[labels], -1)
    parts = [own & (labels == root) for root in np.unique(roots)]
    least = _MIN_PIXELS if own.shape[0] >= PARSED_SIZE else 2
    return [part for part in parts if np.count_nonzero(part) >= least]


def _root(parents: list[int], label: int) -> int:
    while parents[label] != label:
        label = parents[label]
    return label


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown
