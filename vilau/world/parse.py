"""Pixels -> scene by analysis through synthesis: the strict judge of generated images.

Colours propose, the renderer's own sprites decide: of all shapes, radii, sub-pixel offsets and
textures that the renderer can draw, the one that explains most of the picture's energy is taken, its
pixels are taken away, and the search goes on. A thing the renderer could not have drawn leaves a
large residual and is not accepted. Parts and signs are not read; covered things may be missed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vilau.errors import DataError
from vilau.world.render import (
    BACKGROUND_COLORS,
    DARK_TONE,
    PLATE_COLOR,
    Image,
    sprite,
    texture_period,
)
from vilau.world.scene import lattice_step, radii
from vilau.world.shapes import SHAPES
from vilau.world.things import BACKGROUNDS, COLOR_NAMES, COLORS, SIZE_NAMES, TEXTURES, Scene, Thing

Floats = NDArray[np.float32]

PARSED_SIZE = 64
"""Larger images are first shrunk to this many pixels where it divides their size."""
_COLOR_REACH = 75.0
"""A pixel may be this far (in RGB) from a colour that it is to propose."""
_MIN_PIXELS = 5
_MAX_THINGS = 16
_NUM_FINALISTS = 6


class _Row(NamedTuple):
    """One way to draw a thing."""

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
    rows: tuple[_Row, ...]
    cover: Floats
    """``(rows, pixels)``: opacity."""
    gain: Floats
    """``(rows, pixels)``: opacity times brightness."""
    energy: Floats
    """``(rows, 3)``: sums over pixels of gain², gain * cover, cover²."""
    coarse: NDArray[np.int64]
    """Indices of the rows at sub-pixel offset zero."""
    radius: Floats


@lru_cache(maxsize=4)
def _bank(image_size: int, rough: bool) -> _Bank:
    period = texture_period(image_size / 64.0, rough)
    step = lattice_step(image_size)
    offsets = [i * step for i in range(max(1, round(1.0 / step)))]
    rows = [
        _Row(shape, radius, dx, dy, size, texture)
        for size in SIZE_NAMES
        for radius in radii(size, image_size)
        for shape in SHAPES
        for dx in offsets
        for dy in offsets
        for texture in (TEXTURES[:1] if size == "small" else TEXTURES)
    ]
    half = int(radii("large", image_size)[-1] * 1.14) + 2
    width = 2 * half + 1
    cover = np.zeros((len(rows), width, width), dtype=np.float32)
    gain = np.zeros_like(cover)
    for index, row in enumerate(rows):
        piece = sprite(row.shape, row.radius, row.dx, row.dy, row.texture, period)
        top, left = half + piece.top, half + piece.left
        height, across = piece.keep.shape[0], piece.keep.shape[1] // 3
        place = (index, slice(top, top + height), slice(left, left + across))
        cover[place] = 1.0 - piece.keep[:, ::3] / 256.0
        gain[place] = piece.gain[:, ::3] / 256.0
    cover, gain = cover.reshape(len(rows), -1), gain.reshape(len(rows), -1)
    sums = [(gain * gain).sum(1), (gain * cover).sum(1), (cover * cover).sum(1)]
    return _Bank(
        half=half,
        rows=tuple(rows),
        cover=cover,
        gain=gain,
        energy=np.stack(sums, axis=1).astype(np.float32),
        coarse=np.array([i for i, row in enumerate(rows) if row.dx == row.dy == 0.0]),
        radius=np.array([row.radius for row in rows], dtype=np.float32),
    )


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

    def patches(self, positions: NDArray[np.int64]) -> Floats:
        """``(positions, pixels, 3)`` of what is left around each (row, column)."""
        window = np.arange(-self.bank.half, self.bank.half + 1)
        rows = positions[:, 0, None, None] + window[None, :, None] + self.margin
        columns = positions[:, 1, None, None] + window[None, None, :] + self.margin
        return self.rest[rows, columns].reshape(len(positions), -1, 3)

    def explained(
        self, rows: NDArray[np.int64], positions: NDArray[np.int64], color: Floats
    ) -> Floats:
        """Energy that each row at each position explains, ``(rows, positions)``.

        A thing adds P = gain * color - cover * base to the background; explaining the rest D by it
        lowers the squared error by 2 <D, P> - |P|².
        """
        bank, base = self.bank, self.base
        patches = self.patches(positions)
        along_color, along_base = patches @ color, patches @ base
        match = bank.gain[rows] @ along_color.T - bank.cover[rows] @ along_base.T
        weights = np.array([color @ color, -2.0 * (color @ base), base @ base], dtype=np.float32)
        return 2.0 * match - (bank.energy[rows] @ weights)[:, None]

    def take_away(self, row: int, position: NDArray[np.int64], color: Floats) -> float:
        """Subtract a thing from what is left and return its residual, relative to its contrast."""
        bank = self.bank
        width = 2 * bank.half + 1
        drawn = bank.gain[row][:, None] * color - bank.cover[row][:, None] * self.base
        top, left = position + (self.margin - bank.half)
        view = self.rest[top : top + width, left : left + width]
        covered = bank.cover[row].reshape(width, width) > 0.05
        view -= drawn.reshape(width, width, 3)
        residual = float(np.abs(view[covered]).sum())
        return residual / float(np.abs(color - self.base).sum() * bank.cover[row].sum())


def parse(image: Image, *, rough: bool = False, max_residual: float = 0.35) -> Scene:
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
    picture = _Picture(image, _bank(image.shape[0], rough))
    things = _find_things(picture, max_residual)
    if factor > 1:
        things = [_enlarged(thing, factor) for thing in things]
    return Scene(tuple(things), picture.background, image_size, rough=rough)


def _enlarged(thing: Thing, factor: int) -> Thing:
    # Pixel centres lie at integers: centre c of the small image covers c * factor + (factor - 1) / 2.
    shift = (factor - 1) / 2.0
    return Thing(
        thing.shape, thing.color, thing.size, thing.texture,
        thing.x * factor + shift, thing.y * factor + shift, thing.radius * factor,
    )  # fmt: skip


def _find_things(picture: _Picture, max_residual: float) -> list[Thing]:
    labels = _nearest_colors(picture.pixels)
    things: list[Thing] = []
    for _ in range(_MAX_THINGS):
        component = _largest_component(labels)
        if component is None:
            break
        color_index = int(labels[component][0])
        before = picture.rest.copy()
        color = np.median(picture.pixels[component], axis=0).astype(np.float32)
        row, position = _best_match(picture, component, color)
        residual = picture.take_away(row, position, color)
        if residual > max_residual:
            picture.rest = before
            labels[component] = -1
            continue
        labels[_covered(picture.bank, row, position, labels.shape)] = -1
        fit = picture.bank.rows[row]
        y, x = position
        things.append(
            Thing(
                fit.shape, COLOR_NAMES[color_index], fit.size, fit.texture,
                float(x) + fit.dx, float(y) + fit.dy, fit.radius,
            )
        )  # fmt: skip
    return things


def _best_match(
    picture: _Picture, component: NDArray[np.bool_], color: Floats
) -> tuple[int, NDArray[np.int64]]:
    """The row and integer position that explain most, first on whole pixels, then around the best."""
    bank = picture.bank
    rows, columns = np.nonzero(component)
    box = np.mgrid[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    positions = box.reshape(2, -1).T
    coarse = picture.explained(bank.coarse, positions, color)
    best = np.argsort(coarse, axis=None)[::-1][:_NUM_FINALISTS]
    best_rows, best_positions = np.unravel_index(best, coarse.shape)
    sizes = bank.radius[bank.coarse[best_rows]]
    step = 0.51 * max(1.0, picture.pixels.shape[0] / 64.0)
    fine = np.flatnonzero((np.abs(bank.radius[:, None] - sizes) <= step).any(axis=1))
    shifts = np.mgrid[-1:2, -1:2].reshape(2, -1).T
    near = positions[best_positions][:, None, :] + shifts
    limit = picture.pixels.shape[0] - 1
    near = np.unique(np.clip(near.reshape(-1, 2), 0, limit), axis=0)
    scores = picture.explained(fine, near, color)
    row, position = np.unravel_index(int(scores.argmax()), scores.shape)
    return int(fine[row]), near[position]


def _covered(
    bank: _Bank, row: int, position: NDArray[np.int64], shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Mask of the pixels that a thing covers, one pixel wider."""
    width = 2 * bank.half + 1
    mask = np.zeros((shape[0] + 2 * bank.half, shape[1] + 2 * bank.half), dtype=bool)
    top, left = position
    mask[top : top + width, left : left + width] = bank.cover[row].reshape(width, width) > 0.05
    return _grown(mask)[bank.half : -bank.half, bank.half : -bank.half]


