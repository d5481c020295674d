"""Pictures for people: grids with headings, and captions under pictures. Needs torch and Pillow alone."""

import textwrap
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

MARGIN = 4
SMALLEST_SIDE = 128
"""Smaller pictures are enlarged to about this many pixels, pixel by pixel."""
LINE_HEIGHT = 12


def grid(
    rows: Sequence[Sequence[Tensor]], headings: Sequence[str] = (), labels: Sequence[str] = ()
) -> Tensor:
    """Lay uint8 pictures ``(3, H, W)`` out in rows, with a heading over each column and a line over each row.

    Returns:
        uint8 ``(3, height, width)``.
    """
    side = rows[0][0].shape[-1]
    scale = max(1, SMALLEST_SIDE // side)
    cell = side * scale + MARGIN
    top = LINE_HEIGHT + MARGIN if headings else 0
    line = LINE_HEIGHT + MARGIN if labels else 0
    columns = max(len(row) for row in rows)
    size = (columns * cell + MARGIN, top + len(rows) * (cell + line) + MARGIN)
    sheet = Image.new("RGB", size, "white")
    for index, heading in enumerate(headings):
        _write(sheet, heading, MARGIN + index * cell, 2, width=cell)
    for row_index, row in enumerate(rows):
        y = top + MARGIN + row_index * (cell + line)
        if labels:
            _write(sheet, labels[row_index], MARGIN, y, width=columns * cell)
        for index, picture in enumerate(row):
            sheet.paste(_enlarged(picture, scale), (MARGIN + index * cell, y + line))
    return _tensor(sheet)


def captioned(pictures: Sequence[Tensor], captions: Sequence[str], *, columns: int = 4) -> Tensor:
    """Lay uint8 pictures ``(3, H, W)`` of one size out in rows, each with its text written underneath.

    Returns:
        uint8 ``(3, height, width)``.
    """
    high, wide = pictures[0].shape[-2:]
    scale = max(1, SMALLEST_SIDE // high)
    width = wide * scale
    texts = [_wrapped(caption, width) for caption in captions]
    height = high * scale + MARGIN + LINE_HEIGHT * max(text.count("\n") + 1 for text in texts)
    rows = -(-len(pictures) // columns)
    size = (
        min(columns, len(pictures)) * (width + MARGIN) + MARGIN,
        rows * (height + MARGIN) + MARGIN,
    )
    sheet = Image.new("RGB", size, "white")
    for index, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
        x = MARGIN + index % columns * (width + MARGIN)
        y = MARGIN + index // columns * (height + MARGIN)
        sheet.paste(_enlarged(picture, scale), (x, y))
        _write(sheet, text, x, y + high * scale + 2, width=None)
    return _tensor(sheet)


def _enlarged(picture: Tensor, scale: int) -> Image.Image:
    image = Image.fromarray(picture.cpu().permute(1, 2, 0).contiguous().numpy())
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _write(sheet: Image.Image, text: str, x: int, y: int, *, width: int | None) -> None:
    if width is not None:
        text = _wrapped(text, width).split("\n")[0]
    ImageDraw.Draw(sheet).multiline_text(
        (x, y), text, fill="black", font=ImageFont.load_default(), spacing=1
    )


def _wrapped(text: str, width: int) -> str:
    letters = max(8, width // 6)
    return "\n".join(
        line for paragraph in text.split("\n") for line in textwrap.wrap(paragraph, letters) or [""]
    )
