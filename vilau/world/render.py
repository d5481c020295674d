"""Scene -> pixels: anti-aliased sprites, textures and backgrounds.

Blending is integer arithmetic, so the bytes are the same on every machine. An image is blended as
2-D rows of ``3 * width`` bytes: contiguous inner loops make numpy several times faster than
broadcasting over a last axis of 3.
"""

from __future__ import annotations

import math
import random
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vilau.world.scene import BACKGROUNDS, COLORS, Scene, Thing, glyph_scale, sign_box
from vilau.world.shapes import MAX_REACH, signed_distance

Image = NDArray[np.uint8]

# Dark or unsaturated, so that all eight colours stand out and a parser can be exact.
BACKGROUND_COLORS = {
    "black": (18, 18, 22),
    "grey": (104, 106, 110),
    "dirt": (88, 64, 46),
    "night": (14, 16, 46),
    "sea": (18, 50, 84),
    "grass": (26, 70, 32),
}
DARK_TONE = 0.38
"""Brightness of a texture's dark places."""
PLATE_COLOR = (232, 228, 210)
INK_COLOR = (20, 20, 20)
ROUGH_JITTER = 12.0
ROUGH_NOISE = 3.0

# Rows of 3 dots, top to bottom.
_FONT = {
    "a": "010101111101101", "b": "110101110101110", "c": "011100100100011", "e": "111100110100111",
    "f": "111100110100100", "h": "101101111101101", "i": "111010010010111", "k": "101101110101101",
    "l": "100100100100111", "n": "110101101101101", "o": "010101101101010", "p": "110101110100100",
    "r": "110101110110101", "s": "011100010001110", "t": "111010010010010", "u": "101101101101111",
    "w": "101101111111101", "x": "101101010101101", "y": "101101010010010", "z": "111001010100111",
}  # fmt: skip


class Sprite(NamedTuple):
    """A shape ready to be blended: ``pixel = (pixel * keep + gain * colour) / 256``."""

    keep: NDArray[np.uint16]
    """``(h, 3w)``, 256 where nothing is drawn."""
    gain: NDArray[np.uint16]
    """``(h, 3w)``, 256 where the full colour is drawn."""
    left: int
    """Column of the sprite's first pixel, relative to the integer part of the thing's x."""
    top: int


def texture_period(scale: float, rough: bool) -> int:
    """Length in pixels after which a texture repeats."""
    return max(3, round((3 if rough else 4) * scale))