def _nearest_colors(pixels: Floats) -> NDArray[np.int64]:
    """For each pixel the index of the full colour it shows, or -1."""
    palette = np.array([*COLORS.values(), PLATE_COLOR], dtype=np.float32)
    distance = np.sqrt(((pixels[:, :, None, :] - palette) ** 2).sum(axis=3))
    nearest = distance.argmin(axis=2)
    known = (distance.min(axis=2) < _COLOR_REACH) & (nearest < len(COLORS))
    return np.where(known, nearest, -1)


def _largest_component(labels: NDArray[np.int64]) -> NDArray[np.bool_] | None:
    """The largest connected set of one colour; gaps of two pixels (dark stripes) do not divide it."""
    best, best_pixels = None, _MIN_PIXELS - 1
    for color in range(len(COLORS)):
        own = labels == color
        if own.sum() <= best_pixels:
            continue
        for component in _components(_grown(own)):
            pixels = component & own
            if pixels.sum() > best_pixels:
                best, best_pixels = pixels, int(pixels.sum())
    return best


def _components(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """4-connected components, by growing seeds inside the mask."""
    left, found = mask.copy(), []
    while left.any():
        seed = np.zeros_like(mask)
        seed[np.unravel_index(int(left.argmax()), mask.shape)] = True
        size = 0
        while seed.sum() > size:
            size = int(seed.sum())
            seed = _grown(seed) & mask
        found.append(seed)
        left &= ~seed
    return found


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown
