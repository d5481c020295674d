"""Position embeddings of patches, resized for images of another size.

N rows, C width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vilau.errors import ConfigError
from vilau.models.sizes import SiglipSizes


def resized_positions(table_NC: Tensor, *, old_grid: int, grid: int) -> Tensor:
    """Return a table ``(N, C)`` of positions for ``grid`` x ``grid`` patches, from one for ``old_grid``'s.

    The last ``old_grid`` squared rows are the patches', in raster order; those before them (a class token's)
    stay. Bicubic and antialiased, as timm resamples; the same tensor comes back where the grid stays.
    """
    if grid == old_grid:
        return table_NC
    first = len(table_NC) - old_grid**2
    cells = table_NC[first:].float().t().reshape(1, -1, old_grid, old_grid)
    cells = F.interpolate(
        cells, size=(grid, grid), mode="bicubic", antialias=True, align_corners=False
    )
    rows = cells.flatten(2).squeeze(0).t().to(table_NC.dtype)
    return torch.cat([table_NC[:first], rows])


def check_divides(image_size: int, sizes: SiglipSizes) -> None:
    """Raise ``ConfigError`` for a new image size that the patches do not fill."""
    patch = sizes.patch_size
    if image_size < patch or image_size % patch:
        low = max(image_size // patch, 1) * patch
        raise ConfigError(
            f"start.image_size is {image_size}, which {patch}-pixel patches do not divide; write {low} or "
            f"{low + patch}."
        )