def texture_tone(
    texture: str, x: NDArray[np.int64], y: NDArray[np.int64], period: int
) -> NDArray[np.float64]:
    """Brightness (1 or DARK_TONE) at integer offsets from a thing's centre pixel."""
    half = (period + 1) // 2
    if texture == "striped":
        dark = ((x + y) // half) % 2 == 1
    elif texture == "dotted":
        dark = (x % period < period // 2) & (y % period < period // 2)
    elif texture == "checked":
        block = max(2, period // 2 + 1)
        dark = (x // block + y // block) % 2 == 1
    else:
        dark = np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=bool)
    return np.where(dark, DARK_TONE, 1.0)


def make_sprite(
    shape: str,
    radius: float,
    dx: float,
    dy: float,
    texture: str = "solid",
    period: int = 4,
    border: float = 0.0,
) -> Sprite:
    """A shape at sub-pixel offset (dx, dy) in [0, 1).

    With ``border`` > 0 only a rim of that many pixels is drawn.
    """
    half = math.ceil(radius * MAX_REACH) + 1
    grid = np.arange(-half, half + 2)
    x, y = grid[None, :], grid[:, None]
    offset_x, offset_y = x.astype(np.float64) - dx, y.astype(np.float64) - dy
    distance = signed_distance(shape, offset_x, offset_y, radius)
    alpha = np.clip(0.5 - distance, 0.0, 1.0)
    if border:
        alpha -= np.clip(0.5 - (distance + border), 0.0, 1.0)
    cover = np.rint(alpha * 256.0)
    rows, columns = np.flatnonzero(cover.any(axis=1)), np.flatnonzero(cover.any(axis=0))
    cut = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    gain = np.rint(cover * texture_tone(texture, x, y, period))
    return Sprite(
        keep=np.repeat((256.0 - cover[cut]).astype(np.uint16), 3, axis=1),
        gain=np.repeat(gain[cut].astype(np.uint16), 3, axis=1),
        left=int(columns[0]) - half,
        top=int(rows[0]) - half,
    )


sprite = lru_cache(maxsize=16384)(make_sprite)


@lru_cache(maxsize=1024)
def _color_row(color: tuple[int, int, int], pixels: int) -> NDArray[np.uint16]:
    return np.tile(np.array(color, dtype=np.uint16), pixels)


def _blend(image: Image, piece: Sprite, x: int, y: int, color: tuple[int, int, int]) -> None:
    """Blend a sprite onto ``image`` (H, W, 3) in place; what falls outside is cut off."""
    height, width, _ = image.shape
    x, y = x + piece.left, y + piece.top
    rows, columns = piece.keep.shape[0], piece.keep.shape[1] // 3
    x0, y0 = max(0, -x), max(0, -y)
    x1, y1 = min(columns, width - x), min(rows, height - y)
    if x0 >= x1 or y0 >= y1:
        return
    canvas = image.reshape(height, 3 * width)[y + y0 : y + y1, 3 * (x + x0) : 3 * (x + x1)]
    keep, gain = piece.keep, piece.gain
    if (x1 - x0, y1 - y0) != (columns, rows):
        keep, gain = keep[y0:y1, 3 * x0 : 3 * x1], gain[y0:y1, 3 * x0 : 3 * x1]
    # keep + gain <= 256, so the sum stays below 65,536.
    mixed = canvas * keep
    mixed += gain * _color_row(color, x1 - x0)
    mixed += 128
    mixed >>= 8
    canvas[...] = mixed


def draw_thing(
    image: Image, thing: Thing, *, period: int, color: tuple[int, int, int] | None = None
) -> None:
    """Draw a thing onto ``image`` (H, W, 3) in place; ``color`` replaces the thing's own."""
    x, y = math.floor(thing.x), math.floor(thing.y)
    dx, dy = thing.x - x, thing.y - y
    body = sprite(thing.shape, thing.radius, dx, dy, thing.texture, period)
    _blend(image, body, x, y, color or COLORS[thing.color])
    if thing.part is None:
        return
    kind, part_color = thing.part
    if kind == "dot":
        part = sprite("circle", thing.radius * 0.34, dx, dy)
    else:
        part = sprite(thing.shape, thing.radius, dx, dy, border=0.13 * thing.radius)
    _blend(image, part, x, y, COLORS[part_color])


def draw_sign(image: Image, text: str, xy: tuple[int, int]) -> None:
    """Draw a plate with ``text`` in a 3x5-dot font, its upper left corner at ``xy``."""
    scale = glyph_scale(image.shape[0])
    width, height = sign_box(text, image.shape[0])
    x, y = xy
    image[y : y + height, x : x + width] = PLATE_COLOR
    for position, letter in enumerate(text):
        dots = np.array([bit == "1" for bit in _FONT[letter]]).reshape(5, 3)
        ink = dots.repeat(scale, axis=0).repeat(scale, axis=1)
        left = x + (2 + 4 * position) * scale
        image[y + 2 * scale : y + 7 * scale, left : left + 3 * scale][ink] = INK_COLOR


@lru_cache(maxsize=1024)
def _background(name: str, size: int, variant: int) -> Image:
    # RandomState, because its stream is frozen across numpy versions.
    rng = np.random.RandomState(variant * 97 + BACKGROUNDS.index(name))
    scale = size / 64.0
    image = np.empty((size, size, 3))
    image[:] = BACKGROUND_COLORS[name]
    rows, columns = np.arange(size)[:, None], np.arange(size)[None, :]
    if name == "dirt":
        block = max(1, round(2 * scale))
        cells = -(-size // block)
        grain = rng.normal(0.0, 9.0, (cells, cells)).repeat(block, axis=0).repeat(block, axis=1)
        image += grain[:size, :size, None]
    elif name == "night":
        dot = max(1, round(scale))
        for row, column in rng.randint(0, size - dot + 1, (24, 2)):
            image[row : row + dot, column : column + dot] = 96.0
    elif name == "sea":
        bend = 2.0 * np.sin(columns * 0.3 / scale + variant)
        image += 12.0 * np.sin(rows * 1.1 / scale + bend)[..., None]
    elif name == "grass":
        blade = max(1, round(scale))
        blades = rng.normal(0.0, 12.0, (1, -(-size // blade))).repeat(blade, axis=1)[:, :size]
        image += (blades + rng.normal(0.0, 5.0, (size, size)))[..., None]
    return np.rint(np.clip(image, 0.0, 255.0)).astype(np.uint8)


def num_variants(size: int) -> int:
    """How many grains each background has; fewer on a large canvas, to bound the cache."""
    return min(64, max(4, 64**3 // size**2))


def background(scene: Scene) -> Image:
    """The empty stage of a scene, uint8 ``(H, W, 3)``; a fresh copy."""
    size = scene.image_size
    return _background(scene.background, size, scene.seed % num_variants(size)).copy()


def render(scene: Scene) -> Image:
    """Draw a scene: uint8 ``(H, W, 3)``, a pure function of the scene."""
    image = background(scene)
    period = texture_period(scene.scale, scene.rough)
    if scene.rough:
        rng = random.Random(scene.seed)
        for thing in scene.things:
            draw_thing(image, thing, period=period, color=_jittered(COLORS[thing.color], rng))
    else:
        for thing in scene.things:
            draw_thing(image, thing, period=period)
    if scene.sign is not None and scene.sign_xy is not None:
        draw_sign(image, scene.sign, scene.sign_xy)
    return _with_noise(image, scene.seed) if scene.rough else image


def _jittered(color: tuple[int, int, int], rng: random.Random) -> tuple[int, int, int]:
    red, green, blue = (min(255, max(0, round(c + rng.gauss(0.0, ROUGH_JITTER)))) for c in color)
    return red, green, blue


def _with_noise(image: Image, seed: int) -> Image:
    # The sum of four bytes is nearly normal (mean 510, deviation 147.8) and much faster to draw.
    dice = np.frombuffer(np.random.RandomState(seed).bytes(4 * image.size), dtype=np.uint8)
    noise = dice.reshape(4, *image.shape).sum(axis=0, dtype=np.int32)
    noise -= 510
    noise *= round(ROUGH_NOISE / 147.8 * 4096)
    noise += 2048
    noise >>= 12
    noise += image
    return np.clip(noise, 0, 255).astype(np.uint8)
